// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import Glibc
internal import MailSyntax

/// Undoes a Content-Transfer-Encoding (RFC 2045 6) piece by piece. Line ends of the message become LF: the
/// result must not depend on the way in. Bytes that break the rules of an encoding become what mail programs show.
struct TransferDecoder {
    enum Encoding {
        /// 7bit, 8bit, binary, and names that are unknown.
        case identity
        case base64, quotedPrintable, uuencode

        /// - Parameter name: in lower case.
        init(_ name: [UInt8]) {
            switch String(decoding: name, as: UTF8.self) {
            case "base64": self = .base64
            case "quoted-printable": self = .quotedPrintable
            case "x-uuencode", "x-uue", "uuencode": self = .uuencode
            default: self = .identity
            }
        }
    }

    /// Bytes. A piece decodes to at most this many more than it has.
    static let margin = 64

    private let encoding: Encoding
    /// The bits of base64 that make no byte yet.
    private var bits: UInt32 = 0
    private var bitCount: UInt32 = 0
    /// A beginning that the next bytes decide about: a CR, or `=` with what follows it.
    private var held: [UInt8] = []
    private var uuencoded = UUDecoder()

    init(_ encoding: Encoding) { self.encoding = encoding }

    /// Whether the next bytes do not depend on what came before.
    var isAtStart: Bool { held.isEmpty }

    /// Writes the decoded piece to `output`, which has room for it and `margin`. Returns the number of bytes.
    mutating func decode(_ piece: UnsafeRawBufferPointer, to output: UnsafeMutablePointer<UInt8>) -> Int {
        switch encoding {
        case .identity: decodeLines(piece, output)
        case .base64: decodeBase64(piece, output)
        case .quotedPrintable: decodeQuotedPrintable(piece, output)
        case .uuencode: uuencoded.decode(piece, output)
        }
    }

    /// Writes the rest at the end of the part.
    mutating func finish(to output: UnsafeMutablePointer<UInt8>) -> Int {
        guard encoding != .uuencode else { return uuencoded.finish(output) }
        for (index, byte) in held.enumerated() { output[index] = byte }
        defer { held = [] }
        return held.count
    }

    // MARK: - Lines

    private mutating func decodeLines(
        _ piece: UnsafeRawBufferPointer, _ output: UnsafeMutablePointer<UInt8>
    ) -> Int {
        guard let start = piece.baseAddress, !piece.isEmpty else { return 0 }
        var (index, count) = (0, 0)
        if !held.isEmpty {
            if piece[0] != 0x0a { Self.put(0x0d, output, &count) }
            held.removeAll(keepingCapacity: true)
        }
        while index < piece.count {
            let found = memchr(start + index, 0x0d, piece.count - index)
            let end = found.map { UnsafeRawPointer($0) - start } ?? piece.count
            memcpy(output + count, start + index, end - index)
            count += end - index
            index = end + 1
            if index == piece.count {
                held.append(0x0d)
            } else if index < piece.count, piece[index] != 0x0a {
                Self.put(0x0d, output, &count)
            }
        }
        return count
    }

    @inline(__always)
    private static func put(_ byte: UInt8, _ output: UnsafeMutablePointer<UInt8>, _ count: inout Int) {
        output[count] = byte
        count += 1
    }

    // MARK: - Base64

    /// By character: its six bits; `skipped` for what is no base64, `padding` for `=`.
    private static let base64Values: [UInt8] = (0...255).map { byte in
        byte == UInt8(ascii: "=") ? padding : byte.base64Value.map { UInt8($0) } ?? skipped
    }
    private static let skipped: UInt8 = 0xff
    private static let padding: UInt8 = 0x80

