// SPDX-License-Identifier: Apache-2.0
import Foundation
import Limits
import Settings
import Testing

@Suite struct UnmatchedLinesTests {
    /// Values of requests in many forms. Their parts are the lines of tables.
    private static let values = [
        "bob", "Bob@Example.ORG", "carol+news@example.org", "+dave@example.org", "owner-list+x@example.org",
        "erin@mail.example.net.", "<frank@example.org>", "@relay.example:grace@example.org", "a@b@example.org",
        "a|b@example.org", "henry@lan", "mail.example.org", "MAIL.example.org.", "*.example.org", "192.0.2.1",
        "198.51.100.77", "::ffff:192.0.2.9", "2001:db8:0:1::5", "2001:DB8::", "2001:db8:1:2:3:4:5:6", "unknown",
    ]

    private static var lines: [String] {
        var lines: Set<String> = []
        for value in values {
            for text in [value, value + "/24", value + "/64", value + "/32", "x" + value] {
                var rest = text.lowercased()[...]
                lines.insert(String(rest))
                for mark in "@.:+/" {
                    rest = text.lowercased()[...]
                    while let index = rest.lastIndex(of: mark) {
                        lines.formUnion([String(rest[..<index]), String(rest[...index]), String(rest[index...])])
                        lines.insert(String(rest[rest.index(after: index)...]))
                        rest = rest[..<index]
                    }
                }
            }
        }
        return lines.filter { !$0.isEmpty && !$0.hasPrefix("#") }.sorted()
    }

    /// Whether Postfix can send a text as the value of an attribute.
    private static func isPossible(_ value: String, as form: KeyPart.Form) -> Bool {
        switch form {
        case .network: IPAddress(value) != nil
        case .host: !value.contains("@")
        case .address, .domain, .login, .verbatim: true
        }
    }

    private static let forms = [
        "{}", "{ recipient_delimiter: \"+-\" }", "{ default_domain: example.org, recipient_delimiter: \"+\" }",
        "{ ipv4_prefix: 24, ipv6_prefix: 48 }", "{ ipv4_prefix: 20, ipv6_prefix: 128 }",
    ]

    /// A line without a warning may or may not match. A line of which Weir says that it never matches does not match.
    @Test(
        arguments: ["sender", "sasl_username", "recipient_domain", "sasl_domain", "client_name", "client_address"],
        forms)
    func warnsOfNoLineThatMatches(attribute: String, forms: String) throws {
        var names = AttributeNames()
        let part = KeyPart(attribute, in: &names)
        let (lines, keyForms) = try warned(attribute: attribute, forms: forms)
        #expect(lines.count >= 5)
        let values = Self.values.filter { Self.isPossible($0, as: part.form) }
            .compactMap { part.canonical(Array($0.utf8), forms: keyForms) }
        for line in lines {
            let table = LookupTable.text(Array("\(line) OK".utf8)).table
            let found = values.first {
                table.lookup($0, isHost: part.form == .domain || part.form == .host) != nil
            }
            #expect(found == nil, "line '\(line)' matches \(String(decoding: found ?? [], as: UTF8.self))")
        }
    }

    /// The lines that never match, as the reader says, and the forms of keys that it has read. It warns of 20 lines of
    /// a table, so each table has no more.
    private func warned(attribute: String, forms: String) throws -> (lines: [String], keyForms: KeyForms) {
        let folder = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let contents = LookupTable.text(Array(Self.lines.map { $0 + " OK\n" }.joined().utf8))
        let lines = contents.results.map { String(decoding: $0.key, as: UTF8.self) }
        var tables: [String: [String]] = [:]
        for start in stride(from: 0, to: lines.count, by: 20) {
            let path = folder.appending(path: "\(start)").path
            tables[path] = Array(lines[start..<min(start + 20, lines.count)])
            try Data(tables[path]!.map { $0 + " OK\n" }.joined().utf8).write(to: URL(filePath: path))
        }
        let exempt = tables.keys.map { "\"texthash:\($0)\"" }.joined(separator: ", ")
        let yaml = "limits: [{ name: a, key: \(attribute), keys: \(forms), rates: 1/1h, exempt: [\(exempt)] }]"
        let outcome = try ConfigurationReader.read(Array(yaml.utf8), file: "weir.yaml").get()
        let warned = outcome.warnings.filter { $0.message.contains("never matches") }.compactMap { warning in
            tables[warning.file].flatMap { table in warning.line.map { table[$0 - 1] } }
        }
        return (warned, outcome.configuration.limits[0].key.forms)
    }
}
