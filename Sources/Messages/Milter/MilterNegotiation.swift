// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Rules
internal import Wire

extension MilterTerms {
    /// The events and edits that these rules and settings need. Each event costs the MTA a packet and the milter a
    /// wakeup, so Weir asks for no others:
    ///
    /// - HELO: for limits
    /// - CONNECT and replies to RCPT: for limits, and to refuse addresses that can't be repaired, unless sendmail(1)
    ///   sent them
    /// - MAIL and RCPT: for limits, repairs of addresses, and rules that redirect
    /// - MAIL: also for rules that may take From away
    /// - CONNECT, HELO, MAIL and RCPT: also for conditions of sets of checks about the client, its HELO name, the
    ///   sender or login, and the recipients
    /// - headers: for any rule, for repairs in headers, for `undisclosed_recipients` other than `keep`, and to
    ///   recognise alert mail
    /// - body: for rules about the body, MIME part headers, nested headers and decoded parts
    /// - new bodies: for those of them that change something
    ///
    /// Without any of these, only the queue ID at the end of the message is requested.
    init(_ rules: ContentRules, _ settings: MilterSettings) {
        let changesHeaders = rules.checks.undisclosedRecipients != .keep || !rules.checks.headerRepairs.isEmpty
        let hasRules = rules.lists.contains { !$0.list.isEmpty }
        let readsParts =
            rules.readsDecodedParts
            || rules.sets.contains { set in
                [set.body, set.mimeHeader, set.nestedHeader, set.decodedHeader].contains { !$0.isEmpty }
            }
        let needs = EnvelopeNeeds(of: rules)
        let needsEnvelope = settings.asksLimits || !settings.repairs.isEmpty || settings.refusesBadAddresses
        var actions: MilterActions = [.setMacros]
        if hasRules || changesHeaders {
            actions.formUnion([.changeHeaders, .addHeaders, .addRecipients, .deleteRecipients, .quarantine])
        }
        if settings.asksLimits { actions.formUnion([.addHeaders, .addRecipients, .deleteRecipients, .quarantine]) }
        if !settings.repairs.isEmpty { actions.formUnion([.changeSender, .addRecipients, .deleteRecipients]) }
        if actions.contains(.addRecipients) { actions.insert(.addRecipientsWithParameters) }
        if rules.editsBody { actions.insert(.changeBody) }
        var options: MilterOptions = [
            .noData, .noUnknown, .noEndOfHeaders, .noReplyToConnect, .noReplyToHelo, .noReplyToMail, .noReplyToHeader,
            .noReplyToBody,
            .leadingSpace,
        ]
        if !settings.asksLimits, !needs.helo { options.insert(.noHelo) }
        if !settings.asksLimits, !settings.refusesBadAddresses {
            options.insert(.noReplyToRecipient)
            if !needs.client { options.insert(.noConnect) }
        }
        if !needsEnvelope, !rules.redirects, !needs.recipients {
            options.insert(.noRecipient)
            if !rules.mayRemoveFrom, !needs.sender { options.insert(.noMail) }
        }
        if !hasRules, !changesHeaders, !(settings.asksLimits && settings.mailsAlerts) { options.insert(.noHeaders) }
        if !readsParts { options.insert(.noBody) }
        self.init(
            actions: actions, options: options, macros: Self.macros(rules, settings, needs, hasRules: hasRules))
    }

    private static func macros(
        _ rules: ContentRules, _ settings: MilterSettings, _ needs: EnvelopeNeeds, hasRules: Bool
    ) -> [MilterStage: String] {
        var macros = Dictionary(uniqueKeysWithValues: MilterStage.allCases.map { ($0, "") })
        macros[.endOfMessage] = "i"
        // Postfix has no queue ID before, and rules for headers need it.
        if hasRules { macros[.data] = !rules.readsBody ? "i" : "i {client_addr} {client_port}" }
        if settings.asksLimits {
            macros[.connect] = "j {client_ptr} {daemon_addr} {daemon_port}"
            macros[.helo] = "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer} {tls_sni}"
            macros[.mail] = "i {auth_type} {auth_authen} {auth_author} {mail_addr}"
            macros[.recipient] = "i"
        }
        if !settings.asksLimits {
            if needs.client { macros[.connect] = "{client_ptr}" }
            if needs.sender { macros[.mail] = "{auth_type} {auth_authen} {auth_author} {mail_addr}" }
        }
        // What CONNECT has brought must not end with the message.
        if rules.mayRemoveAddedHeaders {
            macros[.endOfMessage] = settings.asksLimits ? "i {client_addr}" : "i j {client_addr} {daemon_addr}"
        }
        if rules.editsHeaders { macros[.endOfMessage]! += " v" }
        if rules.mayRemoveFrom, !needs.sender, !settings.asksLimits { macros[.mail] = "{mail_addr}" }
        if settings.refusesBadAddresses { macros[.recipient] = "i" }
        if settings.needsHostName { macros[.recipient] = "i j {daemon_addr}" }
        return macros
    }

    /// Whether a connection with the negotiated `terms` has the events and edits that these terms need.
    ///
    /// - Parameter missing: actions that the MTA does not offer; another connection would not have them either.
    func isCovered(by terms: MilterTerms, missing: MilterActions) -> Bool {
        let withheld: MilterOptions = [
            .noConnect, .noHelo, .noMail, .noRecipient, .noHeaders, .noBody, .noReplyToRecipient,
        ]
        return actions.subtracting(missing).isSubset(of: terms.actions.union(.setMacros))
            && terms.options.intersection(withheld).isSubset(of: options)
    }
}

/// What the conditions of sets of checks need to know of the envelope.
private struct EnvelopeNeeds {
    let client: Bool
    let helo: Bool
    /// The sender, or the login.
    let sender: Bool
    let recipients: Bool

    init(of rules: ContentRules) {
        let names = rules.conditionNames
        client = names.contains { $0.hasPrefix("client_") || $0 == "reverse_client_name" }
        helo = names.contains("helo_name")
        sender = names.contains { $0.hasPrefix("sender") || $0.hasPrefix("sasl_") }
        recipients = names.contains { $0.hasPrefix("recipient") }
    }
}

extension ContentRules {
    /// Whether a rule may change anything after the message's own headers.
    var editsBody: Bool {
        sets.contains { set in
            [set.body, set.mimeHeader, set.nestedHeader, set.decodedHeader].contains(where: \.mayEdit)
        }
    }

    /// Whether a rule may change a header of the message itself, or add one.
    var editsHeaders: Bool {
        sets.contains { set in
            [set.header, set.mimeHeader, set.decodedHeader, set.decodedBody, set.attachment].contains(where: \.mayEdit)
        }
    }
}
