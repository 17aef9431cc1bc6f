// SPDX-License-Identifier: Apache-2.0
import Filter
import Settings

/// Where the checks see something else than Postfix's own would.
extension Examination {
    /// The cleanup service that Postfix's own header checks for submitted mail go to.
    private static let receivedCleanup = "received_cleanup"
    private static let receivedTable = "/etc/postfix/received_checks"

    /// A milter is never shown the Received: header that Postfix adds, so rules for it must be in Postfix. They matter
    /// where the site's own users send mail.
    mutating func examineReceived() {
        let locations = rules.locationsOfReceived
        guard !locations.isEmpty, usesMilter, !usesFilter else { return }
        let submissions = entrances.filter { setup.value("smtpd_sasl_auth_enable", in: $0) == "yes" }
        let places = (submissions.isEmpty ? entrances : submissions).filter { !hasHeaderChecks($0) }
        for (index, service) in places.enumerated() {
            let hasCleanup = index > 0 || setup.services.contains { $0.name == Self.receivedCleanup }
            let line = "\(Self.receivedCleanup) unix n - \(service.chroot) - 0 cleanup "
                + "-o header_checks=pcre:\(Self.receivedTable)"
            add(
                .warning, "milter-own-received", service,
                "the rule at \(locations[0])\(locations.count > 1 ? " and \(locations.count - 1) more" : "") can't match "
                    + "the Received: header that Postfix adds: no milter sees it; copy such rules to "
                    + "\(Self.receivedTable), then let Postfix apply them",
                commands: (hasCleanup ? [] : [add(service: line)])
                    + [override("cleanup_service_name", with: Self.receivedCleanup, in: service)])
        }
    }

    /// Whether the cleanup behind an smtpd has header checks of Postfix's own.
    private func hasHeaderChecks(_ service: PostfixSetup.Service) -> Bool {
        let name = setup.value("cleanup_service_name", in: service)
        let cleanup = setup.services.first { $0.name == name && $0.program == "cleanup" }
        return !setup.value("header_checks", in: cleanup).isEmpty
    }

    /// With other limits than Postfix's, rules see more or less of a message than they would there.
    mutating func examineLimits() {
        guard !configuration.listen.filter.isEmpty || !configuration.listen.milter.isEmpty else { return }
        for (name, value) in configuration.checks.limitsOfPostfix {
            guard let own = Int(setup.value(name)), own != value else { continue }
            add(
                .warning, "filter-limits", nil, "\(name) is \(own) in Postfix and \(value) in checks of weir.yaml",
                configuration: ["checks: { \(name): \(own) }"])
        }
    }
}
