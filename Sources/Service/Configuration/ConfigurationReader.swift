// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import Glibc
internal import Rules

/// Reads weir.yaml into a `Configuration`, or says all that is wrong with it.
///
/// Reading changes nothing: no socket, no store and no log is touched. Files that the configuration names are read, so
/// that their faults are found here too, and what comes out depends on no file any more.
package enum ConfigurationReader {
    /// What was read, and what the operator should know all the same.
    package struct Outcome: Sendable {
        package let configuration: Configuration
        /// The tables of `checks`, compiled.
        package let rules: ContentRules
        package let warnings: [ConfigurationFault]
    }

    private static let largest = 1 << 20

    package static func read(path: String) -> Result<Outcome, ConfigurationFaults> {
        switch BoundedFile.read(path, upTo: largest) {
        case .success(let bytes):
            return read(bytes, file: path)
        case .failure(let failure):
            let fault = ConfigurationFault(file: path, message: "can't be read: \(failure.description)")
            return .failure(ConfigurationFaults(all: [fault], warnings: [], readable: Configuration()))
        }
    }

    /// - Parameter file: what faults call the file.
    package static func read(_ bytes: [UInt8], file: String) -> Result<Outcome, ConfigurationFaults> {
        var reading = ConfigurationReading(file: file)
        var configuration = Configuration()
        if let text = decode(bytes, &reading) {
            let document = YAMLDocument(text)
            for fault in document.faults {
                reading.add(fault: .init(file: file, line: fault.line, column: fault.column, message: fault.message))
            }
            if let root = document.root {
                let found = reading.read(root, at: "", rows: ConfigurationKeys.root, into: &configuration)
                checkListeners(configuration.listen, found, &reading)
                for (key, program) in [
                    ("alerts.webhook", configuration.alerts.webhook.map { _ in Webhook.program }),
                    ("alerts.command", configuration.alerts.command),
                    ("alerts.sendmail", configuration.alerts.sendmail),
                ] {
                    guard let node = found[key], let program, access(program, X_OK) != 0 else { continue }
                    reading.warn(node, key, "\(program) can't be run: \(String(cString: strerror(errno)))")
                }
                let isUsed = !configuration.listen.filter.isEmpty || !configuration.listen.milter.isEmpty
                for name in ["header", "mime_header", "nested_header", "body"] {
                    guard let node = found["checks.\(name)"], !node.items.isEmpty, !isUsed else { continue }
                    reading.warn(
                        node, "checks.\(name)",
                        "there is no listen.milter or listen.filter: only `weir check` and `weir filter` use it")
                }
            }
        }
        configuration.attributeNames = reading.attributeNames
        let rules = compile(configuration.checks, &reading)
        if !configuration.listen.milter.isEmpty, let rules { checkActions(of: rules, &reading) }
        if reading.faults.isEmpty, configuration.limits.isEmpty {
            reading.add(warning: .init(file: file, message: "there are no limits: every request is answered DUNNO"))
        }
        let warnings = sorted(reading.warnings, file: file)
        guard reading.faults.isEmpty, let rules else {
            return .failure(
                ConfigurationFaults(
                    all: sorted(reading.faults, file: file), warnings: warnings, readable: configuration))
        }
        return .success(Outcome(configuration: configuration, rules: rules, warnings: warnings))
    }

    /// Faults and warnings name the table and its lines.
    private static func compile(_ checks: ContentChecks, _ reading: inout ConfigurationReading) -> ContentRules? {
        do {
            let rules = try ContentRules(checks)
            for warning in rules.warnings { reading.add(warning: .init(warning)) }
            return rules
        } catch {
            for fault in error.faults { reading.add(fault: .init(fault)) }
            for warning in error.warnings { reading.add(warning: .init(warning)) }
            return nil
        }
    }

    /// Refuses rules whose action a milter can't carry out.
    private static func checkActions(of rules: ContentRules, _ reading: inout ConfigurationReading) {
        var seen: Set<TableFault> = []
        for (list, _) in rules.lists {
            for (rule, name) in list.rules(where: { !$0.isPossibleInMilter }) {
                let fault = list.fault(of: rule, "\(name.word) can't be carried out by a milter (listen.milter)")
                if seen.insert(fault).inserted { reading.add(fault: .init(fault)) }
            }
        }
    }

    /// Each address and each path can be listened on once.
    private static func checkListeners(
        _ listen: Configuration.Listen, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) {
        let policy = found["listen.policy"]?.items ?? []
        guard policy.count == listen.policy.count else { return }
        for (index, item) in policy.enumerated()
        where listen.policy[..<index].contains(where: { $0.description == listen.policy[index].description }) {
            reading.fault(item, "listen.policy[\(index)]", "'\(listen.policy[index])' is there already")
        }
        var taken = listen.policy.map(\.description)
        for (index, item) in (found["listen.filter"]?.items ?? []).enumerated() where index < listen.filter.count {
            let own = listen.filter[index].listen.description
            if taken.contains(own) {
                reading.fault(item, "listen.filter[\(index)].listen", "'\(own)' is there already")
            }
            taken.append(own)
        }
        for (index, item) in (found["listen.milter"]?.items ?? []).enumerated() where index < listen.milter.count {
            let own = listen.milter[index].description
            if taken.contains(own) { reading.fault(item, "listen.milter[\(index)]", "'\(own)' is there already") }
            taken.append(own)
        }
        if let admin = found["listen.admin"], taken.contains(listen.admin.description) {
            reading.fault(admin, "listen.admin", "'\(listen.admin)' is another listener already")
        }
    }

    /// The text without its byte order mark; nil, and a fault for each line, where it is not UTF-8.
    private static func decode(_ bytes: [UInt8], _ reading: inout ConfigurationReading) -> String? {
        let bytes = bytes.starts(with: [0xef, 0xbb, 0xbf]) ? bytes.dropFirst(3) : bytes[...]
        if let text = String(validating: bytes, as: UTF8.self) { return text }
        for (index, line) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated()
        where String(validating: line, as: UTF8.self) == nil {
            reading.add(fault: .init(file: reading.file, line: index + 1, message: "is not UTF-8"))
        }
        return nil
    }

    /// In the order of the file; what other files say comes after it.
    private static func sorted(_ faults: [ConfigurationFault], file: String) -> [ConfigurationFault] {
        let own = faults.filter { $0.file == file }
        let others = faults.filter { $0.file != file }
        return own.enumerated().sorted { one, other in
            (one.element.line ?? 0, one.element.column ?? 0, one.offset)
                < (other.element.line ?? 0, other.element.column ?? 0, other.offset)
        }.map(\.element) + others
    }
}

extension ConfigurationFault {
    /// What is wrong with a table of header or body checks.
    init(_ fault: TableFault) {
        self.init(file: fault.path, line: fault.line, key: "checks", message: fault.message)
    }
}
