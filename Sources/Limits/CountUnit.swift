// SPDX-License-Identifier: Apache-2.0

/// What a limit counts: the word of its `count` key, and every rule that depends on it.
///
/// A new unit is a new case. The compiler then names each switch in this file that has to decide about it; no other
/// file switches over units. docs/limits.md, docs/configuration.md and conf/weir.yaml are generated from the texts
/// below.
///
/// The raw values are words of the configuration, the log and the admin interface, and the store compares them when it
/// starts (`Limit.signature`). Rates and amounts of all units are plain numbers with k, M and G as thousands.
package enum CountUnit: String, CaseIterable, Sendable {
    case recipients, messages, bytes, connections

    /// Whether a charge belongs to the client's connection. All others belong to a mail transaction.
    package var isOfConnection: Bool {
        switch self {
        case .recipients, .messages, .bytes: false
        case .connections: true
        }
    }

    /// What a request in this protocol state charges.
    package func charge(in state: ProtocolState) -> Charge {
        switch self {
        case .recipients:
            switch state {
            case .rcpt: .oneMore
            case .data, .endOfMessage: .acceptedRecipients
            case .connect, .helo, .mail, .vrfy, .etrn, .other: .nothing
            }
        case .messages:
            switch state {
            case .rcpt, .data, .endOfMessage: .oneOfMessage
            case .connect, .helo, .mail, .vrfy, .etrn, .other: .nothing
            }
        case .bytes:
            switch state {
            case .rcpt, .data: .declaredSize
            case .endOfMessage: .actualSize
            case .connect, .helo, .mail, .vrfy, .etrn, .other: .nothing
            }
        case .connections: .oneOfConnection
        }
    }

    /// How a request changes what its transaction or connection has been charged.
    package enum Charge: Sendable {
        case nothing
        case oneOfMessage
        /// The ledger asks for this only while the connection has not been counted.
        case oneOfConnection
        case oneMore
        /// `recipient_count`: the recipients that Postfix accepted.
        case acceptedRecipients
        /// The SIZE= parameter of MAIL; 0 where the client gave none.
        case declaredSize
        case actualSize

        /// What the transaction or connection should have been charged in all after this request.
        ///
        /// Every number that this reads from `request` must be part of the request's identity (`Ledger.identify`).
        /// Otherwise a request that differs from the one before in that number alone passes for a repetition.
        func total(after request: Attributes, charged: UInt64) -> UInt64 {
            switch self {
            case .nothing: charged
            case .oneOfMessage, .oneOfConnection: 1
            case .oneMore: charged + 1
            // Without a count (Postfix before 2.3), at least one recipient was accepted.
            case .acceptedRecipients: request.recipientCount > 0 ? request.recipientCount : max(charged, 1)
            case .declaredSize: max(charged, request.size)
            case .actualSize: request.size
            }
        }

        /// The part of the total that has to fit into a window at once. If it never fits, the request is too large. A
        /// client that is deferred repeats a message as a whole, but may repeat a single recipient on its own.
        func indivisible(ofTotal total: UInt64) -> UInt64 {
            switch self {
            case .oneMore: 1
            case .nothing, .oneOfMessage, .oneOfConnection, .acceptedRecipients, .declaredSize, .actualSize: total
            }
        }

        /// A cell of the table in docs/limits.md.
        package var summary: String {
            switch self {
            case .nothing: "-"
            case .oneOfMessage: "1 per message"
            case .oneOfConnection: "1 per connection"
            case .oneMore: "1 more"
            case .acceptedRecipients: "settled to `recipient_count`"
            case .declaredSize: "SIZE= of MAIL, once"
            case .actualSize: "settled to the actual size"
            }
        }
    }

    /// How much a message in a mail log amounts to. `messages` is 0 for what was logged of the same message before.
    package func amount(recipients: UInt64, messages: UInt64, bytes: UInt64) -> UInt64 {
        switch self {
        case .recipients: recipients
        case .bytes: bytes
        // The log lines that are read do not tell connections apart: each message stands for one.
        case .messages, .connections: messages
        }
    }

    /// Why a limit with this unit can't have `recipient` or `recipient_domain` in its key or conditions; nil where it
    /// can.
    package var conflictWithRecipients: String? {
        switch self {
        case .recipients, .messages: nil
        case .bytes: "the size is known at END-OF-MESSAGE, where Postfix does not name the recipients"
        case .connections: "a connection has no recipient"
        }
    }

    /// For the `count` key in docs/configuration.md and conf/weir.yaml.
    package var summary: String {
        switch self {
        case .recipients: "each recipient of each message"
        case .messages: "each message, whatever its number of recipients"
        case .bytes: "the size of each message, once for all its recipients"
        case .connections: "each connection of a client"
        }
    }

    /// What Postfix has to ask or send for the unit to be counted in full; for docs/limits.md.
    package var requirement: String {
        switch self {
        case .recipients:
            "Needs RCPT, DATA or END-OF-MESSAGE. RCPT alone also counts recipients that Postfix rejects afterwards; "
                + "DATA or "
                + "END-OF-MESSAGE gives them back."
        case .messages:
            "Needs RCPT, DATA or END-OF-MESSAGE."
        case .bytes:
            "Needs END-OF-MESSAGE. RCPT and DATA know only the declared SIZE=, so a message without one is charged "
                + "nothing before its end."
        case .connections:
            "Needs any request with `client_port`, which Postfix sends since 3.0. With `smtpd_delay_reject = yes`, a "
                + "connection that never reaches RCPT is not counted."
        }
    }
}
