// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import CLinux
internal import CSandbox
internal import Dispatch
internal import Glibc
internal import Report
internal import Settings
internal import Synchronization

/// What the process gives up, so that a fault in it can do no more than it does itself.
///
/// The order matters. Landlock applies to threads that start afterwards, so it comes before all others. The filter of
/// system calls comes when the listeners are open, and applies to all threads.
package final class Sandbox: Sendable {
    /// A restriction that the kernel, or a container, does not allow.
    package struct Missing: Error, CustomStringConvertible {
        package let description: String

        init(_ name: String, _ code: Int32) { description = "no \(name): \(String(cString: strerror(code)))" }
    }

    private let mode: Configuration.Sandbox
    /// What the service needed when it started.
    private let access: FileAccess
    private let landlock: Int?
    /// What the paths of `access` named when the service started.
    private let identities: [String: FileAccess.Identity]
    private let faults: Mutex<[String]>
    /// Where refused system calls arrive; -1 without a filter.
    private let refused = Atomic<Int32>(-1)

    /// Applies all restrictions but the filter of system calls.
    ///
    /// - Parameter access: what the service needs.
    /// - Throws: `Missing` if a restriction is required.
    init(_ mode: Configuration.Sandbox, access: FileAccess) throws(Missing) {
        self.mode = mode
        self.access = access
        var faults: [String] = []
        identities = access.identities
        landlock = try Self.restrict(mode, access, &faults)
        self.faults = Mutex(faults)
    }

    private static func restrict(
        _ mode: Configuration.Sandbox, _ access: FileAccess, _ faults: inout [String]
    ) throws(Missing) -> Int? {
        guard mode != .none else { return nil }
        do throws(Missing) {
            let code = weir_forbid_new_privileges()
            guard code == 0 else { throw Missing("no_new_privs", code) }
            return try access.restrict()
        } catch {
            if mode == .required { throw error }
            faults.append(error.description)
            return nil
        }
    }

    /// The paths that the service would need for `wanted` and did not name when it started, in order.
    func outOfReach(_ wanted: FileAccess) -> [String] { landlock == nil ? [] : access.lacks(wanted) }

    /// The paths that the service may no longer use, because something else has their names now, in order.
    var replaced: [String] { landlock == nil ? [] : access.replaced(since: identities) }

    /// Filters the system calls of all threads from now on.
    ///
    /// - Parameters:
    ///   - log: gets a line for each system call that is refused, once.
    ///   - isTrial: the process makes calls that are to be refused.
    /// - Throws: `Missing` if the filter is required.
    func filterCalls(log: EventLog, isTrial: Bool = false) throws(Missing) {
        guard mode != .none else { return }
        let code = installFilter(log, isTrial: isTrial)
        guard code != 0 else { return }
        let missing = Missing("filter of system calls", code)
        if mode == .required { throw missing }
        faults.withLock { $0.append(missing.description) }
    }

    /// Logs the system calls that were refused since it was called last. A filtered service does so by itself.
    func reportRefusals(to log: EventLog, areExpected: Bool = false) {
        var call = weir_refused_call()
        while read(refused.load(ordering: .relaxed), &call, MemoryLayout.size(ofValue: call)) > 0 {
            let text =
                "refused a system call that Weir does not make: number \(call.number), first argument "
                + "\(call.first_argument); see ausyscall(8)"
            areExpected ? log.notice("expected: \(text)") : log.error(text)
        }
    }

    private func installFilter(_ log: EventLog, isTrial: Bool) -> Int32 {
        var ends: [Int32] = [-1, -1]
        guard pipe2(&ends, O_CLOEXEC | O_NONBLOCK) == 0 else { return errno }
        let source = DispatchSource.makeReadSource(fileDescriptor: ends[0], queue: .global(qos: .utility))
        refused.store(ends[0], ordering: .relaxed)
        // The handler keeps the source as long as the process lives.
        source.setEventHandler { [self] in
            withExtendedLifetime(source) { reportRefusals(to: log, areExpected: isTrial) }
        }
        source.activate()
        let kills = getenv("WEIR_REFUSED_CALL").map { String(cString: $0) } == "kill"
        return weir_filter_calls(ends[1], access.connects ? 1 : 0, kills ? 1 : 0)
    }

    /// The protections in force, as the kernel reports them now.
    var protections: AdminMessages.Protections {
        .init(
            user: ServiceUser.current, noNewPrivileges: weir_has_no_new_privileges() != 0, landlock: landlock,
            callFilter: weir_has_call_filter() != 0, faults: mode == .none ? ["sandbox: none"] : faults.withLock(\.self)
        )
    }
}
