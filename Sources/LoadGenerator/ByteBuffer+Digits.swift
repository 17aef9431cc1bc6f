// SPDX-License-Identifier: Apache-2.0
import NIOCore

enum Radix {
    case decimal, hexadecimal, hexadecimalUppercase
}

extension ByteBuffer {
    /// Writes a number without leading zeroes and without a String in between.
    mutating func writeDigits(of number: UInt64, radix: Radix = .decimal) {
        let base: UInt64 = radix == .decimal ? 10 : 16
        let ten = radix == .hexadecimalUppercase ? UInt8(ascii: "A") : UInt8(ascii: "a")
        var digits = InlineArray<20, UInt8>(repeating: 0)
        var first = digits.count
        var rest = number
        repeat {
            first -= 1
            let digit = UInt8(rest % base)
            digits[first] = digit < 10 ? UInt8(ascii: "0") + digit : ten + digit - 10
            rest /= base
        } while rest > 0
        writeBytes(digits.span.bytes.extracting(droppingFirst: first))
    }
}
