// SPDX-License-Identifier: Apache-2.0
internal import CSandbox
internal import Glibc
internal import Report
internal import Settings

/// Tries what the restrictions must refuse, with those of a running service.
package enum SandboxTrial {
    package struct Attempt: Sendable, CustomStringConvertible {
        let action: String
        /// nil if it succeeded.
        let refusal: String?

        package var isRefused: Bool { refusal != nil }
        package var description: String { "\(action): \(refusal.map { "refused, \($0)" } ?? "ALLOWED")" }
    }

    /// A port that no part of Weir connects to: ssh's.
    private static let foreignPort: UInt16 = 22

    /// - Returns: the attempts, in the order in which they were made.
    package static func run(_ preparation: Preparation) -> [Attempt] {
        let log = EventLog(destination: .standardError)
        try? preparation.sandbox.filterCalls(log: log, isTrial: true)
        // The process ends before the service's own reports would come.
        defer {
            preparation.sandbox.reportRefusals(to: log, areExpected: true)
            log.flush()
        }
        let parent = getppid()
        let attempts: [(String, () -> Int32)] = [
            ("read /etc/shadow", { weir_try_open("/etc/shadow") }),
            ("read the memory of the parent process", { weir_try_open("/proc/\(parent)/mem") }),
            ("create a file in /var/tmp", { weir_try_create("/var/tmp/weir-sandbox-\(getpid())") }),
            ("connect to port \(foreignPort)", { weir_try_connect(foreignPort) }),
            ("connect to port \(foreignPort) with TCP Fast Open", { weir_try_send(foreignPort, 0) }),
            ("send a datagram to port \(foreignPort)", { weir_try_send(foreignPort, 1) }),
            ("listen on a new socket", weir_try_listen),
            ("open a raw socket", weir_try_raw_socket),
            ("start a process", weir_try_fork),
            ("execute /bin/true", { weir_try_execute("/bin/true") }),
            ("trace the parent process", weir_try_trace),
            ("send a signal to the parent process", { weir_try_signal(parent) }),
            ("map memory that is writable and executable", weir_try_writable_code),
            ("make written memory executable", weir_try_executable_data),
            ("open a process by pidfd_open(2)", weir_try_new_call),
            ("become root", weir_try_become_root),
        ]
        return attempts.map { action, attempt in
            let code = attempt()
            return Attempt(action: action, refusal: code == 0 ? nil : String(cString: strerror(code)))
        }
    }
}
