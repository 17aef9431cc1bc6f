// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Patterns
internal import Wire

/// The rules for a message, from its first recipient on, and the sets of them that it is checked by.
struct FilterSets {
    let rules: ContentRules
    /// nil without conditions.
    private var selection: SetSelection?
    /// nil if no rule redirects.
    private var redirected: RedirectedRecipient?
    /// The RCPT commands that the next hop has not answered yet, for `selection` and `redirected`.
    private var unanswered: [ByteBuffer] = []

    init(_ rules: ContentRules, _ attributes: @autoclosure () -> MessageAttributes, _ scratch: MatchScratch) {
        self.rules = rules
        if rules.areConditional { selection = SetSelection(rules, attributes(), scratch) }
        if rules.redirects { redirected = RedirectedRecipient() }
    }

    /// A RCPT command goes to the next hop.
    mutating func ask(_ recipient: ByteBuffer) {
        if selection != nil || redirected != nil { unanswered.append(recipient) }
    }

    /// The next hop has answered the first RCPT command that it had not answered.
    mutating func answer(isAccepted: Bool) {
        guard !unanswered.isEmpty else { return }
        let command = unanswered.removeFirst()
        guard isAccepted else { return }
        let (address, parameters) = SMTPServerSession.argument(of: command)
        selection?.add(recipient: address)
        redirected?.add(address[...], parameters)
    }

    /// The parameters of RCPT that a redirected message keeps.
    var redirectedParameters: [UInt8] { redirected?.parameters ?? [] }

    /// The sets for the message; nil for all of them.
    mutating func choose() -> ChosenSets? { selection?.finish() }
}
