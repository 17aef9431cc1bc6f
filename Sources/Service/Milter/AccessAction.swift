// SPDX-License-Identifier: Apache-2.0
internal import Rules

/// An action of access(5), which is what a limit answers, as a milter can carry it out.
enum AccessAction: Equatable {
    case pass
    /// `450 4.7.1 text`
    case refuse([UInt8])
    case discard
    case hold(reason: [UInt8])
    case prepend(name: [UInt8], value: [UInt8])
    case redirect([UInt8])
    case bcc([UInt8])

    /// Actions that no milter can carry out; what `restriction_classes` names is another.
    static let impossible = ["FILTER"]

    init(_ action: [UInt8]) {
        let (word, text) = Action.split(action)
        let name = String(decoding: word, as: UTF8.self).uppercased()
        switch name {
        case "REJECT": self = .refuse(Self.reply("554", "5.7.1", text, "Access denied"))
        case "DEFER", "DEFER_IF_PERMIT": self = .refuse(Self.reply("450", "4.7.1", text, "Access denied, try again later"))
        case "DISCARD": self = .discard
        case "HOLD": self = .hold(reason: text.isEmpty ? Array("over a limit".utf8) : Array(text))
        case "REDIRECT": self = .redirect(Array(text))
        case "BCC": self = .bcc(Array(text))
        case "PREPEND":
            let name = text.prefix { $0 != UInt8(ascii: ":") }
            self = .prepend(name: Array(name), value: Array(text[name.endIndex...].dropFirst()))
        default:
            guard word.count == 3, word.allSatisfy(\.isDigit), word.first == UInt8(ascii: "4") || word.first == UInt8(ascii: "5")
            else {
                self = .pass
                return
            }
            self = .refuse(Self.reply(name, "\(name.prefix(1)).7.1", text, "Access denied"))
        }
    }

    private static func reply(_ code: String, _ status: String, _ text: ArraySlice<UInt8>, _ words: String) -> [UInt8] {
        let hasStatus = enhancedStatusCodeLength(text) > 0
        return Array("\(code) ".utf8) + (hasStatus ? [] : Array("\(status) ".utf8)) + (text.isEmpty ? Array(words.utf8) : Array(text))
    }
}

extension UInt8 {
    fileprivate var isDigit: Bool { self &- UInt8(ascii: "0") < 10 }
}
