// SPDX-License-Identifier: Apache-2.0
import Settings
import Wire

/// What the lookup tables of main.cf and master.cf do to mail that Weir should see.
extension Examination {
    /// A use of a table: by a service, or by main.cf if that is nil.
    private struct Use {
        let table: String
        let parameter: String
        let service: PostfixSetup.Service?
    }

    /// The tables that were read, by name; an error for one that can't be read.
    private typealias Tables = [String: Result<PostfixTable, PostfixTable.Failure>]

    mutating func examineTables() {
        let (permitting, filtering, choosing) = (permittingUses, filteringUses, choosingUses)
        var tables: Tables = [:]
        for use in permitting + filtering + choosing where tables[use.table] == nil {
            tables[use.table] = Result { () throws(PostfixTable.Failure) in try PostfixTable(use.table) }
        }
        for use in permitting { examinePermits(use, tables) }
        var examined: Set<String> = []
        for use in filtering where examined.insert(use.table).inserted { examineFilters(use, tables) }
        for use in choosing { examineMilters(use, tables) }
        let unread = tables.compactMap { name, table -> String? in
            guard case .failure(let failure) = table else { return nil }
            return "\(name) (\(failure.reason))"
        }
        guard !unread.isEmpty else { return }
        add(
            .note, "tables-unread", nil,
            "weir doctor has not read \(unread.sorted().joined(separator: ", ")): look there yourself for OK, FILTER "
                + "and DISABLE, which can lead mail past Weir")
    }

    /// The entries of a table whose results are wanted, as a text such as `2 entries (a, b)`; nil if it has none.
    private func matches(
        _ use: Use, _ tables: Tables, where isWanted: (PostfixTable.Entry) -> Bool
    ) -> (entries: [PostfixTable.Entry], text: String)? {
        guard case .success(let table) = tables[use.table] else { return nil }
        let entries = table.entries.filter(isWanted)
        guard !entries.isEmpty else { return nil }
        let examples = entries.prefix(3).map { Self.shown($0.key) } + (entries.count > 3 ? ["..."] : [])
        let count = entries.count == 1 ? "1 entry" : "\(entries.count) entries"
        return (entries, "\(count) of \(use.table) (\(examples.joined(separator: ", ")))")
    }

