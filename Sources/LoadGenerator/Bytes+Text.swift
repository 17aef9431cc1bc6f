// SPDX-License-Identifier: Apache-2.0

// Requests are built in an array and copied into a ByteBuffer at once. Many small writes into a ByteBuffer cost several
// times as much, because each checks capacity and exclusive access.
extension [UInt8] {
    mutating func append(_ text: StaticString) {
        text.withUTF8Buffer { append(contentsOf: $0) }
    }

    /// Appends decimal digits without creating a String.
    mutating func append(decimal number: UInt64) {
        var digits = InlineArray<20, UInt8>(repeating: UInt8(ascii: "0"))
        var first = digits.count
        var rest = number
        repeat {
            first -= 1
            digits[first] += UInt8(rest % 10)
            rest /= 10
        } while rest > 0
        for index in first..<digits.count { append(digits[index]) }
    }

    /// Appends hexadecimal digits; `ten` is the digit for ten, in upper or lower case.
    mutating func append(hexadecimal number: UInt64, ten: UInt8 = UInt8(ascii: "a")) {
        var shift = Swift.max(60 - number.leadingZeroBitCount & ~3, 0)
        while shift >= 0 {
            let digit = UInt8(truncatingIfNeeded: number >> shift & 15)
            append(digit < 10 ? UInt8(ascii: "0") + digit : ten + digit - 10)
            shift -= 4
        }
    }
}
