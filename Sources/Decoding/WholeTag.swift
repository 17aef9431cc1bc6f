// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import Glibc
internal import MailSyntax

/// A tag of common form that a text has as a whole: `<name>`, `</name>`, or `<name attribute="value">`.
struct WholeTag {
    let kind: HTMLTags.Kind
    /// With both angle brackets.
    let length: Int

    /// nil for any other form, for attributes that hide the element or show text, and for values with character
    /// references.
    ///
    /// - Parameters:
    ///   - text: begins with `<`.
    ///   - addresses: gets the values that are addresses.
    init?(_ text: UnsafeBufferPointer<UInt8>, _ addresses: inout [UnsafeBufferPointer<UInt8>]) {
        let isEnd = text.count > 1 && text[1] == UInt8(ascii: "/")
        var index = isEnd ? 2 : 1
        guard let key = Self.name(in: text, &index), let key, index < text.count else { return nil }
        if text[index] != UInt8(ascii: ">") {
            guard !isEnd, text[index].isSpace, Self.readAttributes(text, &index, &addresses) else { return nil }
        }
        kind = HTMLTags.kind(key)
        length = index + 1
    }

    /// Reads up to `>`.
    private static func readAttributes(
        _ text: UnsafeBufferPointer<UInt8>, _ index: inout Int, _ addresses: inout [UnsafeBufferPointer<UInt8>]
    ) -> Bool {
        while true {
            while index < text.count, text[index].isSpace { index += 1 }
            guard index < text.count else { return false }
            if text[index] == UInt8(ascii: ">") { return true }
            let start = index
            guard let key = name(in: text, &index), text.count - index > 2, text[index] == UInt8(ascii: "=")
            else { return false }
            let quote = text[index + 1]
            guard quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'") else { return false }
            let rest = UnsafeBufferPointer(rebasing: text[(index + 2)...])
            guard let end = Self.index(of: quote, in: rest) else { return false }
            // Only names of ten bytes are both longer than a key and of a meaning.
            guard key != nil || index - start != 10 else { return false }
            if let key, let meaning = HTMLTags.attribute(key) {
                let value = UnsafeBufferPointer(rebasing: rest[..<end])
                guard end <= HTMLText.longestValue, Self.index(of: UInt8(ascii: "&"), in: value) == nil else {
                    return false
                }
                switch meaning {
                case .link: addresses.append(value)
                case .style: if HTMLTags.hides(value) { return false }
                case .hidden, .alt, .content: return false
                }
            }
            index += 2 + end + 1
        }
    }

    /// Reads a name of letters, digits and hyphens, and returns its key: nil inside if it is too long for one, nil if
    /// there is no name.
    private static func name(in text: UnsafeBufferPointer<UInt8>, _ index: inout Int) -> UInt64?? {
        let short = weir_short_name(text.baseAddress! + index, text.count - index)
        if short.length > 0 {
            index += short.length
            return .some(short.key)
        }
        let start = index
        var key: UInt64 = 0
        while index < text.count {
            let byte = text[index] | 0x20
            let isLetter = byte &- UInt8(ascii: "a") < 26
            let isOther = text[index] &- UInt8(ascii: "0") < 10 || text[index] == UInt8(ascii: "-")
            guard isLetter || index > start && isOther else { break }
            key = key << 8 | UInt64(byte)
            index += 1
        }
        guard index > start else { return nil }
        return .some(index - start <= ShortNames<Void>.longest ? key : nil)
    }

    private static func index(of byte: UInt8, in text: UnsafeBufferPointer<UInt8>) -> Int? {
        guard let start = text.baseAddress, !text.isEmpty else { return nil }
        return memchr(start, Int32(byte), text.count).map { UnsafeRawPointer($0) - UnsafeRawPointer(start) }
    }
}

/// What names of at most eight bytes mean.
///
/// Sendable, unchecked: only `init` writes the entries.
struct ShortNames<Meaning: Sendable>: @unchecked Sendable {
    /// Bytes.
    static var longest: Int { 8 }

    /// An open hash table. A key of 0 is an empty place. It is never freed: a table is there for the whole run.
    private let entries: UnsafePointer<(key: UInt64, meaning: Meaning?)>

    /// The places are a power of two.
    private static var bits: UInt64 { 8 }

    init(_ meanings: [[UInt8]: Meaning]) {
        let entries = UnsafeMutablePointer<(key: UInt64, meaning: Meaning?)>.allocate(capacity: 1 << Int(Self.bits))
        entries.initialize(repeating: (0, nil), count: 1 << Int(Self.bits))
        self.entries = UnsafePointer(entries)
        for (name, meaning) in meanings {
            guard let key = Self.key(of: name) else { continue }
            entries[place(of: key)] = (key, meaning)
        }
    }

    /// The bytes of a name as a number; nil for longer names, and for none.
    static func key(of name: [UInt8]) -> UInt64? {
        // A NUL in front would not change the number.
        guard 1...longest ~= name.count, name[0] != 0 else { return nil }
        return name.reduce(0) { $0 << 8 | UInt64($1) }
    }

    subscript(key: UInt64) -> Meaning? { entries[place(of: key)].meaning }

    /// Where the key is, or would be.
    private func place(of key: UInt64) -> Int {
        var place = Int(truncatingIfNeeded: (key &* 0x9e37_79b9_7f4a_7c15) >> (64 - Self.bits))
        while entries[place].key != key, entries[place].key != 0 { place = (place + 1) & (1 << Int(Self.bits) - 1) }
        return place
    }
}
