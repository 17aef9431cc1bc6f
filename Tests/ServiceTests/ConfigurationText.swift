// SPDX-License-Identifier: Apache-2.0
import Limits
import Settings

/// Generates files from the rows of the configuration: the sample, and parts of the manual.
enum ConfigurationText {
    /// conf/weir.yaml
    static var sample: String {
        var lines = [
            "# Configuration of Weir. Every key is here with its default.",
            "# After a change: weir check-config && systemctl reload weir. See docs/configuration.md.",
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

    /// An item of `limits` with all keys.
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

    /// The generated part of docs/configuration.md, between two marks.
    static var manual: String {
        let socket = EndpointType.policy.socketKeys
        let admin = EndpointType.admin.socketKeys.first { $0.path == "mode" }!
        return "## All keys\n\n" + ConfigurationKeys.root.map { entry($0, under: "") }.joined()
            + "\nA UNIX socket that is written as a map:\n\n"
            + socket.map { entry($0, under: "") }.joined()
            + "\nFor `listen.admin`, the default of `mode` is \(quoted(value(admin.absence))).\n"
            + "\nKeys of each item of `listen.filter`:\n\n"
            + ConfigurationKeys.filter.map { entry($0, under: "listen.filter[].") }.joined()
            + "\nKeys of each item of `limits`:\n\n"
            + (ConfigurationKeys.limit).map { entry($0, under: "limits[].") }.joined()
            + ConfigurationKeys.limitKeyForms.map { entry($0, under: "limits[].") }.joined()
            + "\nKeys of each item of `checks.sets`:\n\n"
            + ConfigurationKeys.checkSet.map { entry($0, under: "checks.sets[].") }.joined()
    }

    /// The units in docs/limits.md.
    static var units: String {
        CountUnit.allCases.map { "- \(quoted($0.rawValue)): \($0.summary). \($0.requirement)\n" }.joined()
    }

    /// The table in docs/limits.md that shows which request charges how much.
    static var charges: String {
        let rows: [(name: String, states: [ProtocolState])] = [
            ("CONNECT, HELO, EHLO, MAIL, VRFY, ETRN", [.connect, .helo, .mail, .vrfy, .etrn]),
            ("RCPT", [.rcpt]), ("DATA", [.data]), ("END-OF-MESSAGE", [.endOfMessage]),
        ]
        func line(_ cells: [String]) -> String { "| \(cells.joined(separator: " | ")) |\n" }
        let units = CountUnit.allCases
        return line(["state of the request"] + units.map { quoted($0.rawValue) })
            + line(["---"] + units.map { _ in "---" })
            + rows.map { row in
                line(
                    [row.name]
                        + units.map { unit in
                            Set(row.states.map { unit.charge(in: $0).summary }).sorted().joined(separator: " or ")
                        })
            }.joined()
    }

    private static func entry<Root>(_ row: ConfigurationKey<Root>, under prefix: String) -> String {
        let absence =
            switch row.absence {
            case .isDefault(let value): "Default: \(quoted(value))."
            case .isFault(let example): "Required; example: \(quoted(example))."
            case .isNothing(let example): "Default: none; example: \(quoted(example))."
            case .isInherited(let path, _): "Default: the value of \(quoted(path))."
            }
        return "- \(quoted(prefix + row.path)): \(row.summary) Value: \(row.expected). \(absence)\n"
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
            case .isNothing: " Default: none."
            case .isInherited(let path, _): " Default: the value of \(path)."
            case .isDefault, .isFault: ""
            }
        for word in "\(row.summary) Value: \(row.expected).\(absence)".split(separator: " ") {
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
