// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
package import Rules

/// An action of access(5), with which a limit answers, as a milter carries it out.
package enum AccessAction: Equatable, Sendable {
    case pass
    case refuse(Refusal)
    case discard
    case hold(reason: [UInt8])
    case prepend(name: [UInt8], value: [UInt8])
    case redirect([UInt8])
    case bcc([UInt8])
    case filter

    /// Whether a milter can carry the action out. It can't name a content filter to the MTA.
    var isPossibleInMilter: Bool {
        switch self {
        case .filter: false
        case .pass, .refuse, .discard, .hold, .prepend, .redirect, .bcc: true
        }
    }

    package init(_ action: [UInt8]) {
        let (word, text) = Action.split(action)
        let name = String(decoding: word, as: UTF8.self).uppercased()
        switch name {
        case "REJECT": self = .refuse(Refusal(accessCode: 554, text, "Access denied"))
        case "DEFER", "DEFER_IF_PERMIT":
            self = .refuse(Refusal(accessCode: 450, text, "Access denied, try again later"))
        case "DISCARD": self = .discard
        case "HOLD": self = .hold(reason: text.isEmpty ? Array("over a limit".utf8) : Array(text))
        case "REDIRECT": self = .redirect(Array(text))
        case "BCC": self = .bcc(Array(text))
        case "FILTER": self = .filter
        case "PREPEND":
            let name = text.prefix { $0 != UInt8(ascii: ":") }
            self = .prepend(name: Array(name), value: Array(text[name.endIndex...].dropFirst()))
        default:
            guard word.count == 3, let code = Int(name), 400..<600 ~= code else {
                self = .pass
                return
            }
            self = .refuse(Refusal(accessCode: code, text, "Access denied"))
        }
    }
}

extension Refusal {
    /// - Parameter words: what is said where there is no text.
    fileprivate init(accessCode code: Int, _ text: ArraySlice<UInt8>, _ words: String) {
        let length = enhancedStatusCodeLength(text)
        let rest = text.dropFirst(length).drop(while: \.isSpace)
        // Postfix takes no reply of a milter whose enhanced status code is of another class than the code (milter8.c).
        let status =
            Array("\(code / 100)".utf8) + (length > 0 ? Array(text.prefix(length).dropFirst()) : Array(".7.1".utf8))
        self.init(code: code, text: status + [UInt8(ascii: " ")] + (rest.isEmpty ? Array(words.utf8) : Array(rest)))
    }

    /// The same, so that the message comes again.
    package var deferred: Refusal {
        code < 500 ? self : Refusal(code: 450, text: [UInt8(ascii: "4")] + text.dropFirst())
    }

    /// `450 4.7.1 text`
    package var reply: [UInt8] { Array("\(code) ".utf8) + text }
}
