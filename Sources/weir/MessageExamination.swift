// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Filter
import Rules

extension WayIn: ExpressibleByArgument {}

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

    let verdict: Verdict
    var unseen: [Unseen] = []
    /// What the way in can't carry out.
    var impossible: [String] = []
}

/// Applies the rules to messages, as one way in shows them.
struct MessageExamination {
    private let rules: ContentRules
    private let wayIn: WayIn?
    private let filter: MessageFilter

    /// - Parameter wayIn: nil for all of each message.
    init(_ rules: ContentRules, _ wayIn: WayIn?) {
        self.rules = rules
        self.wayIn = wayIn
        filter = MessageFilter(rules, matcher: Matcher(rules.checks))
    }

    func examine(_ message: [UInt8]) -> ExaminedMessage {
        guard let wayIn else { return ExaminedMessage(verdict: verdict(on: message)) }
        let view = wayIn.view(of: message)
        let verdict = view.inMessage(verdict(on: view.content))
        return ExaminedMessage(
            verdict: verdict, unseen: view.unseen.map { describe($0, in: message) },
            impossible: wayIn.impossibleEffects(of: verdict))
    }

    private func verdict(on message: [UInt8]) -> Verdict {
        filter.begin(rules)
        filter.update(message)
        return filter.finish()
    }

    private func describe(_ header: WayIn.UnseenHeader, in message: [UInt8]) -> ExaminedMessage.Unseen {
        let seen = header.range.lowerBound..<header.range.lowerBound + header.seen
        let applied = Set(seen.isEmpty ? [] : verdict(on: Array(message[seen])).matches.map(\.location))
        let whole = verdict(on: Array(message[header.range])).matches
        return ExaminedMessage.Unseen(
            offset: header.range.lowerBound,
            content: Array(message[header.range].prefix(200).prefix { $0 != 0x0a && $0 != 0x0d }),
            reason: header.reason, rules: whole.filter { !applied.contains($0.location) })
    }
}
