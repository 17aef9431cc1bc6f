// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import MailSyntax

/// How figures count an answer of the policy server: by the effect of its action, whatever its text.
package enum PolicyAction: Int, CaseIterable, Sendable {
    case dunno, ok, `defer`, reject, hold, discard, filter, redirect, bcc, prepend, info, warn
    /// A restriction class.
    case other

    /// The label in `/metrics` and in the admin interface.
    package var name: String {
        switch self {
        case .dunno: AccessWord.dunno.rawValue
        case .ok: AccessWord.ok.rawValue
        case .defer: AccessWord.defer.rawValue
        case .reject: AccessWord.reject.rawValue
        case .hold: AccessWord.hold.rawValue
        case .discard: AccessWord.discard.rawValue
        case .filter: AccessWord.filter.rawValue
        case .redirect: AccessWord.redirect.rawValue
        case .bcc: AccessWord.bcc.rawValue
        case .prepend: AccessWord.prepend.rawValue
        case .info: AccessWord.info.rawValue
        case .warn: AccessWord.warn.rawValue
        case .other: "other"
        }
    }

    package init(_ answer: [UInt8]) {
        let name = answer.prefix { $0 != UInt8(ascii: " ") }
        if let word = AccessWord(name) {
            self.init(word)
        } else if name.count == 3, name.allSatisfy(\.isDigit) {
            self = name.first == UInt8(ascii: "4") ? .defer : .reject
        } else {
            self = .other
        }
    }

    private init(_ word: AccessWord) {
        self =
            switch word {
            case .dunno: .dunno
            case .ok, .relay: .ok
            case .defer, .deferIfPermit, .deferIfReject: .defer
            case .reject: .reject
            case .hold: .hold
            case .discard: .discard
            case .filter: .filter
            case .redirect: .redirect
            case .bcc: .bcc
            case .prepend: .prepend
            case .info: .info
            case .warn: .warn
            }
    }
}