    /// RFC 2045 6.8. Other bytes are skipped. After padding, the next four characters begin anew.
    private mutating func decodeBase64(
        _ piece: UnsafeRawBufferPointer, _ output: UnsafeMutablePointer<UInt8>
    ) -> Int {
        guard let start = piece.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return 0 }
        var (index, count) = (0, 0)
        Self.base64Values.withUnsafeBufferPointer { values in
            while index < piece.count {
                if bitCount == 0 {
                    let decoded = weir_base64(start + index, piece.count - index, output + count)
                    index += decoded.read
                    count += decoded.written
                }
                while bitCount == 0, index + 4 <= piece.count {
                    let first = values[Int(piece[index])]
                    let second = values[Int(piece[index + 1])]
                    let third = values[Int(piece[index + 2])]
                    let fourth = values[Int(piece[index + 3])]
                    guard first | second | third | fourth < 64 else { break }
                    output[count] = first << 2 | second >> 4
                    output[count + 1] = second << 4 | third >> 2
                    output[count + 2] = third << 6 | fourth
                    count += 3
                    index += 4
                }
                guard index < piece.count else { break }
                let value = values[Int(piece[index])]
                index += 1
                if value == Self.padding { (bits, bitCount) = (0, 0) }
                guard value < 64 else { continue }
                bits = bits << 6 | UInt32(value)
                bitCount += 6
                if bitCount >= 8 {
                    bitCount -= 8
                    Self.put(UInt8(truncatingIfNeeded: bits >> bitCount), output, &count)
                }
            }
        }
        return count
    }

    // MARK: - Quoted-printable

    /// Blanks between `=` and a line end.
    private static let mostBlanks = 32

    /// RFC 2045 6.7. A `=` without two hexadecimal digits stays; with blanks and a line end after it, it is a soft
    /// line break.
    private mutating func decodeQuotedPrintable(
        _ piece: UnsafeRawBufferPointer, _ output: UnsafeMutablePointer<UInt8>
    ) -> Int {
        guard let base = piece.baseAddress else { return 0 }
        var (index, count) = (0, 0)
        while index < piece.count {
            guard held.isEmpty else {
                continueHeld(piece[index], output, &count)
                index += 1
                continue
            }
            let start = index
            while index < piece.count, piece[index] != UInt8(ascii: "="), piece[index] != 0x0d { index += 1 }
            memcpy(output + count, base + start, index - start)
            count += index - start
            if index < piece.count { held.append(piece[index]) }
            index += 1
        }
        return count
    }

    private mutating func continueHeld(
        _ byte: UInt8, _ output: UnsafeMutablePointer<UInt8>, _ count: inout Int
    ) {
        let isEscape = held[0] == UInt8(ascii: "=")
        if byte == 0x0a {
            // A soft line break shows nothing, unless digits come before it.
            if isEscape, held.count == 2, !held[1].isBlank, held[1] != 0x0d { flush(output, &count) }
            let isHard = !isEscape || held.isEmpty
            held.removeAll(keepingCapacity: true)
            if isHard { Self.put(0x0a, output, &count) }
            return
        }
        if isEscape {
            if held.count == 2, let high = hexadecimalDigit(held[1]), let low = hexadecimalDigit(byte) {
                held.removeAll(keepingCapacity: true)
                return Self.put(high << 4 | low, output, &count)
            }
            let last = held[held.count - 1]
            let mayContinue =
                held.count == 1
                ? byte.isBlank || byte == 0x0d || hexadecimalDigit(byte) != nil
                : last.isBlank && (byte.isBlank || byte == 0x0d) && held.count < Self.mostBlanks
            if mayContinue { return held.append(byte) }
        }
        flush(output, &count)
        if byte == UInt8(ascii: "=") || byte == 0x0d {
            held.append(byte)
        } else {
            Self.put(byte, output, &count)
        }
    }

    private mutating func flush(_ output: UnsafeMutablePointer<UInt8>, _ count: inout Int) {
        for byte in held { Self.put(byte, output, &count) }
        held.removeAll(keepingCapacity: true)
    }
}

/// The lines between `begin MODE NAME` and `end` (POSIX uuencode).
private struct UUDecoder {
    private var line: [UInt8] = []
    private var isInside = false

    /// Bytes. No line is longer.
    private static let longestLine = 128

    mutating func decode(_ piece: UnsafeRawBufferPointer, _ output: UnsafeMutablePointer<UInt8>) -> Int {
        var count = 0
        for byte in piece {
            if byte == 0x0a {
                count += decodeLine(output + count)
            } else if line.count < Self.longestLine {
                line.append(byte)
            }
        }
        return count
    }

    mutating func finish(_ output: UnsafeMutablePointer<UInt8>) -> Int { decodeLine(output) }

    private mutating func decodeLine(_ output: UnsafeMutablePointer<UInt8>) -> Int {
        defer { line.removeAll(keepingCapacity: true) }
        if line.last == 0x0d { line.removeLast() }
        guard isInside else {
            isInside = line.starts(with: "begin ".utf8)
            return 0
        }
        guard !line.elementsEqual("end".utf8), let length = line.first.map(Self.value) else {
            isInside = !line.elementsEqual("end".utf8)
            return 0
        }
        var count = 0
        var index = 1
        while count < length, index < line.count {
            var group: UInt32 = 0
            for offset in 0..<4 {
                group = group << 6 | UInt32(index + offset < line.count ? Self.value(line[index + offset]) : 0)
            }
            for shift in [16, 8, 0] as [UInt32] where count < length {
                output[count] = UInt8(truncatingIfNeeded: group >> shift)
                count += 1
            }
            index += 4
        }
        return count
    }

    private static func value(_ byte: UInt8) -> Int { Int(byte &- 0x20 & 0x3f) }
}
