// SPDX-License-Identifier: Apache-2.0
internal import Glibc

enum RuntimeLimits {
    /// Each connection takes a descriptor: allows as many as the kernel does for this process.
    static func raiseOpenFiles() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// A file that may not grow any more (LimitFSIZE=) is an error of its write, as a full disk is, and not the end.
    static func surviveFileLimit() { signal(SIGXFSZ, SIG_IGN) }
}
