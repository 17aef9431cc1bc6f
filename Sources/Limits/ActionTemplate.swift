// SPDX-License-Identifier: Apache-2.0

/// The answer that a limit gives when it is reached, with placeholders in its text.
package struct ActionTemplate: Equatable, Sendable {
    package enum Placeholder: String, CaseIterable, Sendable {
        /// The limit's name.
        case name
        /// The key that reached it.
        case key
        /// What the key has used of the window.
        case count
        /// What the window admits.
        case limit
        /// The window's length, as in `1h`.
        case window
        /// Seconds until there is room again.
        case retry
    }

    enum Piece: Equatable, Sendable {
        case text([UInt8])
        case placeholder(Placeholder)
    }

    package struct Fault: Error, Equatable, Sendable {
        package let message: String
    }

    /// Actions of access(5) that need no reply code, what has to stand behind them, and what becomes of the request.
    private static let actions: [(word: String, argument: Argument, outcome: Outcome)] = [
        ("OK", .none, .passes), ("RELAY", .none, .passes), ("DUNNO", .none, .passes), ("REJECT", .optional, .refused),
        ("DEFER", .optional, .refused), ("DEFER_IF_PERMIT", .optional, .refused),
        ("DEFER_IF_REJECT", .optional, .passes), ("HOLD", .optional, .passes), ("DISCARD", .optional, .passes),
        ("FILTER", .transport, .passes), ("REDIRECT", .address, .passes), ("BCC", .address, .passes),
        ("PREPEND", .header, .passes), ("INFO", .optional, .passes), ("WARN", .optional, .passes),
    ]

    private enum Argument { case none, optional, transport, address, header }
    private enum Outcome { case refused, passes }

    /// As the operator wrote it.
    package let text: String
    let pieces: [Piece]

    /// The request passes all the same, as far as this answer goes: what passes is charged, also beyond the limit.
    ///
    /// What a restriction class does is known to Postfix alone; whoever names one at a limit will want it to refuse.
    package var letsPass: Bool { Self.action(in: text)?.outcome == .passes }

    /// - Parameter restrictionClasses: names of `smtpd_restriction_classes`, which Postfix takes as actions too.
    package init(_ text: String, restrictionClasses: [String] = []) throws(Fault) {
        self.text = text
        pieces = try Self.parse(Array(text.utf8))
        try Self.check(text, restrictionClasses: restrictionClasses)
    }

    /// The action of a reply; what came from a peer is made harmless (no control characters, valid UTF-8).
    package func render(_ value: (Placeholder) -> [UInt8]) -> [UInt8] {
        var action: [UInt8] = []
        for piece in pieces {
            switch piece {
            case .text(let bytes): action += bytes
            case .placeholder(let name): action += Self.harmless(value(name))
            }
        }
        return action
    }

    private static func harmless(_ bytes: [UInt8]) -> [UInt8] {
        String(decoding: bytes, as: UTF8.self).unicodeScalars.reduce(into: []) { result, scalar in
            let isControl = scalar.value < 0x20 || 0x7f...0x9f ~= scalar.value
            result += isControl ? Array("?".utf8) : Array(String(scalar).utf8)
        }
    }

    private static func parse(_ text: [UInt8]) throws(Fault) -> [Piece] {
        var pieces: [Piece] = []
        var literal: [UInt8] = []
        var rest = text[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "$") else {
                guard byte >= 0x20, byte != 0x7f else {
                    throw Fault(message: "a control character can't stand in a reply")
                }
                literal.append(byte)
                continue
            }
            if rest.first == UInt8(ascii: "$") {
                literal.append(rest.removeFirst())
                continue
            }
            let closing: UInt8? =
                switch rest.first {
                case UInt8(ascii: "{"): UInt8(ascii: "}")
                case UInt8(ascii: "("): UInt8(ascii: ")")
                default: nil
                }
            if closing != nil { rest.removeFirst() }
            let name = rest.prefix { $0 | 0x20 &- UInt8(ascii: "a") < 26 || $0 == UInt8(ascii: "_") }
            rest = rest[name.endIndex...]
            if let closing {
                guard rest.popFirst() == closing else {
                    throw Fault(message: "'$\(String(decoding: name, as: UTF8.self))' has no closing bracket")
                }
            }
            guard let placeholder = Placeholder(rawValue: String(decoding: name, as: UTF8.self)) else {
                throw Fault(
                    message: "unknown placeholder '$\(String(decoding: name, as: UTF8.self))'; known are "
                        + Placeholder.allCases.map { "$\($0.rawValue)" }.joined(separator: ", ")
                        + ", and $$ for a dollar sign")
            }
            if !literal.isEmpty { pieces.append(.text(literal)) }
            literal = []
            pieces.append(.placeholder(placeholder))
        }
        if !literal.isEmpty { pieces.append(.text(literal)) }
        return pieces
    }

    /// Refuses what Postfix would log a warning about and then permit, or answer with "server configuration error".
    private static func check(_ text: String, restrictionClasses: [String]) throws(Fault) {
        let words = text.split(separator: " ", maxSplits: 1)
        guard let word = words.first.map(String.init) else {
            throw Fault(message: "an empty action would be taken as DUNNO by Postfix")
        }
        let argument = words.count > 1 ? words[1].drop(while: { $0 == " " }) : ""
        if word.allSatisfy(\.isNumber) {
            guard word.utf8.count == 3, let first = word.utf8.first, (0x34...0x35).contains(first) else {
                throw Fault(message: "'\(word)' is no reply code that refuses: 4NN or 5NN is")
            }
            guard !argument.isEmpty else {
                throw Fault(message: "Postfix takes '\(word)' without a text as a permit; write a text behind it")
            }
            return
        }
        guard let known = action(in: text) else {
            if restrictionClasses.contains(word) { return }
            throw Fault(
                message: "unknown action '\(word)'; Postfix knows "
                    + actions.map(\.word).joined(separator: ", ")
                    + ", 4NN text, 5NN text, and what restriction_classes names")
        }
        let problem: String? =
            switch known.argument {
            case .none: argument.isEmpty ? nil : "takes no text"
            case .optional: nil
            case .transport: argument.contains(":") ? nil : "needs transport:destination"
            case .address: argument.contains("@") ? nil : "needs user@domain"
            case .header: argument.contains(":") ? nil : "needs a header, 'Name: value'"
            }
        if let problem { throw Fault(message: "\(known.word) \(problem)") }
    }

    private static func action(in text: String) -> (word: String, argument: Argument, outcome: Outcome)? {
        let word = text.split(separator: " ", maxSplits: 1).first?.uppercased()
        return actions.first { $0.word == word }
    }
}
