// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Filter
import Limits
import Patterns
import Rules
import Settings

/// What one way in shows of a message, and what is known of it: `milter,sender=a@example.org`.
struct MessageView: ExpressibleByArgument {
    /// nil for all of each message.
    private(set) var wayIn: WayIn?
    private(set) var attributes = MessageAttributes()
    private(set) var recipients: [[UInt8]] = []

    init() {}

    init?(argument: String) {
        for word in argument.split(separator: ",", omittingEmptySubsequences: false) {
            if let way = WayIn(rawValue: String(word)) {
                guard wayIn == nil else { return nil }
                wayIn = way
            } else {
                guard let known = KnownAttribute(argument: String(word)) else { return nil }
                if known.name == "recipient" {
                    recipients.append(known.value)
                } else {
                    attributes[known.name] = known.value
                }
            }
        }
    }

    static var allValueStrings: [String] { WayIn.allCases.map(\.rawValue) + KnownAttribute.allValueStrings }

    func chooseSets(of rules: ContentRules) -> ChosenSets {
        var selection = SetSelection(rules, attributes, MatchScratch(limits: Condition.matchLimits))
        for recipient in recipients { selection.add(recipient: recipient) }
        return selection.finish()
    }
}

/// `client_address=192.0.2.1`
struct KnownAttribute: ExpressibleByArgument {
    let name: String
    let value: [UInt8]

    init?(argument: String) {
        guard let equals = argument.firstIndex(of: "=") else { return nil }
        name = String(argument[..<equals])
        value = Array(argument[argument.index(after: equals)...].utf8)
        guard Self.names.contains(name) else { return nil }
    }

    /// Without those that are parts of others.
    private static var names: [String] { PolicyAttributes.ofMessages.filter { !PolicyAttributes.derived.contains($0) } }

    static var allValueStrings: [String] { names.map { $0 + "=..." } }
}

/// What the rules do to one message.
struct ExaminedMessage {
    /// A header that they do not get, or not all of it.
    struct Unseen {
        let offset: Int
        /// The first 200 bytes.
        let content: [UInt8]
        let reason: String
        /// The rules that match it, but not what is seen of it.
        let rules: [RuleMatch]
    }

    /// The names of the sets that apply; nil without `checks.sets`.
    let sets: [String]?
    let verdict: Verdict
    var unseen: [Unseen] = []
    /// What the way in can't carry out.
    var impossible: [String] = []
}

/// Applies the rules to messages, as one way in shows them.
struct MessageExamination {
    private let rules: ContentRules
    private let wayIn: WayIn?
    private let chosen: ChosenSets
    private let filter: MessageFilter

    init(_ rules: ContentRules, _ view: MessageView) {
        self.rules = rules
        wayIn = view.wayIn
        chosen = view.chooseSets(of: rules)
        filter = MessageFilter(rules, matcher: Matcher(rules.checks))
    }

    func examine(_ message: [UInt8]) -> ExaminedMessage {
        guard let wayIn else {
            let verdict = verdict(on: message)
            return ExaminedMessage(sets: sets, verdict: verdict)
        }
        let view = wayIn.view(of: message)
        let verdict = view.inMessage(verdict(on: view.content))
        let (sets, isSigned) = (sets, filter.isSigned)
        return ExaminedMessage(
            sets: sets, verdict: verdict, unseen: view.unseen.map { describe($0, in: message, isSigned: isSigned) },
            impossible: wayIn.impossibleEffects(of: verdict))
    }

    /// The names of the sets that the last message was checked by; nil without `checks.sets`.
    private var sets: [String]? {
        guard !rules.checks.sets.isEmpty else { return nil }
        return chosen.indexes.filter { !filter.leftOutSets.contains($0) }.map { rules.sets[$0].name }
    }

    /// - Parameter isSigned: for a piece of a message: whether the message has a DKIM-Signature.
    private func verdict(on message: [UInt8], isSigned: Bool? = nil) -> Verdict {
        filter.begin(rules)
        filter.select(chosen, isSigned: isSigned)
        filter.update(message)
        return filter.finish()
    }

    private func describe(
        _ header: WayIn.UnseenHeader, in message: [UInt8], isSigned: Bool
    ) -> ExaminedMessage.Unseen {
        func matches(_ range: Range<Int>) -> [RuleMatch] {
            range.isEmpty ? [] : verdict(on: Array(message[range]), isSigned: isSigned).matches
        }
        let seen = header.range.lowerBound..<header.range.lowerBound + header.seen
        let applied = Set(matches(seen).map(\.location))
        let whole = matches(header.range)
        return ExaminedMessage.Unseen(
            offset: header.range.lowerBound,
            content: Array(message[header.range].prefix(200).prefix { $0 != 0x0a && $0 != 0x0d }),
            reason: header.reason, rules: whole.filter { !applied.contains($0.location) })
    }
}
