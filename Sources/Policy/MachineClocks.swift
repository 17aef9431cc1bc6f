// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import Limits
internal import Report

/// The clocks of this machine.
package struct MachineClocks: SystemClocks {
    package let boot: UInt64

    package init() {
        var id = [UInt8](repeating: 0, count: 64)
        let descriptor = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
        let count = descriptor < 0 ? 0 : max(0, Glibc.read(descriptor, &id, id.count))
        if descriptor >= 0 { close(descriptor) }
        var hash = SipHash(key: .init(low: 0, high: 0))
        id.withUnsafeBytes { hash.combine(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
        // Without an ID every start counts as a new boot, and the wall clock decides.
        boot = count > 0 ? hash.finalize() : .random(in: 0...(.max))
    }

    package func read() -> ClockReading {
        ClockReading(
            sinceBoot: microseconds(of: CLOCK_BOOTTIME) / 1000, wall: microseconds(of: CLOCK_REALTIME) / 1000)
    }
}
