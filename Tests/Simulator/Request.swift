// SPDX-License-Identifier: Apache-2.0

/// A policy request, as Postfix would send it.
struct Request: Hashable {
    enum State: String {
        case helo = "EHLO"
        case rcpt = "RCPT"
        case data = "DATA"
        case end = "END-OF-MESSAGE"

        var settles: Bool { self == .data || self == .end }
        var isOfMessage: Bool { self != .helo }
    }

    var state: State
    var instance: String
    var sender: String
    var user: String
    var client: String
    var port: Int
    var recipient = ""
    var recipientCount = 0
    var size = 0
    /// `policy_context` of the restriction list that asks.
    var context = ""

    var text: String {
        """
        request=smtpd_access_policy
        protocol_state=\(state.rawValue)
        protocol_name=ESMTP
        client_address=\(client)
        client_port=\(port)
        sasl_username=\(user)
        sender=\(state.isOfMessage ? sender : "")
        recipient=\(recipient)
        recipient_count=\(recipientCount)
        size=\(size)
        policy_context=\(context)
        instance=\(instance)


        """
    }

    /// The same in whatever `policy_context`.
    var anywhere: Request {
        var request = self
        request.context = ""
        return request
    }

    func value(of key: KeyAttribute) -> String {
        switch key {
        case .user: user
        case .sender: state.isOfMessage ? sender : ""
        case .client: client
        case .recipient: recipient
        }
    }

    /// Postfix's requests about one message have the same.
    var transaction: String { "\(instance) \(client) \(sender)" }

    var summary: String {
        var text = "\(state.rawValue) \(instance) from \(client):\(port)"
        if !user.isEmpty { text += " user \(user)" }
        if state.isOfMessage { text += " sender \(sender)" }
        if !recipient.isEmpty { text += " to \(recipient)" }
        if recipientCount > 0 { text += " recipients \(recipientCount)" }
        if size > 0 { text += " size \(size)" }
        if !context.isEmpty { text += " context \(context)" }
        return text
    }
}
