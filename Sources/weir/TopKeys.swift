// SPDX-License-Identifier: Apache-2.0

/// A key that was pressed on a terminal.
enum TopKey: Equatable {
    case character(Unicode.Scalar)
    case up, down, pageUp, pageDown, first, last
    case enter, backspace, escape
    /// Ctrl-C.
    case interrupt
}

/// Finds keys in what a terminal sends: UTF-8, and control sequences (ECMA-48) for keys such as the arrows.
struct TopKeyDecoder {
    private var pending: [UInt8] = []

    private static let escape: UInt8 = 0x1b

    /// - Parameter bytes: what one read returned. Nothing means that no sequence is on its way, so a pending Esc is the
    ///   Esc key.
    mutating func keys(in bytes: [UInt8]) -> [TopKey] {
        guard !bytes.isEmpty else {
            defer { pending = [] }
            return pending.first == Self.escape ? [.escape] : []
        }
        pending += bytes
        var keys: [TopKey] = []
        while let (key, length) = Self.firstKey(in: pending) {
            pending.removeFirst(length)
            if let key { keys.append(key) }
        }
        return keys
    }

    /// - Returns: nil if the bytes may be the beginning of a longer sequence. The key is nil if it has no meaning here.
    private static func firstKey(in bytes: [UInt8]) -> (key: TopKey?, length: Int)? {
        guard let first = bytes.first else { return nil }
        switch first {
        case escape: return sequence(in: bytes)
        case 0x03: return (.interrupt, 1)
        case 0x0a, 0x0d: return (.enter, 1)
        case 0x08, 0x7f: return (.backspace, 1)
        case ..<0x20: return (nil, 1)
        default: return character(in: bytes, first)
        }
    }

    private static func sequence(in bytes: [UInt8]) -> (key: TopKey?, length: Int)? {
        guard bytes.count > 1 else { return nil }
        guard bytes[1] == UInt8(ascii: "[") || bytes[1] == UInt8(ascii: "O") else { return (.escape, 1) }
        guard let end = bytes[2...].firstIndex(where: { 0x40...0x7e ~= $0 }) else { return nil }
        let key: TopKey? =
            switch (bytes[end], bytes[2..<end].first) {
            case (UInt8(ascii: "A"), _): .up
            case (UInt8(ascii: "B"), _): .down
            case (UInt8(ascii: "H"), _), (UInt8(ascii: "~"), UInt8(ascii: "1")), (UInt8(ascii: "~"), UInt8(ascii: "7")):
                .first
            case (UInt8(ascii: "F"), _), (UInt8(ascii: "~"), UInt8(ascii: "4")), (UInt8(ascii: "~"), UInt8(ascii: "8")):
                .last
            case (UInt8(ascii: "~"), UInt8(ascii: "5")): .pageUp
            case (UInt8(ascii: "~"), UInt8(ascii: "6")): .pageDown
            default: nil
            }
        return (key, end + 1)
    }

    private static func character(in bytes: [UInt8], _ first: UInt8) -> (key: TopKey?, length: Int)? {
        let length =
            switch first {
            case ..<0x80: 1
            case 0xc2...0xdf: 2
            case 0xe0...0xef: 3
            case 0xf0...0xf4: 4
            default: 0
            }
        guard length > 0 else { return (nil, 1) }
        guard bytes.count >= length else { return nil }
        guard let text = String(validating: bytes[..<length], as: UTF8.self) else { return (nil, 1) }
        return (text.unicodeScalars.first.map(TopKey.character), length)
    }
}
