// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import MailSyntax

/// A place that uses a table, and the values that are looked up there.
struct TableUse {
    let reference: TableReference
    /// A condition looks up the value of one part.
    let definition: KeyDefinition
    let isCondition: Bool

    init(of reference: TableReference, by definition: KeyDefinition) {
        self.reference = reference
        self.definition = definition
        isCondition = false
    }

    init(of reference: TableReference, by part: KeyPart, _ forms: KeyForms) {
        self.reference = reference
        definition = KeyDefinition(parts: [part], forms: Condition.exact(forms))
        isCondition = true
    }
}

extension ConfigurationReading {
    private static let mostUnmatched = 20

    mutating func note(_ use: TableUse) {
        if let index = tableUses.firstIndex(where: { $0.table == use.reference.name }) {
            tableUses[index].uses.append(use)
        } else {
            tableUses.append((use.reference.name, [use]))
        }
    }

    /// Warns of the lines of tables that match no value of any limit that uses the table. Limits with faults may use
    /// tables that are not known here, so faults prevent these warnings.
    mutating func warnOfUnmatchedLines() {
        guard faults.isEmpty else { return }
        for (name, uses) in tableUses {
            guard let contents = tables[name] else { continue }
            let found = Self.unmatched(in: contents, uses)
            for line in found.prefix(Self.mostUnmatched) {
                add(warning: .init(file: name.path, line: line.number, key: line.key, message: line.message))
            }
            if found.count > Self.mostUnmatched {
                let message = "\(found.count - Self.mostUnmatched) more lines are in vain"
                add(warning: .init(file: name.path, key: found[0].key, message: message))
            }
        }
    }

    private typealias Line = (number: Int, key: String, message: String)

    private static func unmatched(in contents: LookupTable.Contents, _ uses: [TableUse]) -> [Line] {
        switch contents.table {
        case .text:
            let domains = LineDomains(contents.results, uses)
            return contents.results.compactMap { result in
                guard let (use, message) = fault(in: uses, { $0.fault(ofLine: result.key, among: domains) }) else {
                    return nil
                }
                return (result.line, use.reference.key, message)
            }
        case .networks(let entries):
            let uses = uses.filter { $0.definition.parts.contains { $0.form == .network } }
            return zip(entries, contents.results).compactMap { entry, result in
                guard !entry.negated, let (use, message) = fault(in: uses, { $0.fault(ofLine: entry.network) }) else {
                    return nil
                }
                return (result.line, use.reference.key, message)
            }
        }
    }

    /// The fault that the first use finds; nil if any use finds none.
    private static func fault(in uses: [TableUse], _ find: (TableUse) -> String?) -> (use: TableUse, message: String)? {
        var first: (TableUse, String)?
        for use in uses {
            guard let message = find(use) else { return nil }
            first = first ?? (use, message)
        }
        return first
    }
}

/// The top-level domains of `keys.default_domain` and of a table's lines: a line that is one of them is meant as a
/// domain.
private struct LineDomains {
    private var tops: Set<ArraySlice<UInt8>> = []

    init(_ lines: [LookupTable.Result], _ uses: [TableUse]) {
        for domain in uses.map({ [UInt8(ascii: ".")] + $0.definition.forms.defaultDomain }) + lines.map(\.key) {
            let isMark: (UInt8) -> Bool = { $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "@") }
            guard let mark = domain.lastIndex(where: isMark) else { continue }
            tops.insert(domain[(mark + 1)...])
        }
    }

    func contains(_ label: [UInt8]) -> Bool { tops.contains(label[...]) }
}

extension TableUse {
    /// Keys are addresses with `ipv4_prefix` or `ipv6_prefix` applied, so an entry with a longer prefix matches all
    /// addresses of a key, or none.
    fileprivate func fault(ofLine network: Network) -> String? {
        let isIPv4 = network.address.isIPv4
        let length = isIPv4 ? definition.forms.ipv4Prefix : definition.forms.ipv6Prefix
        guard network.prefixLength > length else { return nil }
        let key = "\(Self.text(of: network.address.prefix(length)))/\(length)"
        let reason = "keys.\(isIPv4 ? "ipv4" : "ipv6")_prefix is \(length)"
        return network.address.prefix(length) == network.address
            ? "matches all addresses of \(key), because \(reason)"
            : "never matches, because \(reason); write \(Spelling.quoted(key))"
    }

