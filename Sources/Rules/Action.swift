// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// What a header or body check does (header_checks(5), Postfix `cleanup_message.c`).
package enum Action: Equatable, Sendable {
    case reject(Refusal)
    case discard, pass, hold
    case redirect([UInt8])
    /// `transport:destination`.
    case filter([UInt8])
    case bcc([UInt8])
    case warn, info
    case prepend([UInt8])
    case replace([UInt8])
    case strip, ignore, dunno
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

/// A right-hand side that is no action; the header or line is kept.
package struct ActionFault: Error, Equatable, Sendable {
    package let message: String
}

extension Action {
    /// Splits a right-hand side into its word and the text behind it.
    package static func split(_ text: [UInt8]) -> (word: ArraySlice<UInt8>, text: ArraySlice<UInt8>) {
        let word = text.prefix { !$0.isBlank }
        return (word, text[word.endIndex...].drop(while: \.isSpace))
    }

    /// `isHeader` tells header checks from body checks.
    package init(_ source: [UInt8], isHeader: Bool) throws(ActionFault) {
        let (word, text) = Self.split(source)
        switch String(decoding: word.map(\.lowercased), as: UTF8.self) {
        case "reject": self = .reject(Refusal(rejectText: text))
        case "discard": self = .discard
        case "pass": self = .pass
        case "hold": self = .hold
        case "warn": self = .warn
        case "info": self = .info
        case "strip": self = .strip
        case "ignore": self = .ignore
        case "dunno", "ok": self = .dunno
        case "redirect": self = .redirect(try Self.address(text, "REDIRECT target"))
        case "bcc": self = .bcc(try Self.address(text, "BCC address"))
        case "filter": self = .filter(try Self.filterTarget(text))
        case "prepend": self = .prepend(try Self.newText(text, "PREPEND", isHeader))
        case "replace": self = .replace(try Self.newText(text, "REPLACE", isHeader))
        default: throw ActionFault(message: "unknown command: \(printable(source))")
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
        _ text: ArraySlice<UInt8>, _ word: String, _ isHeader: Bool
    ) throws(ActionFault) -> [UInt8] {
        guard !text.isEmpty else { throw ActionFault(message: "\(word) action without text") }
        guard !isHeader || text.withUnsafeBytes({ headerNameLength($0) > 0 }) else {
            throw ActionFault(
                message: "bad \(word) header text \"\(printable(text))\" -- "
                    + "need \"headername: headervalue\"")
        }
        return Array(text)
    }
}

extension Refusal {
    /// Of a REJECT: 5.7.1 unless the text names another code (Postfix `dsn_util.c`).
    init(rejectText text: ArraySlice<UInt8>) {
        let codeLength = enhancedStatusCodeLength(text)
        var reason = codeLength > 0 ? Array(text.prefix(codeLength)) : Array("5.7.1".utf8)
        let rest = text.dropFirst(codeLength).drop(while: \.isSpace)
        reason.append(UInt8(ascii: " "))
        reason += text.isEmpty ? Array("message content rejected".utf8)[...] : rest
        // A code that is neither is taken for a deferral.
        if reason[0] != UInt8(ascii: "5") { reason[0] = UInt8(ascii: "4") }
        // As smtpd prints it.
        for index in reason.indices where !(0x20...0x7e).contains(reason[index]) { reason[index] = 0x20 }
        self.init(code: reason[0] == UInt8(ascii: "4") ? 451 : 550, text: reason)
    }
}

/// Length of the RFC 3463 code at the start of `text`, such as `4.7.1`; 0 when there is none.
package func enhancedStatusCodeLength(_ text: ArraySlice<UInt8>) -> Int {
    guard let first = text.first, Array("245".utf8).contains(first) else { return 0 }
    let code = text.prefix { !$0.isSpace }
    let parts = code.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    guard parts.count == 3, parts[0].count == 1,
        parts[1...].allSatisfy({ 1...3 ~= $0.count && $0.allSatisfy(\.isDigit) })
    else { return 0 }
    return code.count
}
