// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// The answer of a limit: an action of access(5) with placeholders in its text.
package struct ActionTemplate: Equatable, Sendable {
    package enum Placeholder: String, CaseIterable, Sendable {
        /// The name of the limit.
        case name
        /// The key that is over the limit.
        case key
        /// The amount that the key has used in the window.
        case count
        /// The amount that the window admits.
        case limit
        /// The length of the window, such as `1h`.
        case window
        /// Seconds until there is room again.
        case retry
    }

    /// What Postfix does with an action depends on its first word.
    package enum Verb: Equatable, Sendable {
        case word(AccessWord)
        /// 4NN or 5NN.
        case replyCode
        case restrictionClass
    }

    enum Piece: Equatable, Sendable {
        case text([UInt8])
        case placeholder(Placeholder)
    }

    package struct Fault: Error, Equatable, Sendable {
        package let message: String
    }

    /// As the operator wrote it.
    package let text: String
    package let verb: Verb
    let pieces: [Piece]

    /// Whether Postfix accepts the request, as far as this action decides. If so, the request is charged beyond the
    /// limit.
    package var letsPass: Bool {
        switch verb {
        case .word(let word): word.letsPass
        case .replyCode: false
        // Only Postfix knows what the class does. Assume that an operator who names one here wants a refusal.
        case .restrictionClass: false
        }
    }

    /// - Parameter restrictionClasses: the names in `smtpd_restriction_classes`, which Postfix also takes as actions.
    package init(_ text: String, restrictionClasses: [String] = []) throws(Fault) {
        self.text = text
        pieces = try Self.parse(Array(text.utf8))
        verb = try Self.verb(of: text, restrictionClasses: restrictionClasses)
    }

    /// The action with its placeholders filled in. Values may come from a client, so their control characters become
    /// `?` and invalid UTF-8 becomes U+FFFD.
    package func render(_ value: (Placeholder) -> [UInt8]) -> [UInt8] {
        var action: [UInt8] = []
        for piece in pieces {
            switch piece {
            case .text(let bytes): action += bytes
            case .placeholder(let name): action += Self.printable(value(name))
            }
        }
        return action
    }

    private static func printable(_ bytes: [UInt8]) -> [UInt8] {
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
                    throw Fault(message: "an action can't contain a control character")
                }
                literal.append(byte)
                continue
            }
            if rest.first == UInt8(ascii: "$") {
                literal.append(rest.removeFirst())
                continue
            }
            if !literal.isEmpty { pieces.append(.text(literal)) }
            literal = []
            pieces.append(.placeholder(try takePlaceholder(from: &rest)))
        }
        if !literal.isEmpty { pieces.append(.text(literal)) }
        return pieces
    }

    /// Takes `name`, `{name}` or `(name)` from behind a `$`, as in main.cf.
    private static func takePlaceholder(from rest: inout ArraySlice<UInt8>) throws(Fault) -> Placeholder {
        let closing: UInt8? =
            switch rest.first {
            case UInt8(ascii: "{"): UInt8(ascii: "}")
            case UInt8(ascii: "("): UInt8(ascii: ")")
            default: nil
            }
        if closing != nil { rest.removeFirst() }
        let bytes = rest.prefix { $0 | 0x20 &- UInt8(ascii: "a") < 26 || $0 == UInt8(ascii: "_") }
        rest = rest[bytes.endIndex...]
        let name = String(decoding: bytes, as: UTF8.self)
        if let closing {
            guard rest.popFirst() == closing else {
                throw Fault(message: "placeholder '$\(name)' has no closing bracket")
            }
        }
        guard let placeholder = Placeholder(rawValue: name) else {
            let known = Placeholder.allCases.map { "$\($0.rawValue)" }.joined(separator: ", ")
            throw Fault(message: "unknown placeholder '$\(name)'; expected one of \(known), or $$ for a dollar sign")
        }
        return placeholder
    }

    /// Refuses what Postfix would log a warning about and then permit, or answer with "server configuration error".
    private static func verb(of text: String, restrictionClasses: [String]) throws(Fault) -> Verb {
        let words = text.split(separator: " ", maxSplits: 1)
        guard let name = words.first.map(String.init) else {
            throw Fault(message: "the action is empty, and Postfix would treat it as DUNNO")
        }
        let argument = words.count > 1 ? words[1].drop(while: { $0 == " " }) : ""
        if name.utf8.allSatisfy(\.isDigit) {
            guard name.utf8.count == 3, let first = name.utf8.first, (0x34...0x35).contains(first) else {
                throw Fault(message: "'\(name)' is not a reply code that refuses; expected 4NN or 5NN")
            }
            guard !argument.isEmpty else {
                throw Fault(message: "Postfix treats '\(name)' without a text as a permit; add a text")
            }
            return .replyCode
        }
        guard let word = AccessWord(name.utf8) else {
            if restrictionClasses.contains(name) { return .restrictionClass }
            throw Fault(
                message: "unknown action '\(name)'; expected one of "
                    + AccessWord.allCases.map(\.rawValue).joined(separator: ", ")
                    + ", 4NN text, 5NN text, or a name from restriction_classes")
        }
        let problem: String? =
            switch word.argument {
            case .none: argument.isEmpty ? nil : "takes no text"
            case .optionalText: nil
            case .transport: argument.contains(":") ? nil : "needs transport:destination"
            case .address: argument.contains("@") ? nil : "needs user@domain"
            case .header: argument.contains(":") ? nil : "needs a header, 'Name: value'"
            }
        if let problem { throw Fault(message: "\(word.rawValue) \(problem)") }
        return .word(word)
    }
}