    /// Why a line of a texthash table matches no value, and what to write instead; nil if it may match.
    ///
    /// A value is looked up as in access(5): see `LookupTable.lookup`.
    fileprivate func fault(ofLine key: [UInt8], among domains: LineDomains) -> String? {
        let parts = definition.parts
        // Beyond ASCII, a line stands for several spellings.
        if key.contains(where: { $0 >= 0x80 }) || parts.count > 1 && mayMatchJoined(key) { return nil }
        var first: String?
        for part in parts {
            let found =
                switch part.form {
                case .verbatim: nil as String?
                case .network: fault(ofAddress: key)
                case .host, .domain: fault(ofName: key, part)
                case .address, .login: fault(ofMailbox: key, part, among: domains)
                }
            guard let found else { return nil }
            first = first ?? found
        }
        return first
    }

    /// Whether a line may match the parts of a key together. What follows the last `@` is looked up as well, and what
    /// precedes it.
    private func mayMatchJoined(_ key: [UInt8]) -> Bool {
        guard key.contains(UInt8(ascii: "|")) else { return false }
        guard let at = key.lastIndex(of: UInt8(ascii: "@")), at < key.count - 1 else { return true }
        return definition.canonical(key)?.map(\.lowercased) == key
    }

    // MARK: Addresses of machines

    private func fault(ofAddress key: [UInt8]) -> String? {
        let text = String(decoding: key, as: UTF8.self)
        let forms = definition.forms
        func length(_ address: IPAddress) -> Int { address.isIPv4 ? forms.ipv4Prefix : forms.ipv6Prefix }
        if let network = Network(key), network.prefixLength < length(network.address) {
            let octets = network.prefixLength / 8
            if network.address.isIPv4, (1...3).contains(octets), network.prefixLength % 8 == 0 {
                let start = Self.text(of: network.address).split(separator: ".").prefix(octets).joined(separator: ".")
                return "never matches; write '\(start)', or the network in a cidr: table"
            }
            return "never matches; write the network in a cidr: table"
        }
        let host = key.prefix { $0 != UInt8(ascii: "/") }
        if let address = IPAddress(host) {
            let cut = address.prefix(length(address))
            let isWhole = length(address) == address.bits
            let canonical = isWhole ? Self.text(of: cut) : "\(Self.text(of: cut))/\(length(address))"
            return text == canonical || text == Self.text(of: cut)
                ? nil : "never matches; write \(Spelling.quoted(canonical))"
        }
        return fault(ofBeginning: key)
    }

    /// The first octets of an IPv4 address, or the first groups of an IPv6 address.
    private func fault(ofBeginning key: [UInt8]) -> String? {
        let text = String(decoding: key, as: UTF8.self)
        let trimmed = text.last == "." ? String(text.dropLast()) : text
        let octets = trimmed.split(separator: ".", omittingEmptySubsequences: false).count
        if !key.contains(UInt8(ascii: ":")), octets <= 4,
            let address = IPAddress(trimmed + String(repeating: ".0", count: 4 - octets))
        {
            let cut = address.prefix(definition.forms.ipv4Prefix)
            if cut != address { return "never matches; write '\(Self.text(of: cut))/\(definition.forms.ipv4Prefix)'" }
            return trimmed == text ? nil : "never matches; write \(Spelling.quoted(trimmed))"
        }
        let groups = text.split(separator: ":", omittingEmptySubsequences: false)
        let areGroups = groups.count <= 8 && groups.allSatisfy { $0.count <= 4 && $0.allSatisfy(\.isHexDigit) }
        return areGroups && !key.isEmpty ? nil : "never matches: it is no IP address"
    }

