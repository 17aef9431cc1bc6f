// SPDX-License-Identifier: Apache-2.0
import MailSyntax

/// The right-hand side of a rule: literal text and `$n` (Postfix `mac_parse.c`).
package struct Replacement: Hashable, Sendable {
    enum Segment: Hashable {
        case literal([UInt8])
        /// A capturing group, from 1.
        case group(Int)
    }

    let segments: [Segment]
    /// The largest group number; 0 if the text is all literal.
    let largestGroup: Int

    /// The text, if it does not depend on the match.
    var literal: [UInt8]? {
        guard largestGroup == 0 else { return nil }
        guard case .literal(let text)? = segments.first else { return [] }
        return text
    }
}

/// A syntax error of a right-hand side.
enum ReplacementFault: Equatable {
    case truncated
    case emptyName
    case notANumber([UInt8])
    case outOfRange([UInt8])
}

extension Replacement {
    /// Parses `text` and returns all faults, up to the first that ends the parsing.
    static func parse(_ text: ArraySlice<UInt8>) -> (Replacement?, [ReplacementFault]) {
        var segments: [Segment] = []
        var literal: [UInt8] = []
        var largest = 0
        var faults: [ReplacementFault] = []
        var index = text.startIndex

        while index < text.endIndex {
            guard text[index] == UInt8(ascii: "$") else {
                literal.append(text[index])
                index += 1
                continue
            }
            index += 1
            if index < text.endIndex, text[index] == UInt8(ascii: "$") {
                literal.append(UInt8(ascii: "$"))
                index += 1
                continue
            }
            if !literal.isEmpty { segments.append(.literal(literal)) }
            literal = []
            let isBracketed = index < text.endIndex && Array("{(".utf8).contains(text[index])
            guard let name = readName(text, &index) else { return (nil, faults + [.truncated]) }
            // After a fault, mac_parse() stops at the next bracketed name.
            if isBracketed, !faults.isEmpty { break }
            guard !name.isEmpty else { return (nil, faults + [.emptyName]) }
            guard name.allSatisfy(\.isDigit) else {
                faults.append(.notANumber(Array(name)))
                continue
            }
            // As atoi(3) does.
            let group = Int(Int32(truncatingIfNeeded: Int(String(decoding: name, as: UTF8.self)) ?? .max))
            guard group > 0 else {
                faults.append(.outOfRange(Array(name)))
                continue
            }
            segments.append(.group(group))
            largest = max(largest, group)
        }
        if !literal.isEmpty { segments.append(.literal(literal)) }
        guard faults.isEmpty else { return (nil, faults) }
        return (Replacement(segments: segments, largestGroup: largest), [])
    }

    /// The name after a `$`: `n`, `{n}` or `(n)`, with nested brackets; nil if a bracket is not closed.
    private static func readName(
        _ text: ArraySlice<UInt8>, _ index: inout Int
    ) -> ArraySlice<UInt8>? {
        let open = index < text.endIndex ? text[index] : 0
        guard open == UInt8(ascii: "{") || open == UInt8(ascii: "(") else {
            let start = index
            while index < text.endIndex,
                text[index].isAlphanumeric || text[index] == UInt8(ascii: "_")
            {
                index += 1
            }
            return text[start..<index]
        }
        let close = open == UInt8(ascii: "{") ? UInt8(ascii: "}") : UInt8(ascii: ")")
        index += 1
        let start = index
        var level = 1
        while index < text.endIndex {
            if text[index] == open { level += 1 }
            if text[index] == close { level -= 1 }
            index += 1
            if level == 0 { return text[start..<index - 1] }
        }
        return nil
    }
}
