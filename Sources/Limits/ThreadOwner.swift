// SPDX-License-Identifier: Apache-2.0
#if DEBUG
    internal import Glibc
#endif

/// Asserts that one thread alone uses an object: the first one that calls `check`. Does nothing in release builds.
struct ThreadOwner {
    #if DEBUG
        private var thread: pthread_t?

        mutating func check() {
            let current = pthread_self()
            if let thread {
                assert(thread == current, "used by a second thread")
            } else {
                thread = current
            }
        }
    #else
        @inline(__always) mutating func check() {}
    #endif
}
