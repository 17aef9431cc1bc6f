// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// A table of exceptions in Postfix's format: `texthash:` with the lookups of access(5), or `cidr:`.
package enum LookupTable: Sendable {
    case text([[UInt8]: String])
    case networks([(network: Network, negated: Bool, result: String)])

    /// A line with a fault.
    package struct Fault: Error, Equatable, Sendable {
        package let line: Int
        package let message: String
    }

    /// The result of a line.
    package struct Result: Equatable, Sendable {
        package let line: Int
        /// Folded, as it is looked up.
        package let key: [UInt8]
        package let text: String
    }

    /// A table without its faulty lines, and their faults.
    package struct Contents: Sendable {
        package let table: LookupTable
        package let results: [Result]
        package let faults: [Fault]
    }

    /// Parses a texthash file: lines `key whitespace result`, as for postmap(1).
    package static func text(_ content: [UInt8]) -> Contents {
        var entries: [[UInt8]: Result] = [:]
        let (results, faults) = read(content, expected: "key result") { key, result throws(Reason) in
            if let first = entries[result.key] {
                throw Reason(text: "duplicate key '\(display(key))', first used in line \(first.line)")
            }
            if key.last == UInt8(ascii: ":"), IPAddress(key) == nil {
                throw Reason(text: "key '\(display(key))' ends in ':'; expected 'key result' without a colon")
            }
            entries[result.key] = result
            if !InternationalText.isASCII(result.key) {
                let withALabels = Self.withALabels(result.key)
                entries[withALabels] = entries[withALabels] ?? result
            }
        }
        return Contents(table: .text(entries.mapValues(\.text)), results: results, faults: faults)
    }

    /// A key whose domains are looked up in A-labels: those of each part of a joined key. A login without a domain
    /// stays a key as it is, too.
    private static func withALabels(_ key: [UInt8]) -> [UInt8] {
        let parts = key.split(separator: UInt8(ascii: "|"), omittingEmptySubsequences: false).map { part in
            let start = part.lastIndex(of: UInt8(ascii: "@")).map { $0 + 1 } ?? part.startIndex
            return part[..<start] + CanonicalAddress.folded(part[start...])
        }
        return Array(parts.joined(separator: [UInt8(ascii: "|")]))
    }

    /// Without distinction of case and, beyond ASCII, of width and composition.
    private static func folded(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        let lowered = bytes.map(\.lowercased)
        return InternationalText.isASCII(lowered) ? lowered : InternationalText.folded(lowered)
    }

    /// Parses a cidr_table(5) file: lines `network result` or `!network result`. The first match wins.
    package static func networks(_ content: [UInt8]) -> Contents {
        var entries: [(Network, Bool, String)] = []
        let (results, faults) = read(content, expected: "network result") { pattern, result throws(Reason) in
            let text = pattern.drop { $0 == UInt8(ascii: "!") }
            let negated = (pattern.count - text.count) % 2 == 1
            guard let network = Network(text) else {
                let problem =
                    Network.masked(display(text)).map { "has bits set after its prefix; did you mean \($0)?" }
                    ?? "is not a network; expected a network, such as 192.0.2.0/24 or 2001:db8::/32"
                throw Reason(text: "'\(display(text))' \(problem)")
            }
            entries.append((network, negated, result.text))
        }
        return Contents(table: .networks(entries), results: results, faults: faults)
    }

    private struct Reason: Error {
        let text: String
    }

    /// Parses each line. A fault in one line does not affect the others.
    private static func read(
        _ content: [UInt8], expected: String,
        add: (_ key: ArraySlice<UInt8>, Result) throws(Reason) -> Void
    ) -> (results: [Result], faults: [Fault]) {
        var results: [Result] = []
        var faults: [Fault] = []
        for (number, line) in logicalLines(content) {
            let (key, result) = split(line)
            do throws(Reason) {
                guard !result.isEmpty else {
                    throw Reason(text: "expected '\(expected)', found only '\(display(key))'")
                }
                let entry = Result(
                    line: number, key: folded(key), text: display(result))
                try add(key, entry)
                results.append(entry)
            } catch {
                faults.append(Fault(line: number, message: error.text))
            }
        }
        return (results, faults)
    }

    /// Looks up the whole value, then its parent domains or networks, as in access(5).
    ///
    /// - Parameter isHost: a value without `@` is a domain or host name, and has parent domains.
    package func lookup(_ value: [UInt8], isHost: Bool) -> String? {
        switch self {
        case .networks(let entries):
            guard let address = IPAddress(value.prefix(while: { $0 != UInt8(ascii: "/") })) else { return nil }
            // An entry never matches addresses of the other family, not even a negated one (Postfix util/cidr_match.c).
            return entries.first {
                $0.network.address.isIPv4 == address.isIPv4 && $0.network.contains(address) != $0.negated
            }?.result
        case .text(let entries):
            let value = value.allSatisfy(Self.isFolded) ? value : Self.folded(value)
            // Most keys are in the table as they are, or in no form at all.
            if let result = entries[value] { return result }
            return Self.parents(of: value, isHost: isHost).lazy.compactMap { entries[$0] }.first
        }
    }

    /// Whether the result says that the table has no opinion, in any case (access(5)).
    static func isDunno(_ result: String) -> Bool {
        result.utf8.elementsEqual("dunno".utf8) { $0.lowercased == $1 }
    }

    private static func isFolded(_ byte: UInt8) -> Bool { byte < 0x80 && byte == byte.lowercased }

    /// For `user@a.b`: `a.b`, `.b`, `b`, `user@`. For `192.0.2.1`: `192.0.2`, `192.0`, `192`. For the key of a network:
    /// its address, then as above.
    private static func parents(of value: [UInt8], isHost: Bool) -> [[UInt8]] {
        var keys: [[UInt8]] = []
        if let at = value.lastIndex(of: UInt8(ascii: "@")) {
            keys += withParents(Array(value[(at + 1)...]))
            keys.append(Array(value[...at]))
        } else if let address = IPAddress(value.prefix(while: { $0 != UInt8(ascii: "/") })) {
            let separator = UInt8(ascii: address.isIPv4 ? "." : ":")
            var rest = value.prefix { $0 != UInt8(ascii: "/") }
            if rest.count < value.count { keys.append(Array(rest)) }
            while let cut = rest.lastIndex(of: separator) {
                rest = rest[..<cut]
                if rest.last != separator, !rest.isEmpty { keys.append(Array(rest)) }
            }
        } else if isHost {
            keys += withParents(value).dropFirst()
        }
        return keys
    }

    private static func withParents(_ domain: [UInt8]) -> [[UInt8]] {
        var domains = [domain]
        var rest = domain[...]
        while let dot = rest.firstIndex(of: UInt8(ascii: ".")) {
            rest = rest[(dot + 1)...]
            if !rest.isEmpty {
                domains.append([UInt8(ascii: ".")] + rest)
                domains.append(Array(rest))
            }
        }
        return domains
    }

    /// Lines joined with their continuation lines, without comments and empty lines (Postfix util/readlline.c).
    private static func logicalLines(_ content: [UInt8]) -> [(number: Int, line: [UInt8])] {
        var lines: [(Int, [UInt8])] = []
        for (index, line) in content.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated()
        {
            guard let first = line.first(where: { !isBlank($0) }), first != UInt8(ascii: "#") else { continue }
            if isBlank(line[line.startIndex]), !lines.isEmpty {
                lines[lines.count - 1].1 += line
            } else {
                lines.append((index + 1, Array(line)))
            }
        }
        return lines
    }

    private static func split(_ line: [UInt8]) -> (key: ArraySlice<UInt8>, result: ArraySlice<UInt8>) {
        let line = line.drop(while: isBlank)
        let end = line.firstIndex(where: isBlank) ?? line.endIndex
        var result = line[end...].drop(while: isBlank)
        while let last = result.last, isBlank(last) { result.removeLast() }
        return (line[..<end], result)
    }

    private static func isBlank(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: " ") || 9...13 ~= byte
    }

    private static func display(_ bytes: some Sequence<UInt8>) -> String {
        String(decoding: Array(bytes), as: UTF8.self)
    }
}
