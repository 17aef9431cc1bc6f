// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Foundation
internal import Limits
internal import Rules
internal import Wire

/// The output of `weir check-config`.
package struct ConfigurationReport {
    private let path: String
    private let configuration: Configuration?
    private let faults: [ConfigurationFault]
    private let warnings: [ConfigurationFault]

    package init(_ result: Result<ConfigurationReader.Outcome, ConfigurationFaults>, path: String) {
        self.path = path
        switch result {
        case .success(let outcome):
            (configuration, faults) = (outcome.configuration, [])
            warnings = outcome.warnings + outcome.rules.lint().map(ConfigurationFault.init)
        case .failure(let failure):
            (configuration, faults, warnings) = (nil, failure.all, failure.warnings)
        }
    }

    package var isValid: Bool { configuration != nil }

    /// A line for each fault and warning, then their numbers.
    package func diagnostics(inColour: Bool) -> String {
        func paint(_ text: String, _ code: String) -> String { inColour ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text }
        var lines = faults.map { "\(paint($0.location, "1;31")): \($0.text)" }
        lines += warnings.map { "\(paint($0.location, "1")): \(paint("warning:", "1;33")) \($0.text)" }
        if !isValid {
            lines.append("\(path): rejected: \(Self.count(faults, "error")), \(Self.count(warnings, "warning"))")
        }
        return lines.map { $0 + "\n" }.joined()
    }

    /// One line about a valid configuration; nil for one with faults.
    package var summary: String? {
        let skipped = Set(warnings.filter(\.skipsRule).map(\.location)).count
        let but = skipped == 0 ? "" : skipped == 1 ? ", but 1 rule is skipped" : ", but \(skipped) rules are skipped"
        return configuration.map { "\(path): valid\(but): \($0.summary), \(Self.count(warnings, "warning"))" }
    }

    private static func count(_ items: [ConfigurationFault], _ noun: String) -> String {
        "\(items.count) \(noun)\(items.count == 1 ? "" : "s")"
    }

    /// The report as one JSON object.
    package func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let object = JSON(
            file: path, valid: isValid, faults: faults.map(JSON.Fault.init), warnings: warnings.map(JSON.Fault.init),
            limits: configuration?.limits.map(\.name), policy: configuration?.listen.policy.map(\.description),
            admin: configuration?.listen.admin.description)
        return String(decoding: try encoder.encode(object), as: UTF8.self)
    }

    private struct JSON: Encodable {
        let file: String
        let valid: Bool
        let faults: [Fault]
        let warnings: [Fault]
        let limits: [String]?
        let policy: [String]?
        let admin: String?

        struct Fault: Encodable {
            let file: String
            let line: Int?
            let column: Int?
            let key: String
            let message: String

            init(_ fault: ConfigurationFault) {
                (file, line, column) = (fault.file, fault.line, fault.column)
                (key, message) = (fault.key, fault.message)
            }
        }
    }
}

extension Configuration {
    /// `3 limits, policy on inet:127.0.0.1:10040`
    package var summary: String {
        let names = limits.map(\.name).joined(separator: ", ")
        return "\(limits.count) limit\(limits.count == 1 ? "" : "s")\(names.isEmpty ? "" : " (\(names))")"
            + (listen.policy.isEmpty ? "" : ", policy on " + listen.policy.map(\.description).joined(separator: " "))
            + (listen.milter.isEmpty ? "" : ", milter on " + listen.milter.map(\.description).joined(separator: " "))
            + listen.filter.map { ", filter on \($0.listen) to \($0.nextHop)" }.joined()
            + ", ledger \(ledger.store.path), durability \(ledger.durability.rawValue)"
    }
}
