// SPDX-License-Identifier: Apache-2.0
internal import Limits

/// Other people's limits, as Weir's.
package struct ImportedLimits: Sendable {
    /// What could not be turned into a limit, or means something else here.
    package struct Remark: Sendable, Equatable {
        package let line: Int
        package let text: String
    }

    struct Limit: Sendable {
        var name: String
        /// Where it comes from.
        var line: Int
        /// Attributes, and tests as YAML.
        var when: [(attribute: String, test: String)]
        var key: String
        var count: CountUnit
        var rate: String
        var over: String?
        /// Other lines of the limit, as YAML.
        var others: [String] = []
    }

    var limits: [Limit] = []
    /// Not turned.
    package internal(set) var leftOut: [Remark] = []
    /// Turned, and worth knowing.
    package internal(set) var notes: [Remark] = []

    /// As part of weir.yaml.
    ///
    /// - Parameter file: that they come from.
    package func yaml(from file: String) -> String {
        var lines = [
            "# Made of \(file). Read it before use: weir check-config --config THIS",
            "limits:\(limits.isEmpty ? " []" : "")",
        ]
        for limit in limits {
            lines.append("  # line \(limit.line)")
            lines.append("  - name: \(limit.name)")
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

    /// A name that no limit has yet, of what a rule is called.
    func freeName(_ wanted: String) -> String {
        let base = String(
            wanted.map { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) ? $0 : "-" }.prefix(56))
        var name = base.isEmpty ? "limit" : base
        var number = 2
        while limits.contains(where: { $0.name == name }) {
            name = "\(base)-\(number)"
            number += 1
        }
        return name
    }

    /// A YAML string.
    static func quoted(_ text: String) -> String {
        "\"\(text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\t", with: "\\t"))\""
    }
}
