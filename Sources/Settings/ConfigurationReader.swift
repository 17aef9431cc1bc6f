// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import Glibc
internal import Rules
internal import Wire

/// Reads weir.yaml into a `Configuration`, or reports all its faults.
///
/// Reading has no effect on sockets, the store or the log. It reads the tables that the configuration names, so their
/// faults are found here, and the result does not depend on any file.
package enum ConfigurationReader {
    /// A valid configuration and its warnings.
    package struct Outcome: Sendable {
        package let configuration: Configuration
        /// The tables of `checks`, compiled.
        package let rules: ContentRules
        package let warnings: [ConfigurationFault]
        /// The paths of the tables that the configuration names.
        package let tablePaths: [String]
    }

    /// In bytes.
    private static let largest = 1 << 20

    /// - Parameter examinesMachine: also warns of what the configuration names and this machine lacks.
    package static func read(
        path: String, examinesMachine: Bool = false
    ) -> Result<Outcome, ConfigurationFaults> {
        switch BoundedFile.read(path, upTo: largest) {
        case .success(let bytes):
            return read(bytes, file: path, examinesMachine: examinesMachine)
        case .failure(let failure):
            let fault = ConfigurationFault(
                file: path,
                message: failure.isMissing
                    ? "does not exist; weir setup writes one" : "can't be read: \(failure.description)")
            return .failure(
                ConfigurationFaults(all: [fault], warnings: [], readable: nil, tablePaths: []))
        }
    }

    /// - Parameter file: the name of the file in faults.
    package static func read(
        _ bytes: [UInt8], file: String, examinesMachine: Bool = false
    ) -> Result<Outcome, ConfigurationFaults> {
        var reading = ConfigurationReading(file: file)
        var configuration = Configuration()
        var found: [String: YAMLNode] = [:]
        if let text = decode(bytes, &reading) {
            let document = YAMLDocument(text)
            for fault in document.faults {
                reading.add(fault: .init(file: file, line: fault.line, column: fault.column, message: fault.message))
            }
            if let root = document.root {
                found = reading.read(root, at: "", rows: ConfigurationKeys.root, into: &configuration)
                reading.warnOfUnmatchedLines()
                SharedReader.finish(&configuration, found, &reading)
                checkListeners(configuration.listen, found, &reading)
                if examinesMachine { MachineReader.warn(of: configuration, found, &reading) }
                warnOfPrograms(configuration.alerts, found, &reading)
                warnOfUnusedChecks(configuration.listen, found, &reading)
                warnOfUnusedRepairs(configuration, found, &reading)
            }
        }
        configuration.attributeNames = reading.attributeNames
        configuration.checks.attributeNames = reading.attributeNames
        configuration.checks.headerRepairs = configuration.headerRepairs
        configuration.checks.repairsSigned = configuration.canonicalise.contains(.signedHeaders)
        let rules = compile(configuration.checks, found, &reading)
        if !configuration.listen.milter.isEmpty, let rules {
            checkActions(of: rules, &reading)
            warnOfReceived(in: rules, &reading)
        }
        let takesBeforeQueue = configuration.listen.filter.contains { $0.mode == .beforeQueue }
        if configuration.listen.takesContent, !takesBeforeQueue, let rules { warnOfDroppedHeaders(in: rules, &reading) }
        if configuration.listen.filter.contains(where: { $0.nextHop.variant == .lmtp }), let rules {
            warnOfLMTP(rules, &reading)
        }
        if reading.faults.isEmpty, configuration.limits.isEmpty {
            reading.add(warning: .init(file: file, message: "no limits: Weir answers every request with DUNNO"))
        }
        let warnings = sorted(reading.warnings, file: file)
        let tablePaths = reading.tablePaths + configuration.checks.tablePaths
        guard reading.faults.isEmpty, let rules else {
            return .failure(
                ConfigurationFaults(
                    all: sorted(reading.faults, file: file), warnings: warnings, readable: configuration,
                    tablePaths: tablePaths))
        }
        return .success(
            Outcome(configuration: configuration, rules: rules, warnings: warnings, tablePaths: tablePaths))
    }

    private static func warnOfPrograms(
        _ alerts: Configuration.Alerts, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) {
        for (key, program) in [
            ("alerts.webhook", alerts.webhook.map { _ in Configuration.Alerts.webhookProgram }),
            ("alerts.command", alerts.command),
            ("alerts.sendmail", alerts.sendmail),
        ] {
            guard let node = found[key], let program, access(program, X_OK) != 0 else { continue }
            reading.warn(node, key, "can't execute \(program): \(String(cString: strerror(errno)))")
        }
    }

    private static func warnOfUnusedChecks(
        _ listen: Configuration.Listen, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) {
        guard !listen.takesContent else { return }
        if let node = found["checks.sets"], !node.items.isEmpty {
            reading.warn(
                node, "checks.sets",
                "without listen.milter or listen.filter, only `weir check` and `weir filter` use these tables")
        }
        for name in [
            "header", "mime_header", "nested_header", "decoded_header", "decoded_body", "attachment", "body",
        ] {
            guard let node = found["checks.\(name)"], !node.items.isEmpty else { continue }
            reading.warn(
                node, "checks.\(name)",
                "without listen.milter or listen.filter, only `weir check` and `weir filter` use this table")
        }
    }

    /// Words of `canonicalise` without an effect.
    private static func warnOfUnusedRepairs(
        _ configuration: Configuration, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) {
        guard let node = found["canonicalise"] else { return }
        if configuration.listen.milter.isEmpty,
            configuration.refusesBadAddresses || !configuration.addressRepairs.isEmpty
        {
            reading.warn(
                node, "canonicalise",
                "without listen.milter, senders and recipients are not repaired; only the repairs in headers work")
        }
        if configuration.canonicalise.contains(.signedHeaders), configuration.headerRepairs.isEmpty {
            reading.warn(node, "canonicalise", "signed_headers has no effect without headers, or a repair in headers")
        }
    }

    /// Faults and warnings have the file names and lines of the tables. A table that can't be read is a fault of its
    /// name in the configuration.
    private static func compile(
        _ checks: ContentChecks, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) -> ContentRules? {
        do {
            let rules = try ContentRules(checks)
            for warning in rules.warnings { reading.add(warning: .init(warning)) }
            return rules
        } catch {
            for fault in error.faults {
                if fault.line == nil, let (node, key) = place(of: "\(fault.type):\(fault.path)", found) {
                    reading.fault(node, key, "can't \(fault.message)")
                } else {
                    reading.add(fault: .init(fault))
                }
            }
            for warning in error.warnings { reading.add(warning: .init(warning)) }
            return nil
        }
    }

    /// Where `checks` names a table, and the key there.
    private static func place(of table: String, _ found: [String: YAMLNode]) -> (node: YAMLNode, key: String)? {
        func search(_ node: YAMLNode, _ key: String) -> (YAMLNode, String)? {
            switch node.value {
            case .nothing: nil
            case .scalar(let text): text == table ? (node, key) : nil
            case .list(let items): items.indices.lazy.compactMap { search(items[$0], "\(key)[\($0)]") }.first
            case .map(let entries): entries.lazy.compactMap { search($0.value, "\(key).\($0.name.text)") }.first
            }
        }
        return found.keys.filter { $0.hasPrefix("checks.") }.sorted().lazy.compactMap { search(found[$0]!, $0) }.first
    }

    /// A rule whose action a milter can't carry out is a fault here instead of an error at run time.
    private static func checkActions(of rules: ContentRules, _ reading: inout ConfigurationReading) {
        var seen: Set<TableFault> = []
        for (list, _) in rules.lists {
            for (rule, name) in list.rules(where: { !$0.worksInMilter }) {
                let fault = list.fault(of: rule, "a milter (listen.milter) can't carry out \(name.word)")
                if seen.insert(fault).inserted { reading.add(fault: .init(fault)) }
            }
        }
    }

    /// The commonest rule for headers takes away the host that a user submits mail from, and a milter never sees it.
    private static func warnOfReceived(in rules: ContentRules, _ reading: inout ConfigurationReading) {
        warnOfFirst(\.rulesOnReceived, in: rules, &reading) { _ in
            "Postfix does not show the Received: header that it adds to a milter (listen.milter): this matches only "
                + "those that a message brings; docs/milter.md has the two lines for Postfix"
        }
    }

    /// Only a filter before the queue gets headers such as Bcc.
    private static func warnOfDroppedHeaders(in rules: ContentRules, _ reading: inout ConfigurationReading) {
        warnOfFirst(\.rulesOnDroppedHeaders, in: rules, &reading) { name in
            "Postfix removes \(name): headers from a message before a milter or a filter after the queue gets it "
                + "(message_drop_headers): this matches none of them"
        }
    }

    /// Warns of the first such rule of each table. Some tables have hundreds.
    private static func warnOfFirst(
        _ found: (RuleList) -> [(rule: Int, name: String)], in rules: ContentRules,
        _ reading: inout ConfigurationReading, _ text: (String) -> String
    ) {
        var seen: Set<String> = []
        for list in rules.sets.flatMap({ [$0.header, $0.decodedHeader] }) {
            let tables = Dictionary(grouping: found(list)) { list.location(of: $0.rule).table }
            for (table, rules) in tables where seen.insert(table).inserted {
                let more = rules.count - 1
                let others = more == 0 ? "" : "; the same holds for \(more) more of this table"
                reading.add(warning: .init(list.fault(of: rules[0].rule, text(rules[0].name) + others)))
            }
        }
    }

    /// Only the cleanup(8) of a Postfix behind the filter carries out HOLD and FILTER.
    private static func warnOfLMTP(_ rules: ContentRules, _ reading: inout ConfigurationReading) {
        var seen: Set<TableFault> = []
        for (list, _) in rules.lists {
            for (rule, name) in list.rules(where: { $0 == .hold || $0 == .filter }) {
                let warning = list.fault(
                    of: rule,
                    "an LMTP server (listen.filter[].next_hop) can't carry out \(name.word): such mail is deferred")
                if seen.insert(warning).inserted { reading.add(warning: .init(warning)) }
            }
        }
    }

    /// No two listeners can have the same address or path, and all addresses include each single one.
    private static func checkListeners(
        _ listen: Configuration.Listen, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) {
        var listeners: [(node: YAMLNode, key: String, endpoint: Endpoint)] = []
        for (name, suffix, endpoints) in [
            ("listen.policy", "", listen.policy), ("listen.filter", ".listen", listen.filter.map(\.listen)),
            ("listen.milter", "", listen.milter),
        ] {
            for (index, node) in (found[name]?.items ?? []).enumerated() where index < endpoints.count {
                listeners.append((node, "\(name)[\(index)]\(suffix)", endpoints[index]))
            }
        }
        if let node = found["listen.admin"] { listeners.append((node, "listen.admin", listen.admin)) }
        for (index, (node, key, endpoint)) in listeners.enumerated() {
            let others = listeners[..<index].map(\.endpoint)
            if others.contains(where: { $0.description == endpoint.description }) {
                reading.fault(node, key, "'\(endpoint)' is used by another listener")
            } else if let other = others.first(where: { $0.includes(endpoint) || endpoint.includes($0) }) {
                reading.fault(node, key, "'\(endpoint)' can't be used beside another listener, '\(other)'")
            }
        }
    }

    /// The text without a byte order mark. If it is not UTF-8, nil after a fault for each such line.
    private static func decode(_ bytes: [UInt8], _ reading: inout ConfigurationReading) -> String? {
        let bytes = bytes.starts(with: [0xef, 0xbb, 0xbf]) ? bytes.dropFirst(3) : bytes[...]
        // Half of the bytes of ASCII are zero there.
        if bytes.starts(with: [0xff, 0xfe]) || bytes.starts(with: [0xfe, 0xff]) || bytes.prefix(2).contains(0) {
            let message = "the file is in UTF-16; save it in UTF-8"
            reading.add(fault: .init(file: reading.file, line: 1, column: 1, message: message))
            return nil
        }
        if let text = String(validating: bytes, as: UTF8.self) { return text }
        for (index, line) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated()
        where String(validating: line, as: UTF8.self) == nil {
            let (column, byte) = firstFault(ofUTF8: line)
            reading.add(
                fault: .init(
                    file: reading.file, line: index + 1, column: column,
                    message: "not UTF-8 (byte 0x\(String(byte, radix: 16))); save the file in UTF-8"))
        }
        return nil
    }

    /// Where a line is not UTF-8: in characters from 1, and the byte there.
    private static func firstFault(ofUTF8 line: ArraySlice<UInt8>) -> (column: Int, byte: UInt8) {
        var (decoder, bytes) = (UTF8(), line.makeIterator())
        var (column, length) = (1, 0)
        while case .scalarValue(let scalar) = decoder.decode(&bytes) {
            column += 1
            length += UTF8.width(scalar)
        }
        return (column, line[line.startIndex + length])
    }

    /// The faults of the file in the order of its lines, then those of other files.
    private static func sorted(_ faults: [ConfigurationFault], file: String) -> [ConfigurationFault] {
        let own = faults.filter { $0.file == file }
        let others = faults.filter { $0.file != file }
        return own.enumerated().sorted { one, other in
            (one.element.line ?? 0, one.element.column ?? 0, one.offset)
                < (other.element.line ?? 0, other.element.column ?? 0, other.offset)
        }.map(\.element) + others
    }
}

extension Endpoint {
    /// Whether this one is all addresses of a family, and `other` has the same port and one of them.
    fileprivate func includes(_ other: Endpoint) -> Bool {
        guard case .inet(let all, let port) = self, case .inet(let host, port) = other else { return false }
        return all == "0.0.0.0" && !host.contains(":") || all == "::" && host.contains(":")
    }
}
