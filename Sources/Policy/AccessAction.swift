// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import MailSyntax
package import Rules

/// What a milter does for a limit's answer, which is an action of access(5).
package enum AccessAction: Equatable, Sendable {
    case pass
    case refuse(Refusal)
    case discard
    case hold(reason: [UInt8])
    case prepend(name: [UInt8], value: [UInt8])
    case redirect([UInt8])
    case bcc([UInt8])

    package init(_ action: [UInt8]) {
        let (name, text) = Action.split(action)
        if let word = AccessWord(name) {
            self.init(word, text)
        } else if let code = Self.replyCode(name) {
            self = .refuse(Refusal(accessCode: code, text, "Access denied"))
        } else {
            // A restriction class. The configuration rejects those where a milter answers for the limits.
            self = .pass
        }
    }

    private init(_ word: AccessWord, _ text: ArraySlice<UInt8>) {
        switch word {
        // INFO and WARN only log, and the ledger has logged the limit already.
        case .ok, .relay, .dunno, .info, .warn: self = .pass
        // Postfix applies it only where a later restriction rejects. No restriction follows a milter.
        case .deferIfReject: self = .pass
        // The configuration rejects it (`AccessWord.worksInMilter`): the protocol has nothing like it.
        case .filter: self = .pass
        case .reject: self = .refuse(Refusal(accessCode: 554, text, "Access denied"))
        case .defer, .deferIfPermit:
            self = .refuse(Refusal(accessCode: 450, text, "Access denied, try again later"))
        case .discard: self = .discard
        case .hold: self = .hold(reason: text.isEmpty ? Array("over a limit".utf8) : Array(text))
        case .redirect: self = .redirect(Array(text))
        case .bcc: self = .bcc(Array(text))
        case .prepend:
            let name = text.prefix { $0 != UInt8(ascii: ":") }
            self = .prepend(name: Array(name), value: Array(text[name.endIndex...].dropFirst()))
        }
    }

    /// 400 to 599.
    private static func replyCode(_ name: ArraySlice<UInt8>) -> Int? {
        guard name.count == 3, name.allSatisfy(\.isDigit) else { return nil }
        let code = name.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
        return 400..<600 ~= code ? code : nil
    }
}

extension Refusal {
    /// - Parameter defaultText: used where the action has no text.
    fileprivate init(accessCode code: Int, _ text: ArraySlice<UInt8>, _ defaultText: String) {
        let length = enhancedStatusCodeLength(text)
        let rest = text.dropFirst(length).drop(while: \.isSpace)
        // Postfix rejects a milter's reply if the classes of its reply code and enhanced status code differ
        // (milter8.c).
        let status =
            Array("\(code / 100)".utf8) + (length > 0 ? Array(text.prefix(length).dropFirst()) : Array(".7.1".utf8))
        self.init(
            code: code, text: status + [UInt8(ascii: " ")] + (rest.isEmpty ? Array(defaultText.utf8) : Array(rest)))
    }

    /// The same refusal as a temporary one.
    package var deferred: Refusal {
        code < 500 ? self : Refusal(code: 450, text: [UInt8(ascii: "4")] + text.dropFirst())
    }

    /// `450 4.7.1 text`
    package var reply: [UInt8] { Array("\(code) ".utf8) + text }
}
