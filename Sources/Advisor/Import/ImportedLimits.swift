// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Settings

/// Limits of another program, converted to Weir's.
package struct ImportedLimits: Sendable {
    /// A rule or parameter that could not be converted, or whose meaning changes.
    package struct Remark: Sendable, Equatable {
        package let line: Int
        package let text: String
    }

    struct Limit: Sendable {
        var name: String
        /// The line it was converted from.
        var line: Int
        /// Attributes and tests in YAML.
        var when: [(attribute: String, test: String)]
        var key: String
        var count: CountUnit
        var rate: String
        var over: String?
        /// Further lines of the limit in YAML.
        var others: [String] = []
    }

    private(set) var limits: [Limit] = []
    /// For each name that is used, the number that makes another one of it.
    private var nextNumbers: [String: Int] = [:]
    /// What was not converted.
    package internal(set) var leftOut: [Remark] = []
    /// What was converted with a change of meaning.
    package internal(set) var notes: [Remark] = []

    /// The limits section of a weir.yaml.
    ///
    /// - Parameter file: the name of the converted file.
    package func yaml(from file: String) -> String {
        var lines = [
            "# Converted from \(file). Review it, then run: weir check-config --config FILE",
            "limits:\(limits.isEmpty ? " []" : "")",
        ]
        for limit in limits {
            lines.append("  # line \(limit.line)")
            lines.append("  - name: \(limit.name.lowercased() == "null" ? Self.quoted(limit.name) : limit.name)")
            if !limit.when.isEmpty {
                lines.append("    when:")
                for (attribute, test) in limit.when { lines.append("      \(attribute): \(test)") }
            }
            lines += ["    key: [\(limit.key)]", "    count: \(limit.count.rawValue)", "    rates: [\(limit.rate)]"]
            if let over = limit.over { lines.append("    over: \(Self.quoted(over))") }
            lines += limit.others.map { "    \($0)" }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// The first error that `weir check-config` reports for a limit.
    static func fault(of limit: Limit) -> String? {
        var alone = ImportedLimits()
        alone.append(limit)
        guard case .failure(let faults) = ConfigurationReader.read(Array(alone.yaml(from: "").utf8), file: "") else {
            return nil
        }
        return faults.all.first?.message
    }

    /// The name of a rule as that of a limit.
    static func name(ofRule rule: String) -> String {
        let plain = rule.map { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) ? $0 : "-" }
        // What begins with a sign, YAML may take for something else.
        let base = String(plain.drop { "-_.".contains($0) }.prefix(56))
        return base.isEmpty ? "limit" : base
    }

    /// Adds a limit, with a number behind its name if that is used.
    mutating func append(_ limit: Limit) {
        var limit = limit
        let base = limit.name
        if var number = nextNumbers[base] {
            repeat {
                limit.name = "\(base)-\(number)"
                number += 1
            } while nextNumbers[limit.name] != nil
            nextNumbers[base] = number
        }
        nextNumbers[limit.name] = 2
        limits.append(limit)
    }

    /// A YAML string.
    static func quoted(_ text: String) -> String {
        "\"\(text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\t", with: "\\t"))\""
    }
}
