// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// A Postfix-style table of exceptions: `texthash:` (access(5) lookups) or `cidr:`.
package enum LookupTable: Sendable {
    case text([[UInt8]: String])
    case networks([(network: Network, negated: Bool, result: String)])

    /// A line of a table that can't be taken.
    package struct Fault: Error, Equatable, Sendable {
        package let line: Int
        package let message: String
    }

    /// What stands behind a key or network, and where.
    package struct Result: Equatable, Sendable {
        package let line: Int
        package let text: String
    }

    /// A table as it was read: what could be taken, and what could not.
    package struct Contents: Sendable {
        package let table: LookupTable
        package let results: [Result]
        package let faults: [Fault]
    }

    /// Reads a texthash file: `key white-space result` on each line, as postmap(1) takes it.
    package static func text(_ content: [UInt8]) -> Contents {
        var entries: [[UInt8]: Result] = [:]
        let (results, faults) = read(content, expected: "key result") { key, result throws(Reason) in
            let folded = key.map(CanonicalAddress.asciiLowercased)
            if let first = entries[folded] {
                throw Reason(text: "'\(display(key))' is there already, in line \(first.line)")
            }
            if key.last == UInt8(ascii: ":") { throw Reason(text: "'\(display(key))' ends in ':': keys have none") }
            entries[folded] = result
        }
        return Contents(table: .text(entries.mapValues(\.text)), results: results, faults: faults)
    }

    /// Reads a cidr_table(5) file: `network result` or `!network result` on each line; the first that holds wins.
    package static func networks(_ content: [UInt8]) -> Contents {
        var entries: [(Network, Bool, String)] = []
        let (results, faults) = read(content, expected: "network result") { pattern, result throws(Reason) in
            let text = pattern.drop { $0 == UInt8(ascii: "!") }
            let negated = (pattern.count - text.count) % 2 == 1
            guard let network = Network(text) else {
                let problem =
                    Network.masked(display(text)).map { "has bits behind its prefix; the network is \($0)" }
                    ?? "is no network; expected one such as 192.0.2.0/24 or 2001:db8::/32"
                throw Reason(text: "'\(display(text))' \(problem)")
            }
            entries.append((network, negated, result.text))
        }
        return Contents(table: .networks(entries), results: results, faults: faults)
    }

    private struct Reason: Error {
        let text: String
    }

    /// Takes a table apart, line by line; one that can't be taken keeps none of the others back.
    private static func read(
        _ content: [UInt8], expected: String,
        take: (_ key: ArraySlice<UInt8>, Result) throws(Reason) -> Void
    ) -> (results: [Result], faults: [Fault]) {
        var results: [Result] = []
        var faults: [Fault] = []
        for (number, line) in logicalLines(content) {
            let (key, result) = split(line)
            do throws(Reason) {
                guard !result.isEmpty else {
                    throw Reason(text: "expected '\(expected)', found only '\(display(key))'")
                }
                let taken = Result(line: number, text: display(result))
                try take(key, taken)
                results.append(taken)
            } catch {
                faults.append(Fault(line: number, message: error.text))
            }
        }
        return (results, faults)
    }

    /// The result for an address, host or login: the whole of it first, then ever larger parts, as access(5) does.
    ///
    /// - Parameter isHost: a value without `@` is a domain or host name, which belongs to larger domains.
    package func lookup(_ value: [UInt8], isHost: Bool) -> String? {
        switch self {
        case .networks(let entries):
            guard let address = IPAddress(value.prefix(while: { $0 != UInt8(ascii: "/") })) else { return nil }
            // An entry says nothing about addresses of the other kind, negated or not (Postfix util/cidr_match.c).
            return entries.first {
                $0.network.address.isIPv4 == address.isIPv4 && $0.network.contains(address) != $0.negated
            }?.result
        case .text(let entries):
            return Self.lookupKeys(for: value.map(CanonicalAddress.asciiLowercased), isHost: isHost)
                .lazy.compactMap { entries[$0] }.first
        }
    }

    /// `user@a.b` is looked up as itself, `a.b`, `b`, `user@`; `192.0.2.1` as itself, `192.0.2`, `192.0`, `192`; the key
    /// of a network as itself and its address.
    private static func lookupKeys(for value: [UInt8], isHost: Bool) -> [[UInt8]] {
        var keys = [value]
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

    /// Lines with their continuation lines joined, comments and empty lines left out (Postfix util/readlline.c).
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