    private static func text(of address: IPAddress) -> String {
        var text: [UInt8] = []
        address.append(to: &text)
        return String(decoding: text, as: UTF8.self)
    }

    // MARK: Names and mailboxes

    private func fault(ofName key: [UInt8], _ part: KeyPart) -> String? {
        // A client can send any text as its name.
        if part.name == "helo_name" { return nil }
        if let fault = Self.fault(ofWildcard: key) { return fault }
        if let at = key.lastIndex(of: UInt8(ascii: "@")) {
            let domain = Spelling.quoted(String(decoding: key[(at + 1)...], as: UTF8.self))
            if at == 0, key.count > 1 { return "never matches; write \(domain)" }
            return "never matches: the value of '\(part.name)' has no '@'"
        }
        if part.form == .host, !isCondition, key.elementsEqual("unknown".utf8) {
            return "never matches: a client without a name has no key"
        }
        if key.count > 1, key.last == UInt8(ascii: ".") {
            let name = String(decoding: key.dropLast(), as: UTF8.self)
            return "never matches; write \(Spelling.quoted(name))"
        }
        return nil
    }

    private static func fault(ofWildcard key: [UInt8]) -> String? {
        guard key.first == UInt8(ascii: "*") else { return nil }
        let rest = String(decoding: key.dropFirst(), as: UTF8.self)
        if rest.hasPrefix("@"), rest.count > 1 { return "'*' is no wildcard; write '\(rest.dropFirst())'" }
        if rest.hasPrefix("."), rest.count > 1 { return "'*' is no wildcard; write \(Spelling.quoted(rest))" }
        return rest.isEmpty ? "'*' is no wildcard" : nil
    }

    /// The whole address, its domain or a parent of it, or the local part with `@`.
    private func fault(ofMailbox key: [UInt8], _ part: KeyPart, among domains: LineDomains) -> String? {
        if let fault = Self.fault(ofWildcard: key) { return fault }
        guard let at = key.lastIndex(of: UInt8(ascii: "@")) else {
            return fault(ofMailboxWithoutAt: key, part, among: domains)
        }
        if at == 0 {
            let domain = String(decoding: key.dropFirst(), as: UTF8.self)
            return domain.isEmpty ? "never matches" : "never matches; write \(Spelling.quoted(domain))"
        }
        // `local@` matches in any domain.
        let isLocalPart = at == key.count - 1
        let domain = isLocalPart ? [UInt8(ascii: "a")] : []
        guard let canonical = part.canonical(key + domain, forms: definition.forms) else { return nil }
        return Self.fault(of: key, wanting: canonical.map(\.lowercased).dropLast(domain.count))
    }

    private func fault(ofMailboxWithoutAt key: [UInt8], _ part: KeyPart, among domains: LineDomains) -> String? {
        guard let canonical = part.canonical(key, forms: definition.forms) else { return nil }
        let hasDomain = canonical.contains(UInt8(ascii: "@"))
        let isLabel = !key.contains(UInt8(ascii: "."))
        let mayBeDomain = key.last != UInt8(ascii: ".") && key.allSatisfy(Self.isOfDomain)
        if mayBeDomain, !hasDomain || !isLabel || domains.contains(key) { return nil }
        let fault = Self.fault(of: key, wanting: canonical.map(\.lowercased)[...])
        guard hasDomain, mayBeDomain else { return fault }
        // The line could be a top-level domain, but no other line has it.
        return fault.map { _ in
            "matches only as a domain, because logins have one (keys.default_domain); for the login, write "
                + Spelling.quoted(String(decoding: canonical, as: UTF8.self))
        }
    }

    private static func fault(of key: [UInt8], wanting canonical: ArraySlice<UInt8>) -> String? {
        canonical.elementsEqual(key)
            ? nil : "never matches; write \(Spelling.quoted(String(decoding: canonical, as: UTF8.self)))"
    }

    private static func isOfDomain(_ byte: UInt8) -> Bool {
        byte >= 0x80 || byte.isAlphanumeric || "-._:[]".utf8.contains(byte)
    }
}
