// SPDX-License-Identifier: Apache-2.0

/// What Postfix is told, as far as figures tell it apart: the word of access(5), not the text behind it.
package enum PolicyAction: Int, CaseIterable, Sendable {
    case dunno, ok, `defer`, reject, hold, discard, filter, redirect, bcc, prepend, info, warn
    /// A restriction class.
    case other

    package var name: String { Self.names[rawValue] }

    private static let names = [
        "DUNNO", "OK", "DEFER", "REJECT", "HOLD", "DISCARD", "FILTER", "REDIRECT", "BCC", "PREPEND", "INFO", "WARN",
        "other",
    ]
    private static let words: [(word: [UInt8], action: PolicyAction)] =
        allCases.filter { $0 != .other }.map { (Array($0.name.utf8), $0) }
        + [("DEFER_IF_PERMIT", .defer), ("DEFER_IF_REJECT", .defer), ("RELAY", .ok)].map { (Array($0.utf8), $1) }

    package init(_ answer: [UInt8]) {
        let word = answer.prefix { $0 != UInt8(ascii: " ") }
        let isCode = word.count == 3 && word.allSatisfy { $0 &- UInt8(ascii: "0") < 10 }
        if isCode {
            self = word.first == UInt8(ascii: "4") ? .defer : .reject
        } else {
            self = Self.words.first { $0.word.elementsEqual(word) { $0 == $1 & ~0x20 || $0 == $1 } }?.action ?? .other
        }
    }
}
