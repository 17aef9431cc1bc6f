// SPDX-License-Identifier: Apache-2.0
internal import CDispatch  // Whose module map claims timespec.
internal import Glibc

/// The time of a clock of clock_gettime(2), such as `CLOCK_BOOTTIME`.
package func microseconds(of clock: Int32) -> Int64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
}

/// The time of the wall clock, with its fraction.
package func secondsSince1970() -> Double { Double(microseconds(of: CLOCK_REALTIME)) / 1e6 }
