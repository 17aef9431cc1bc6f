// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import MailSyntax
internal import Rules
package import Settings
internal import Wire

/// The milter's part of the configuration. A message is handled with the settings in force when it begins.
package final class MilterSettings: Sendable {
    package let asksLimits: Bool
    let mailsAlerts: Bool
    let localOver: Configuration.Milter.LocalOver
    /// Repairs with what was chosen; the MTA's own name is not known yet.
    let repairer: AddressRepairer
    let repairs: AddressRepairs
    let refusesBadAddresses: Bool
    let onFailure: Configuration.OnFailure
    /// As of the last reload.
    let accounts: LocalAccounts

    package init(_ configuration: Configuration) {
        asksLimits = configuration.milter.limits && !configuration.limits.isEmpty
        mailsAlerts = !configuration.alerts.mail.isEmpty
        localOver = configuration.milter.localOver
        repairs = configuration.addressRepairs
        repairer = AddressRepairer(repairs)
        refusesBadAddresses = configuration.refusesBadAddresses
        onFailure = configuration.onFailure
        accounts = LocalAccounts()
    }

    /// Whether the repairs depend on the MTA's own name.
    var needsHostName: Bool { !repairs.isDisjoint(with: .needingHostName) }
}

/// The rules and settings of a connection, and the terms that follow from them.
final class MilterOffer {
    let rules: ContentRules
    let settings: MilterSettings
    let terms: MilterTerms

    init(_ rules: ContentRules, _ settings: MilterSettings) {
        self.rules = rules
        self.settings = settings
        terms = MilterTerms(rules, settings)
    }
}
