// SPDX-License-Identifier: Apache-2.0
import Filter
import Glibc
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
        let submissions = entrances.filter { setup.isOn("smtpd_sasl_auth_enable", in: $0) }
        let places = (submissions.isEmpty ? entrances : submissions).filter { !hasHeaderChecks($0) }
        let others = locations.count > 1 ? " and \(locations.count - 1) more" : ""
        for (index, service) in places.enumerated() {
            let hasCleanup = index > 0 || setup.services.contains { $0.name == Self.receivedCleanup }
            let cleanup = "\(Self.receivedCleanup) unix n - \(chroot(of: "cleanup")) - 0 cleanup"
            let table = "-o header_checks=pcre:\(Self.receivedTable)"
            add(
                .warning, "milter-own-received", service,
                "the rule at \(locations[0])\(others) can't match the Received: header that Postfix adds: no milter "
                    + "sees it; copy such rules to \(Self.receivedTable), then let Postfix apply them",
                commands: (hasCleanup ? [] : [.service("\(cleanup) \(table)")])
                    + [override("cleanup_service_name", with: Self.receivedCleanup, in: service)])
        }
    }

    /// Whether the cleanup behind an smtpd has header checks of Postfix's own.
    private func hasHeaderChecks(_ service: PostfixSetup.Service) -> Bool {
        let name = setup.value("cleanup_service_name", in: service)
        let cleanup = setup.services.first { $0.name == name && $0.program == "cleanup" }
        return !setup.value("header_checks", in: cleanup).isEmpty
    }

    /// The cleanup service that carries out HOLD and FILTER (weir_verdict.pcre).
    static let verdictCleanup = "weir_cleanup"

    /// The filter asks for HOLD and FILTER by a header, so without the table for it the mail is delivered.
    mutating func examineVerdict(_ service: PostfixSetup.Service) {
        guard rules.mayNeedCleanup else { return }
        let name = "receive_override_options"
        let options = setup.words(name, in: service)
        let skipsChecks = options.contains("no_header_body_checks")
        let ownName = setup.value("cleanup_service_name", in: service)
        guard skipsChecks || !carriesOutVerdicts(ownName) else { return }
        var commands = addVerdictCleanup()
        if !carriesOutVerdicts(ownName) {
            commands.append(override("cleanup_service_name", with: Self.verdictCleanup, in: service))
        }
        if skipsChecks {
            let rest = options.filter { $0 != "no_header_body_checks" }.joined(separator: ",")
            commands.append(override(name, with: rest, in: service))
        }
        add(
            .fault, "filter-verdict", service,
            "rules say HOLD or FILTER, or write a header such as Bcc, but the cleanup of this service does not carry "
                + "them out: such mail is delivered as if no rule had matched",
            commands: commands)
    }

    func carriesOutVerdicts(_ name: String) -> Bool {
        let cleanup = setup.services.first { $0.name == name && $0.program == "cleanup" }
        return setup.value("header_checks", in: cleanup).contains("weir_verdict")
    }

    /// Adds that service, as in conf/postfix/master.cf, unless it is there.
    func addVerdictCleanup() -> [Change] {
        guard !carriesOutVerdicts(Self.verdictCleanup) else { return [] }
        let text = options(ServiceOverride.verdictCleanup, for: "cleanup")
        return [.service("\(Self.verdictCleanup) unix n - \(chroot(of: "cleanup")) - 0 cleanup \(text)")]
    }

    /// A cleanup whose table does not exist takes no mail, also if this examination has proposed it.
    mutating func examineVerdictTables() {
        var examined: Set<String> = []
        for service in reinjections {
            let name = setup.value("cleanup_service_name", in: service)
            guard let cleanup = setup.services.first(where: { $0.name == name && $0.program == "cleanup" }) else {
                continue
            }
            for table in setup.words("header_checks", in: cleanup) {
                let path = String(Self.path(table))
                guard path.contains("weir_verdict"), examined.insert(path).inserted, Self.isMissing(path) else {
                    continue
                }
                add(
                    .fault, "filter-verdict-table", cleanup,
                    "header_checks names \(table), but there is no such file: cleanup takes no mail, so all mail that "
                        + "the filter returns stays in the queue",
                    commands: [.file(path, copyOf: Self.shippedVerdictTable)])
            }
        }
    }

    private static let shippedVerdictTable = "/usr/share/doc/weir/examples/postfix/weir_verdict.pcre"

    /// False also for what this user may not see.
    private static func isMissing(_ path: String) -> Bool {
        path.hasPrefix("/") && access(path, F_OK) != 0 && errno == ENOENT
    }

    /// With other limits than Postfix's, rules see more or less of a message than they would there.
    mutating func examineLimits() {
        guard configuration.listen.takesContent else { return }
        for (name, value) in configuration.checks.limitsOfPostfix {
            guard let own = Int(setup.value(name)), own != value else { continue }
            add(
                .warning, "filter-limits", nil, "\(name) is \(own) in Postfix and \(value) in checks of weir.yaml",
                configuration: ["checks: { \(name): \(own) }"])
        }
    }

    /// Only a note: it changes what `weir check` says, and Postfix itself has treated these lines in mail that Weir
    /// gets from it.
    mutating func examineFromLinesSetting() {
        guard !configuration.checks.tableNames.isEmpty, let isAll = turnsAllFromLinesIntoHeaders else { return }
        let (right, lines) = isAll ? ("all", "all From lines") : ("first", "only the first From line")
        guard configuration.checks.fromLines != right else { return }
        add(
            .note, "from-lines", nil,
            "Postfix \(setup.value("mail_version")) makes \(lines) at the start of a message X-Mailbox-Line headers, "
                + "unless your distribution has changed that; weir check follows checks.from_lines",
            configuration: ["checks: { from_lines: \(right) }"])
    }

    static let tableParameters = [
        "header_checks", "mime_header_checks", "nested_header_checks", "body_checks",
    ]

    /// Rules that weir.yaml has and main.cf still has apply twice. Where all mail passes Weir, Postfix's own may go.
    mutating func examineDoubleChecks() {
        guard seesAllMail else { return }
        // A set with conditions is not for all mail, as Postfix's checks are.
        let sets = rules.sets.filter { $0.definition.conditions.isEmpty }
        let own = Set(sets.flatMap(\.definition.tables.names).map(Self.path))
        for name in Self.tableParameters {
            let words = RestrictionList.words(setup.raw(name))
            let rest = words.filter { !own.contains(Self.path(setup.expanded($0))) }
            guard rest.count < words.count else { continue }
            let twice = words.filter { !rest.contains($0) }.joined(separator: " and ")
            add(
                .warning, "checks-twice", nil,
                "\(name) of main.cf and checks of weir.yaml both have \(twice): its rules apply twice",
                commands: [.parameter(name, value: rest.joined(separator: ", "))])
        }
    }

    /// The file of `pcre:/etc/postfix/header_checks`.
    private static func path(_ table: String) -> Substring {
        table.firstIndex(of: ":").map { table[table.index(after: $0)...] } ?? table[...]
    }
}
