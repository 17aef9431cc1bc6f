// SPDX-License-Identifier: Apache-2.0
import Settings

/// What is written from the rows of the configuration: the sample file and the keys of the manual.
enum ConfigurationText {
    /// conf/weir.yaml
    static var sample: String {
        var lines = [
            "# The configuration of Weir. Each key stands here with what holds where it is left out.",
            "# After a change: weir check-config && systemctl reload weir. More is in docs/configuration.md.",
        ]
        var section = ""
        for row in ConfigurationKeys.root {
            let parts = row.path.split(separator: ".").map(String.init)
            if parts[0] != section {
                section = parts[0]
                lines.append("")
                if parts.count > 1 { lines.append("\(section):") }
            }
            let indentation = String(repeating: "  ", count: parts.count - 1)
            lines += comment(row, indentation: indentation)
            if row.path == "limits" {
                lines.append("limits:")
                lines += exampleOfALimit.map { $0.isEmpty ? "#" : "#" + $0 }
                continue
            }
            let mark =
                switch row.absence {
                case .isInherited, .isNothing: "#"
                case .isDefault, .isFault: ""
                }
            lines.append("\(indentation)\(mark)\(parts.last!): \(value(row.absence))")
        }
        return lines.map { $0 + "\n" }.joined()
    }

    /// An item of `limits` with all its keys.
    static var exampleOfALimit: [String] {
        var lines: [String] = []
        var section = ""
        for row in ConfigurationKeys.limit + ConfigurationKeys.limitKeyForms {
            let parts = row.path.split(separator: ".").map(String.init)
            if parts.count > 1, parts[0] != section { lines.append("    \(parts[0]):") }
            section = parts.count > 1 ? parts[0] : ""
            let indentation = String(repeating: "  ", count: parts.count + 1)
            lines += comment(row, indentation: indentation)
            let isFirst = row.path == ConfigurationKeys.limit[0].path
            lines.append((isFirst ? "  - " : indentation) + "\(parts.last!): \(value(row.absence))")
        }
        return lines
    }

    /// The part of docs/configuration.md between its marks.
    static var manual: String {
        let socket = EndpointType.policy.socketKeys
        let admin = EndpointType.admin.socketKeys.first { $0.path == "mode" }!
        return "## All keys\n\n" + ConfigurationKeys.root.map { entry($0, under: "") }.joined()
            + "\nA UNIX socket of `listen.policy` or `listen.admin`, written as a map:\n\n"
            + socket.map { entry($0, under: "") }.joined()
            + "\nUnder `listen.admin`, `mode` is \(quoted(value(admin.absence))) where it is left out.\n"
            + "\nAn item of `listen.filter`:\n\n"
            + ConfigurationKeys.filter.map { entry($0, under: "listen.filter[].") }.joined()
            + "\nA limit:\n\n"
            + (ConfigurationKeys.limit).map { entry($0, under: "limits[].") }.joined()
            + ConfigurationKeys.limitKeyForms.map { entry($0, under: "limits[].") }.joined()
    }

    private static func entry<Root>(_ row: ConfigurationKey<Root>, under prefix: String) -> String {
        let absence =
            switch row.absence {
            case .isDefault(let value): "Default: \(quoted(value))."
            case .isFault(let example): "Has to be there, such as \(quoted(example))."
            case .isNothing(let example): "Left out, there is none; for example \(quoted(example))."
            case .isInherited(let path, _): "Left out: as in \(quoted(path))."
            }
        return "- \(quoted(prefix + row.path)): \(row.summary) Takes \(row.expected). \(absence)\n"
    }

    private static func quoted(_ text: String) -> String { "`\(text)`" }

    private static func value(_ absence: KeyAbsence) -> String {
        switch absence {
        case .isDefault(let value): value
        case .isFault(let example), .isNothing(let example), .isInherited(_, let example): example
        }
    }

    private static func comment<Root>(_ row: ConfigurationKey<Root>, indentation: String) -> [String] {
        let width = 110 - indentation.count
        var lines = [""]
        let absence =
            switch row.absence {
            case .isNothing: " Left out, there is none."
            case .isInherited(let path, _): " Left out: as in \(path)."
            case .isDefault, .isFault: ""
            }
        for word in "\(row.summary) Takes \(row.expected).\(absence)".split(separator: " ") {
            let last = lines[lines.count - 1]
            if last.count + word.count + 1 > width {
                lines.append(String(word))
            } else {
                lines[lines.count - 1] = last.isEmpty ? String(word) : "\(last) \(word)"
            }
        }
        return lines.map { "\(indentation)# \($0)" }
    }
}