    /// A key for one line of a terminal.
    private static func shown(_ key: String) -> String {
        let plain = String(
            String.UnicodeScalarView(key.unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : $0 }))
        return plain.count > 60 ? "\(plain.prefix(60))..." : plain
    }

    private static func firstWord(_ result: String) -> String {
        result.prefix { $0 != " " && $0 != "\t" }.uppercased()
    }

    // MARK: Permits

    /// The access tables in a list that asks Weir after them.
    private var permittingUses: [Use] {
        entrances.flatMap { service in
            (recipientLists(of: service) + Self.settlingLists).flatMap { name -> [Use] in
                let flat = list(name, in: service).flatMap(\.expanded)
                guard let own = flat.firstIndex(where: { isOurs($0, in: service) }) else { return [] }
                return flat[..<own].compactMap(Self.table).map { Use(table: $0, parameter: name, service: service) }
            }
        }
    }

    /// The table of `check_client_access hash:/etc/postfix/clients`, and of a table without a word before it.
    private static func table(_ element: RestrictionList.Element) -> String? {
        if element.name.hasPrefix("check_"), element.name.hasSuffix("_access") {
            // In braces, such as { hash:/etc/postfix/certificates, search_order = ... }, the table comes first.
            return element.argument.first == "{" ? ServerReference(element.argument).address : element.argument
        }
        let name = element.text.prefix { $0 != "{" }
        return name.contains(":") && !name.contains(" ") ? element.text : nil
    }

    private mutating func examinePermits(_ use: Use, _ tables: Tables) {
        guard let found = matches(use, tables, where: { permits($0.result, in: use.service) }) else { return }
        add(
            .note, "policy-behind-table", use.service,
            "\(use.parameter) permits mail by \(found.text) before it asks Weir, so such mail is not counted; if "
                + "it should be, move that table behind Weir in the list")
    }

    /// Words at the beginning of a result that neither permit nor begin a list of restrictions (access(5)).
    private static let otherActions: Set<String> = [
        "REJECT", "DEFER", "DEFER_IF_REJECT", "DEFER_IF_PERMIT", "BCC", "DISCARD", "DUNNO", "FILTER", "HOLD", "INFO",
        "PREPEND", "REDIRECT", "WARN",
    ]

    /// Whether a result of an access table ends the list for accepted mail.
    private func permits(_ result: String, in service: PostfixSetup.Service?) -> Bool {
        let word = Self.firstWord(result)
        if ["OK", "RELAY"].contains(word) { return true }
        // A number alone means OK, a number before a text is a reply code.
        if word.utf8.allSatisfy({ 0x30...0x39 ~= $0 }) { return !word.isEmpty && word.count == result.count }
        guard !Self.otherActions.contains(word) else { return false }
        let flat = expanded(result, in: service)
        let beforeWeir = flat.prefix { !isOurs($0, in: service) }
        return RestrictionList.end(of: beforeWeir).map(RestrictionList.permits.contains) ?? false
    }

    // MARK: FILTER

    /// The access tables and checks that apply to mail which content_filter sends to Weir.
    private var filteringUses: [Use] {
        let filtered = entrances.filter { leadsToWeir(setup.value("content_filter", in: $0), in: $0) }
        let lists = Self.earlyLists + Self.recipientLists + Self.settlingLists
        let access = filtered.flatMap { service in
            lists.flatMap { name in
                list(name, in: service).flatMap(\.expanded).compactMap(Self.table)
                    .map { Use(table: $0, parameter: name, service: service) }
            }
        }
        var names = filtered.map { setup.value("cleanup_service_name", in: $0) }
        if leadsToWeir(setup.value("content_filter"), in: nil) { names.append(setup.value("cleanup_service_name")) }
        let cleanups = setup.services.filter { $0.program == "cleanup" && names.contains($0.name) }
        let checks = cleanups.flatMap { cleanup in
            Self.tableParameters.flatMap { name in
                setup.words(name, in: cleanup)
                    .map { Use(table: $0, parameter: name, service: cleanup) }
            }
        }
        return access + checks
    }

    private func leadsToWeir(_ destination: String, in service: PostfixSetup.Service?) -> Bool {
        let transport = destination.prefix { $0 != ":" }
        let address = String(destination.dropFirst(transport.count + 1))
        return isOurs(address, configuration.listen.filter.map(\.listen), in: service)
            || setup.services.contains { $0.name == transport && $0.runsWeirFilter }
    }

    private mutating func examineFilters(_ use: Use, _ tables: Tables) {
        let found = matches(use, tables) { entry in
            guard Self.firstWord(entry.result) == "FILTER" else { return false }
            let destination = entry.result.dropFirst("FILTER".count).trimmed
            return !destination.isEmpty && !leadsToWeir(destination, in: use.service)
        }
        guard let found else { return }
        add(
            .note, "filter-bypassed", use.service,
            "\(use.parameter): FILTER in \(found.text) overrides content_filter, so such mail does not go to Weir's "
                + "filter; look whether it must, and whether the other filter passes it on to Weir")
    }

    // MARK: smtpd_milter_maps

    private var choosingUses: [Use] {
        entrances.filter(usesMilter).flatMap { service in
            milterMaps(of: service).map { Use(table: $0, parameter: Self.milterMaps, service: service) }
        }
    }

    private static let milterMaps = "smtpd_milter_maps"

    private func milterMaps(of service: PostfixSetup.Service) -> [String] {
        setup.words(Self.milterMaps, in: service)
    }

    /// A table that gives the milter to some clients.
    func tableWithMilter(_ service: PostfixSetup.Service) -> String? {
        guard !isSwitchedOff(service) else { return nil }
        return milterMaps(of: service).first { name in
            (try? PostfixTable(name))?.entries.contains { namesMilter($0, in: service) } ?? false
        }
    }

    private func namesMilter(_ entry: PostfixTable.Entry, in service: PostfixSetup.Service?) -> Bool {
        RestrictionList.words(entry.result).contains { isOurs(milter: $0, in: service) }
    }

    private mutating func examineMilters(_ use: Use, _ tables: Tables) {
        guard let found = matches(use, tables, where: { !namesMilter($0, in: use.service) }) else { return }
        add(
            .note, "milter-by-table", use.service,
            "\(use.parameter) takes the milter from clients by \(found.text): it neither checks nor counts their mail; "
                + "if it should, name the milter there, too")
    }
}
