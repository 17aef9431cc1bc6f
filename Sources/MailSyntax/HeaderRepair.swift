// SPDX-License-Identifier: Apache-2.0

/// Repairs the addresses in a header. Phrases, comments, groups and folds stay byte for byte.
package struct HeaderRepairer: Sendable {
    /// A new address for a part of the header.
    package struct Change: Sendable {
        package let range: Range<Int>
        package let new: [UInt8]
        package let repairs: AddressRepairs
    }

    private let repairer: AddressRepairer
    package let isActive: Bool

    package init(_ chosen: AddressRepairs) {
        repairer = AddressRepairer(chosen.intersection(.inHeaders))
        isActive = !chosen.isEmpty
    }

    /// Whether addresses are repaired in headers of this name.
    package static func repairs(_ name: some Collection<UInt8>) -> Bool {
        switch name.count {
        case 2: name.equalsIgnoringCase("to") || name.equalsIgnoringCase("cc")
        case 4: name.equalsIgnoringCase("from")
        case 6: name.equalsIgnoringCase("sender")
        case 8: name.equalsIgnoringCase("reply-to")
        default: false
        }
    }

    /// The changes in the value of a header, in order. A value with unbalanced brackets, quotes or parentheses has
    /// none.
    package func changes(in value: ArraySlice<UInt8>) -> [Change] {
        guard let places = AddressPlaces(value).places else { return [] }
        return places.compactMap { place in
            let argument =
                value[place.lowerBound] == UInt8(ascii: "<")
                ? Array(value[place]) : [UInt8(ascii: "<")] + value[place] + [UInt8(ascii: ">")]
            guard case .repaired(let new, let repairs) = repairer.repair(argument) else { return nil }
            let isBracketed = argument.count == place.count
            return Change(range: place, new: isBracketed ? new : Array(new.dropFirst().dropLast()), repairs: repairs)
        }
    }
}

/// Where the addresses of a list are (RFC 5322 3.4): with their brackets, without phrases and the comments around them.
private struct AddressPlaces {
    /// nil if the brackets, quotes or parentheses are not balanced.
    private(set) var places: [Range<Int>]? = []

    /// One entry of the list: from its first to its last byte that is no comment and no blank.
    private var entry: Range<Int>?
    private var opening: Int?
    private var closing: Int?
    private var depth = 0

    init(_ text: ArraySlice<UInt8>) {
        var index = text.startIndex
        while index < text.endIndex {
            guard let next = read(text, index) else {
                places = nil
                return
            }
            index = next
        }
        if depth > 0 { places = nil } else { endEntry() }
    }

    /// Reads a token.
    ///
    /// - Returns: where it ends; nil if it does not.
    private mutating func read(_ text: ArraySlice<UInt8>, _ index: Int) -> Int? {
        var end = index + 1
        switch text[index] {
        case let byte where AddressTokens.isBlank(byte): return end
        case UInt8(ascii: "("): return Self.commentEnd(text, index)
        case UInt8(ascii: ")"), UInt8(ascii: "]"): return nil
        case UInt8(ascii: ","), UInt8(ascii: ";"):
            if depth == 0 {
                endEntry()
                return end
            }
        case UInt8(ascii: ":"):
            if depth == 0 {
                // The end of a group's name.
                beginEntry()
                return end
            }
        case UInt8(ascii: "<"):
            opening = opening ?? index
            depth += 1
        case UInt8(ascii: ">"):
            depth -= 1
            guard depth >= 0 else { return nil }
            closing = end
        case UInt8(ascii: "\""), UInt8(ascii: "["):
            let last = text[index] == UInt8(ascii: "[") ? UInt8(ascii: "]") : text[index]
            guard let found = Self.end(of: last, text, index + 1) else { return nil }
            end = found
        case UInt8(ascii: "\\"):
            end = index + 2
            guard end <= text.endIndex else { return nil }
        default: break
        }
        entry = (entry?.lowerBound ?? index)..<end
        return end
    }

    private mutating func beginEntry() { (entry, opening, closing) = (nil, nil, nil) }

    private mutating func endEntry() {
        defer { beginEntry() }
        guard let entry else { return }
        guard let opening, let closing else {
            places?.append(entry)
            return
        }
        // Text behind the brackets is neither a phrase nor a comment.
        if closing == entry.upperBound { places?.append(opening..<closing) }
    }

    private static func end(of last: UInt8, _ text: ArraySlice<UInt8>, _ start: Int) -> Int? {
        var index = start
        while index < text.endIndex {
            if text[index] == last { return index + 1 }
            index += text[index] == UInt8(ascii: "\\") ? 2 : 1
        }
        return nil
    }

    /// Comments can be nested.
    private static func commentEnd(_ text: ArraySlice<UInt8>, _ start: Int) -> Int? {
        var (index, depth) = (start, 0)
        while index < text.endIndex {
            switch text[index] {
            case UInt8(ascii: "("): depth += 1
            case UInt8(ascii: ")"): depth -= 1
            case UInt8(ascii: "\\"): index += 1
            default: break
            }
            index += 1
            if depth == 0 { return index }
        }
        return nil
    }
}
