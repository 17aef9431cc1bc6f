// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Limits
internal import MailSyntax
internal import Patterns
internal import Policy
internal import Rules
internal import Wire

/// The mail transaction under way: its envelope, and what the ledger has answered about it. Belongs to its dialogue,
/// whose states pass it on: a reference, because each event would otherwise move all of its fields.
final class MilterTransaction {
    /// The settings that were in force when the message began.
    let settings: MilterSettings
    /// What the MTA grants.
    let terms: MilterTerms
    /// With its brackets; empty if the MTA sends no MAIL.
    let reversePath: [UInt8]
    /// The recipients that were not refused, with their brackets.
    private(set) var recipients: [[UInt8]] = []
    /// The parameters of RCPT, separated by spaces, for each of `recipients`.
    private(set) var parameters: [[UInt8]] = []
    /// Memory of all recipients that were sent, refused ones included.
    private var recipientBytes = 0
    /// The SIZE parameter of MAIL (RFC 1870); empty without one.
    private let declaredSize: [UInt8]
    /// The parts of a question that are the same for all questions about this message.
    private(set) var question: PolicyQuestion
    /// The ledger's number of the transaction, once it was charged.
    private(set) var charged: UInt64?
    var effects = LimitEffects()
    private(set) var repairer: AddressRepairer
    /// The attributes that are the same for all recipients, with this version of the macros.
    private var common: (version: Int, text: [UInt8]) = (-1, [])

    private static let mostRecipientBytes = 4 << 20
    private static let sizeParameter = Array("SIZE=".utf8)

    /// - Parameters:
    ///   - parameters: of MAIL.
    ///   - macros: those of the connection and of MAIL.
    ///   - instance: a name for the message that no other has; empty without limits.
    init(
        _ reversePath: [UInt8], _ parameters: [[UInt8]], _ macros: MilterMacros, client: MilterSession.Client,
        settings: MilterSettings, terms: MilterTerms, instance: [UInt8]
    ) {
        self.reversePath = reversePath
        self.settings = settings
        repairer = settings.repairer
        self.terms = terms
        let size = parameters.first { Self.isSize($0) }
        declaredSize = size.map { Array($0.dropFirst(Self.sizeParameter.count)) } ?? []
        question = PolicyQuestion(
            state: .recipient, attributes: [],
            sender: EnvelopeAddress.sender(of: reversePath, resolved: macros["mail_addr"] ?? []),
            instance: instance, transaction: nil, session: nil)
        if settings.asksLimits, !client.isLocal, !client.address.isEmpty, client.port != 0 {
            question.session = PolicySessions.key(address: client.address, port: String(client.port).utf8)
        }
    }

    private static func isSize(_ parameter: [UInt8]) -> Bool {
        parameter.count >= sizeParameter.count
            && zip(parameter, sizeParameter).allSatisfy { ($0 &- UInt8(ascii: "a") < 26 ? $0 & ~0x20 : $0) == $1 }
    }

    /// - Throws: `MilterFault.tooMuch`
    func append(recipient: [UInt8], _ parameters: [[UInt8]]) throws(MilterFault) {
        let parameters = Array(parameters.joined(separator: [UInt8(ascii: " ")]))
        recipients.append(recipient)
        self.parameters.append(parameters)
        recipientBytes += recipient.count + parameters.count + 2 * MemoryLayout<[UInt8]>.stride
        guard recipientBytes <= Self.mostRecipientBytes else { throw .tooMuch }
    }

    /// Takes the MTA's own name and address from the macros, if a repair depends on them.
    func noteHost(_ macros: MilterMacros) {
        guard settings.needsHostName, repairer.hostName.isEmpty else { return }
        repairer.hostName = macros["j"] ?? []
        repairer.hostAddress = macros["daemon_addr"] ?? []
    }

    /// Why a recipient is refused, if its address or the sender's can't be repaired.
    func refusal(of recipient: [UInt8]) -> Refusal? {
        guard settings.refusesBadAddresses else { return nil }
        if case .hopeless(let reason) = repairer.repair(reversePath) {
            return Refusal(code: 553, text: Array("5.1.7 bad sender address syntax: \(reason)".utf8))
        }
        if case .hopeless(let reason) = repairer.repair(recipient) {
            return Refusal(code: 553, text: Array("5.1.3 bad recipient address syntax: \(reason)".utf8))
        }
        return nil
    }

    func removeLastRecipient() {
        recipients.removeLast()
        parameters.removeLast()
    }

    /// The policy server has charged the message, as this transaction.
    func wasCharged(_ transaction: PolicySessions.Transaction) { question.transaction = transaction }

