// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
package import Rules

extension Effect {
    /// The place in `Verdict.effects`. A verdict has one effect of each rank at most, but any number of copies.
    fileprivate var rank: Int {
        switch self {
        case .hold: 0
        // REDIRECT overrides FILTER.
        case .filter, .redirect: 1
        case .bcc: 2
        }
    }

    /// The action that the Postfix behind the filter has to take; nil where the envelope is enough.
    package var cleanupAction: (name: Action.Name, argument: [UInt8])? {
        switch self {
        case .hold: (.hold, [])
        case .filter(let target): (.filter, target)
        case .redirect, .bcc: nil
        }
    }
}

extension Verdict {
    /// The recipients of an accepted message, as commands need them.
    package enum Recipients: Equatable, Sendable {
        /// The recipients of the envelope, and copies to others.
        case envelope(copies: [[UInt8]])
        /// This recipient instead of those of the envelope.
        case redirect([UInt8])
    }

    package var recipients: Recipients {
        var copies: [[UInt8]] = []
        for effect in effects {
            switch effect {
            case .redirect(let address): return .redirect(quotedAddress(address))
            case .bcc(let address): copies.append(quotedAddress(address))
            case .hold, .filter: break
            }
        }
        return .envelope(copies: copies)
    }

    /// Whether `recipients` is a redirect; the time does not depend on the number of copies.
    package var isRedirected: Bool {
        for effect in effects {
            switch effect {
            case .redirect: return true
            case .bcc: return false
            case .hold, .filter: break
            }
        }
        return false
    }

    package var asksForFilter: Bool {
        effects.contains { if case .filter = $0 { true } else { false } }
    }

    package var isHeld: Bool { holdReason != nil }

    /// The text of the first HOLD, which may be empty; nil without any.
    package var holdReason: [UInt8]? {
        // A HOLD comes first.
        if case .hold(let reason)? = effects.first { reason } else { nil }
    }

    /// Adds an effect. As in Postfix, the first HOLD and the last FILTER or REDIRECT count, and REDIRECT overrides
    /// FILTER.
    package mutating func add(_ effect: Effect) {
        // Only copies can be many, and they come last.
        let index = effects.firstIndex { $0.rank >= effect.rank } ?? effects.endIndex
        let present = index < effects.endIndex && effects[index].rank == effect.rank ? effects[index] : nil
        switch (effect, present) {
        case (.bcc, _): effects.append(effect)
        case (.filter, .redirect?), (.hold, _?): break
        case (.hold, nil), (.filter, nil), (.redirect, nil): effects.insert(effect, at: index)
        case (.filter, _?), (.redirect, _?): effects[index] = effect
        }
    }
}

extension MessageChecker {
    /// Adds the effect of a rule that has matched to the verdict.
    mutating func apply(_ effect: Effect, _ record: inout RuleMatch) {
        switch effect {
        case .hold:
            record.isLogged = !verdict.isHeld
            verdict.add(effect)
        case .filter(let target):
            guard canBeCarried(target) else {
                record.fault =
                    "a FILTER target with control characters or above \(Self.longestTarget) bytes: "
                    + "message not accepted, try again later"
                return refuse(451, "4.3.0 content check names a bad FILTER target, try again later")
            }
            verdict.add(effect)
        case .redirect(let address):
            endSet()
            guard isAddress(address) else {
                record.fault = "no address: message not accepted, try again later"
                return refuse(451, "4.3.0 content check names no address, try again later")
            }
            verdict.add(effect)
        case .bcc(let address):
            guard isAddress(address) else {
                record.fault = "no address: no copy is sent"
                return
            }
            addCopy(to: address, &record)
        }
    }

    /// The text of a message chooses how often a rule matches, and may be a part of the address.
    private mutating func addCopy(to address: [UInt8], _ record: inout RuleMatch) {
        guard !copies.contains(address) else { return }
        guard mayCopy(to: address) else {
            record.fault = "more than \(Self.mostCopies) BCC addresses: message not accepted"
            return
        }
        verdict.add(.bcc(address))
    }

    /// Whether the address gets a copy of its own. Too many copies refuse the message.
    mutating func mayCopy(to address: [UInt8]) -> Bool {
        guard !copies.contains(address) else { return false }
        guard copies.count < Self.mostCopies else {
            refuse(550, "5.6.0 message has too many copies to send")
            return false
        }
        copies.insert(address)
        return true
    }

    /// Different BCC addresses of one message.
    private static let mostCopies = 100

    /// Whether a header can carry the target to the Postfix behind the filter, byte for byte. Postfix stores any
    /// target, and finds out later that it cannot deliver to it.
    private func canBeCarried(_ target: [UInt8]) -> Bool {
        target.count <= Self.longestTarget && target.allSatisfy { $0 == 0x09 || $0 >= 0x20 && $0 != 0x7f }
    }

    /// Bytes. With the name of the header and the action, the line then has at most 998 (RFC 5322 2.1.1), so no server
    /// folds, splits or cuts it.
    private static let longestTarget = 998 - "X-Weir-Verdict: FILTER ".utf8.count

    /// Whether the text can go into RCPT TO: its local part is quoted there (`quotedAddress`), its domain has to stand
    /// as it is. Postfix takes any text here, and finds no recipient later.
    private func isAddress(_ text: [UInt8]) -> Bool {
        guard let at = text.lastIndex(of: UInt8(ascii: "@")), text[at...].count > 1 else { return false }
        return !text.contains { $0 < 0x20 || $0 == 0x7f }
            && !text[at...].contains { " <>\"(),;\\".utf8.contains($0) }
    }
}
