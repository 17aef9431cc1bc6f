// SPDX-License-Identifier: Apache-2.0
#if DEBUG
    internal import Glibc
    internal import Synchronization

    /// WEIR_KILL_AT=NAME:COUNT in the environment.
    private let wanted: (name: Substring, count: Int)? = {
        guard let value = getenv("WEIR_KILL_AT") else { return nil }
        let parts = String(cString: value).split(separator: ":")
        guard parts.count == 2, let count = Int(parts[1]) else { return nil }
        return (parts[0], count)
    }()

    private let passes = Atomic(0)

    /// A moment that matters when the process dies. `Tests/kills --points` sets WEIR_KILL_AT=NAME:COUNT, and the
    /// process then ends with SIGKILL when it passes the point of that name for the COUNTth time.
    package func killPoint(_ name: StaticString) {
        guard let wanted, name.description == wanted.name else { return }
        // raise(3) uses tgkill(2), which the sandbox allows.
        if passes.add(1, ordering: .relaxed).newValue == wanted.count { raise(SIGKILL) }
    }
#else
    /// Release builds have no points to die at.
    @inlinable
    package func killPoint(_: StaticString) {}
#endif