    /// The ledger has charged the message for the milter; 0 if it charged nothing.
    func wasCharged(_ transaction: UInt64) { if transaction != 0 { charged = transaction } }

    // MARK: Questions to the ledger

    /// May the message go to its last recipient?
    func recipientQuestion(_ client: MilterSession.Client, helo: [UInt8], _ macros: MilterMacros) -> PolicyQuestion {
        var question = question
        question.attributes = attributes(client, helo, macros, recipients.last ?? [], count: 0, size: declaredSize)
        return question
    }

    /// May the message, which is complete, be accepted?
    ///
    /// - Parameter size: of the message in bytes.
    func finalQuestion(
        _ client: MilterSession.Client, helo: [UInt8], _ macros: MilterMacros, size: Int
    ) -> PolicyQuestion {
        var question = question
        question.state = .endOfMessage
        question.attributes = attributes(
            client, helo, macros, recipients.count == 1 ? recipients[0] : [], count: recipients.count,
            size: Array(String(size).utf8))
        return question
    }

    /// The sets of checks for the message, whose recipients are all known.
    func chooseSets(
        of rules: ContentRules, _ client: MilterSession.Client, helo: [UInt8], _ macros: MilterMacros,
        _ scratch: MatchScratch
    ) -> ChosenSets {
        var known = MessageAttributes(request: attributes(client, helo, macros, [], count: 0, size: []))
        known["sender"] = Array(question.sender)
        var selection = SetSelection(rules, known, scratch)
        for recipient in recipients { selection.add(recipient: Array(EnvelopeAddress.internalForm(of: recipient))) }
        return selection.finish()
    }

    private func attributes(
        _ client: MilterSession.Client, _ helo: [UInt8], _ macros: MilterMacros, _ recipient: [UInt8], count: Int,
        size: [UInt8]
    ) -> [UInt8] {
        if common.version != macros.version { common = (macros.version, commonAttributes(client, helo, macros)) }
        var text: [UInt8] = []
        text.reserveCapacity(common.text.count + recipient.count + 64)
        text += common.text
        text.appendAttribute("recipient", address: EnvelopeAddress.internalForm(of: recipient))
        text.appendAttribute("recipient_count", String(count).utf8)
        text.appendAttribute("size", size)
        return text
    }

    private func commonAttributes(
        _ client: MilterSession.Client, _ helo: [UInt8], _ macros: MilterMacros
    ) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity(512)
        text.appendAttribute("protocol_name", (client.isLocal ? "local" : "ESMTP").utf8)
        text.appendAttribute("client_address", client.address)
        text.appendAttribute("client_name", client.name)
        if client.port != 0 { text.appendAttribute("client_port", String(client.port).utf8) }
        text.appendAttribute("helo_name", helo)
        for (name, macro) in Self.macroAttributes {
            if let value = macros[macro] { text.appendAttribute(name, value) }
        }
        if client.isLocal,
            let userID = settings.accounts.userID(of: question.sender, host: macros["j"] ?? [])
        {
            text.appendAttribute("uid", userID)
        }
        return text
    }

    private static let macroAttributes: [(StaticString, StaticString)] = [
        ("queue_id", "i"), ("reverse_client_name", "client_ptr"), ("server_address", "daemon_addr"),
        ("server_port", "daemon_port"),
        ("sasl_method", "auth_type"), ("sasl_username", "auth_authen"), ("sasl_sender", "auth_author"),
        ("encryption_protocol", "tls_version"), ("encryption_cipher", "cipher"), ("encryption_keysize", "cipher_bits"),
        ("ccert_subject", "cert_subject"), ("ccert_issuer", "cert_issuer"), ("tls_sni", "tls_sni"),
    ]
}

extension MilterSession.Client {
    /// Whether the mail is from sendmail(1): Postfix then names a client on its own host, without a port.
    var isLocal: Bool { port == 0 && (address.isEmpty || address.isLoopback) }
}

extension MilterMacros {
    /// The same, for connections without CONNECT. Needs {client_addr} and {client_port}.
    var nameLocalClient: Bool { self["client_port"] == [UInt8(ascii: "0")] && self["client_addr"]?.isLoopback == true }

    /// How many headers the MTA counts before the first one that it has sent, when it inserts one. Needs v.
    ///
    /// Postfix counts its own Received:. Sendmail (`insheader` in headers.c) counts the nine H lines of the usual
    /// sendmail.cf, which come first in its list, and inserts after the header that it has counted to.
    var headersAhead: Int {
        guard let first = self["v"]?.first, first.isDigit else { return 1 }
        return 8
    }
}
