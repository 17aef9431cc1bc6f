// SPDX-License-Identifier: Apache-2.0

enum Radix {
    case decimal, hexadecimal, hexadecimalUppercase
}

// A request is put together in an array and then copied into a ByteBuffer at once: twenty small writes into a
// ByteBuffer cost several times as much, each with its own check of capacity and access.
extension [UInt8] {
    mutating func append(_ text: StaticString) {
        text.withUTF8Buffer { append(contentsOf: $0) }
    }

    /// Appends a number without leading zeroes and without a String in between.
    mutating func append(digitsOf number: UInt64, radix: Radix = .decimal) {
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
        for index in first..<digits.count { append(digits[index]) }
    }
}
