// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// What a header or body check does (header_checks(5), Postfix `cleanup_message.c`).
package enum Action: Equatable, Sendable {
    case reject(Refusal)
    case discard, pass
    case effect(Effect)
    case warn, info
    case prepend([UInt8])
    case replace([UInt8])
    case strip, ignore, dunno
}

extension Action {
    /// Whether it changes the line that a rule has matched.
    package var changesLine: Bool {
        switch self {
        case .replace, .strip, .ignore: true
        case .reject, .discard, .pass, .effect, .warn, .info, .prepend, .dunno: false
        }
    }
}

/// What happens to an accepted message besides edits.
package enum Effect: Equatable, Sendable {
    /// The text is the reason, and may be empty.
    case hold([UInt8])
    /// `transport:destination`.
    case filter([UInt8])
    /// Replaces all recipients.
    case redirect([UInt8])
    /// One more recipient.
    case bcc([UInt8])
}

extension Action {
    /// The first word of a right-hand side; case does not matter. Every class of checks has all actions.
    package enum Name: String, CaseIterable, Sendable {
        case bcc, discard, dunno, filter, hold, ignore, info, ok, pass, prepend, redirect, reject, replace, strip, warn

        /// nil where Postfix knows no such action.
        init?(_ word: ArraySlice<UInt8>) {
            self.init(rawValue: String(decoding: word.map(\.lowercased), as: UTF8.self))
        }

        /// As Postfix's manuals write it.
        package var word: String { rawValue.uppercased() }

        /// Whether a milter can carry the action out. It can't name a content filter to the MTA.
        package var worksInMilter: Bool {
            switch self {
            case .filter: false
            case .bcc, .discard, .dunno, .hold, .ignore, .info, .ok, .pass, .prepend, .redirect, .reject, .replace,
                .strip, .warn:
                true
            }
        }

        /// Whether the action changes headers or body lines.
        var isEdit: Bool {
            switch self {
            case .ignore, .prepend, .replace, .strip: true
            case .bcc, .discard, .dunno, .filter, .hold, .info, .ok, .pass, .redirect, .reject, .warn: false
            }
        }

        /// Whether the action changes the line that a rule has matched, and so may take the name of a header away.
        package var changesLine: Bool { isEdit && self != .prepend }
    }
}

/// A refusal of the whole message.
package struct Refusal: Equatable, Sendable {
    /// 550, or 451 for a deferral.
    package let code: Int
    /// Enhanced status code and text.
    package let text: [UInt8]

    package init(code: Int, text: [UInt8]) {
        self.code = code
        self.text = text
    }
}

/// Why a right-hand side is not an action. The rule then leaves the header or line as it is.
package struct ActionFault: Error, Equatable, Sendable {
    package let message: String
}

extension Action {
    /// Splits a right-hand side into its first word and the text after it.
    package static func split(_ text: [UInt8]) -> (word: ArraySlice<UInt8>, text: ArraySlice<UInt8>) {
        let word = text.prefix { !$0.isBlank }
        return (word, text[word.endIndex...].drop(while: \.isSpace))
    }

    /// Parses a right-hand side of header checks (`isHeader`) or body checks.
    package init(_ source: [UInt8], isHeader: Bool) throws(ActionFault) {
        let (word, text) = Self.split(source)
        guard let name = Name(word) else { throw ActionFault(message: "unknown command: \(printable(source))") }
        switch name {
        case .bcc: self = .effect(.bcc(try Self.address(text, "BCC address")))
        case .discard: self = .discard
        case .dunno, .ok: self = .dunno
        case .filter: self = .effect(.filter(try Self.filterTarget(text)))
        case .hold: self = .effect(.hold(Array(text)))
        case .ignore: self = .ignore
        case .info: self = .info
        case .pass: self = .pass
        case .prepend: self = .prepend(try Self.newText(text, name, isHeader))
        case .redirect: self = .effect(.redirect(try Self.address(text, "REDIRECT target")))
        case .reject: self = .reject(Refusal(rejectText: text))
        case .replace: self = .replace(try Self.newText(text, name, isHeader))
        case .strip: self = .strip
        case .warn: self = .warn
        }
    }

    private static func address(
        _ text: ArraySlice<UInt8>, _ what: String
    ) throws(ActionFault) -> [UInt8] {
        guard text.contains(UInt8(ascii: "@")) else {
            throw ActionFault(message: "bad \(what) \"\(printable(text))\" -- need user@domain")
        }
        return Array(text)
    }

    private static func filterTarget(_ text: ArraySlice<UInt8>) throws(ActionFault) -> [UInt8] {
        guard !text.isEmpty else { throw ActionFault(message: "missing FILTER command argument") }
        guard text.contains(UInt8(ascii: ":")) else {
            throw ActionFault(
                message: "bad FILTER command \(printable(text)) -- need transport:destination")
        }
        return Array(text)
    }

    private static func newText(
        _ text: ArraySlice<UInt8>, _ name: Name, _ isHeader: Bool
    ) throws(ActionFault) -> [UInt8] {
        guard !text.isEmpty else { throw ActionFault(message: "\(name.word) action without text") }
        guard !isHeader || text.withUnsafeBytes({ headerNameLength($0) > 0 }) else {
            throw ActionFault(
                message: "bad \(name.word) header text \"\(printable(text))\" -- "
                    + "need \"headername: headervalue\"")
        }
        return Array(text)
    }
}

extension Refusal {
    /// From the text of a REJECT. The status code is 5.7.1 unless the text begins with another (Postfix `dsn_util.c`).
    init(rejectText text: ArraySlice<UInt8>) {
        let codeLength = enhancedStatusCodeLength(text)
        var reason = codeLength > 0 ? Array(text.prefix(codeLength)) : Array("5.7.1".utf8)
        let rest = text.dropFirst(codeLength).drop(while: \.isSpace)
        reason.append(UInt8(ascii: " "))
        reason += text.isEmpty ? Array("message content rejected".utf8)[...] : rest
        // Postfix treats every status code other than 5.x.x as a deferral.
        if reason[0] != UInt8(ascii: "5") { reason[0] = UInt8(ascii: "4") }
        Self.makePrintable(&reason)
        self.init(code: reason[0] == UInt8(ascii: "4") ? 451 : 550, text: reason)
    }

    /// Makes every byte a blank that is neither printable ASCII nor a part of UTF-8, as smtpd does (`printable.c`).
    private static func makePrintable(_ text: inout [UInt8]) {
        var index = 0
        while index < text.count {
            if 0xc2...0xfe ~= text[index], index + 1 < text.count, 0x80...0xbf ~= text[index + 1] {
                while index + 1 < text.count, 0x80...0xbf ~= text[index + 1] { index += 1 }
            } else if !(0x20...0x7e).contains(text[index]) {
                text[index] = 0x20
            }
            index += 1
        }
    }

    /// The text as smtpd sends it without `smtputf8_enable`.
    package var inASCII: Refusal { Refusal(code: code, text: text.map { $0 < 0x80 ? $0 : 0x20 }) }
}

/// The length of the RFC 3463 status code at the start of `text`, such as `4.7.1`; 0 without one.
package func enhancedStatusCodeLength(_ text: ArraySlice<UInt8>) -> Int {
    guard let first = text.first, Array("245".utf8).contains(first) else { return 0 }
    let code = text.prefix { !$0.isSpace }
    let parts = code.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    guard parts.count == 3, parts[0].count == 1,
        parts[1...].allSatisfy({ 1...3 ~= $0.count && $0.allSatisfy(\.isDigit) })
    else { return 0 }
    return code.count
}
