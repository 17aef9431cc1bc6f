// SPDX-License-Identifier: Apache-2.0

/// SipHash-1-3 (Aumasson and Bernstein) of bytes, keyed, so that a peer can't choose keys that collide.
///
/// Unlike the standard library's `Hasher` its result is the same after a restart, which the journal needs.
package struct SipHash {
    package struct Key: Equatable, Sendable {
        package var low: UInt64
        package var high: UInt64

        package init(low: UInt64, high: UInt64) {
            self.low = low
            self.high = high
        }
    }

    private var v0: UInt64
    private var v1: UInt64
    private var v2: UInt64
    private var v3: UInt64
    private var length: UInt64 = 0

    package init(key: Key) {
        v0 = key.low ^ 0x736f_6d65_7073_6575
        v1 = key.high ^ 0x646f_7261_6e64_6f6d
        v2 = key.low ^ 0x6c79_6765_6e65_7261
        v3 = key.high ^ 0x7465_6462_7974_6573
    }

    /// Adds a field: its bytes and its length, so that `ab`, `c` and `a`, `bc` differ.
    package mutating func combine(_ field: UnsafeRawBufferPointer) {
        var offset = 0
        while offset &+ 8 <= field.count {
            absorb(UInt64(littleEndian: field.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
            offset &+= 8
        }
        var tail = UInt64(truncatingIfNeeded: field.count) << 56
        var shift: UInt64 = 0
        while offset < field.count {
            tail |= UInt64(field[offset]) << shift
            shift &+= 8
            offset &+= 1
        }
        absorb(tail)
    }

    package mutating func combine(_ value: UInt64) {
        absorb(value)
    }

    package consuming func finalize() -> UInt64 {
        absorb(length &* 8)
        v2 ^= 0xff
        round()
        round()
        round()
        return v0 ^ v1 ^ v2 ^ v3
    }

    /// Twice as many bits, for inputs that are identified by their hash alone.
    package consuming func finalize128() -> (UInt64, UInt64) {
        absorb(length &* 8)
        v2 ^= 0xee
        round()
        round()
        round()
        let first = v0 ^ v1 ^ v2 ^ v3
        v1 ^= 0xdd
        round()
        round()
        round()
        return (first, v0 ^ v1 ^ v2 ^ v3)
    }

    private mutating func absorb(_ word: UInt64) {
        length &+= 1
        v3 ^= word
        round()
        v0 ^= word
    }

    @inline(__always)
    private mutating func round() {
        v0 = v0 &+ v1
        v1 = Self.rotated(v1, 13) ^ v0
        v0 = Self.rotated(v0, 32)
        v2 = v2 &+ v3
        v3 = Self.rotated(v3, 16) ^ v2
        v0 = v0 &+ v3
        v3 = Self.rotated(v3, 21) ^ v0
        v2 = v2 &+ v1
        v1 = Self.rotated(v1, 17) ^ v2
        v2 = Self.rotated(v2, 32)
    }

    private static func rotated(_ value: UInt64, _ bits: UInt64) -> UInt64 {
        value &<< bits | value &>> (64 &- bits)
    }
}
