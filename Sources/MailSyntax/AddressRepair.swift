// SPDX-License-Identifier: Apache-2.0

/// A repair of an address, by its name in weir.yaml; in headers the name begins with `header_`.
package enum AddressRepair: String, CaseIterable, Sendable {
    /// `<@a,@b:user@example.org>`
    case sourceRoute = "source_route"
    /// `<Name <user@example.org>>`
    case phrase
    /// `<user@example.org (comment)>`
    case comment
    /// `user@example.org` and `<<user@example.org>>`
    case brackets
    /// `<user @ example.org>`
    case blanks
    /// `<Group: user@example.org;>`
    case group
    /// `<"user"@example.org>`
    case quotes
    /// `<user@example.org.>`
    case trailingDot = "trailing_dot"
    /// `<user@Example.ORG>`
    case domainCase = "domain_case"
    /// `<user@localhost>` and `<user@[192.0.2.25]>`, if that is the MTA's own address.
    case localDomain = "local_domain"
    /// `<user%example.org>`
    case percentRoute = "percent_route"
    /// `<example.org!user>`
    case bangRoute = "bang_route"
}

/// A set of repairs.
package struct AddressRepairs: OptionSet, Hashable, CustomStringConvertible, Sendable {
    package let rawValue: UInt16

    package init(rawValue: UInt16) { self.rawValue = rawValue }
    package init(_ repairs: [AddressRepair]) { self = repairs.reduce(into: []) { $0.insert($1) } }

    package mutating func insert(_ repair: AddressRepair) { formUnion(Self(rawValue: Self.bit(repair))) }
    package func contains(_ repair: AddressRepair) -> Bool { rawValue & Self.bit(repair) != 0 }

    package var names: [String] { AddressRepair.allCases.filter(contains).map(\.rawValue) }

    /// The names, separated by commas.
    package var description: String { names.joined(separator: ", ") }

    /// The repairs that change which mailbox the MTA sees, where its own name decides.
    package static let needingHostName = AddressRepairs([.localDomain, .percentRoute, .bangRoute])

    /// The repairs that can be made in headers. Phrases, comments and groups belong there, and the filter does not know
    /// the MTA's name.
    package static let inHeaders = AddressRepairs([
        .sourceRoute, .brackets, .blanks, .quotes, .trailingDot, .domainCase,
    ])

    private static func bit(_ repair: AddressRepair) -> UInt16 {
        1 << UInt16(AddressRepair.allCases.firstIndex(of: repair)!)
    }
}

/// Repairs addresses as Sendmail's rulesets do.
package struct AddressRepairer: Sendable {
    package enum Outcome: Equatable, Sendable {
        /// Nothing to repair, or not by the chosen repairs alone.
        case unchanged
        /// The new argument of MAIL or RCPT.
        case repaired([UInt8], AddressRepairs)
        /// It can't be known whom it means; the reason.
        case hopeless(String)
    }

    private let chosen: AddressRepairs
    /// The MTA's name; empty if it is not known.
    package var hostName: [UInt8] = []
    /// The address at which the MTA received the message; empty if it is not known.
    package var hostAddress: [UInt8] = []

    package init(_ chosen: AddressRepairs) { self.chosen = chosen }

    /// - Parameter argument: of MAIL or RCPT. The null reverse-path needs no repair.
    package func repair(_ argument: [UInt8]) -> Outcome {
        let outcome = repairOnce(argument)
        guard case .repaired(let new, let made) = outcome else { return outcome }
        let routes = AddressRepairs([.percentRoute, .bangRoute])
        switch repairOnce(new) {
        case .unchanged: return outcome
        // One route may hide behind another, or behind needless quotes.
        case .repaired(_, let more) where !made.isDisjoint(with: routes) || more.isSubset(of: routes): return outcome
        // A form that needs repair again, such as a literal with an @, was not understood.
        case .repaired, .hopeless: return .unchanged
        }
    }

    private func repairOnce(_ argument: [UInt8]) -> Outcome {
        if Self.isOrdinary(argument) { return .unchanged }
        let (text, depth) = Self.withoutBrackets(argument)
        var needed = AddressRepairs()
        if depth != 1 { needed.insert(.brackets) }
        let route = text.withUnsafeBytes { EnvelopeAddress.routeEnd(of: $0) }
        if route > 0 { needed.insert(.sourceRoute) }
        let tokens = text.withUnsafeBytes { AddressTokens($0[route...]) }
        guard !tokens.isEmpty else { return .unchanged }
        switch Self.mailbox(in: tokens) {
        case .failure(let reason): return .hopeless(reason.text)
        case .success(nil): return .unchanged
        case .success(let range?):
            addNeeded(by: tokens, around: range, argument, to: &needed)
            guard needed.isSubset(of: chosen) else { return .unchanged }
            return rewrite(tokens, range, argument, needed)
        }
    }

    /// Whether an argument needs no repair, as nearly all do not. False also for some others.
    private static func isOrdinary(_ argument: [UInt8]) -> Bool {
        argument.withUnsafeBytes { argument in
            guard EnvelopeAddress.isBracketed(argument) else { return false }
            var (at, dot) = (0, 0)
            for position in 1..<argument.count - 1 {
                let byte = argument[position]
                switch byte {
                case UInt8(ascii: "@"):
                    if at > 0 || position == 1 { return false }
                    at = position
                case UInt8(ascii: "."): dot = position
                case UInt8(ascii: "A")...UInt8(ascii: "Z"): if at > 0 { return false }
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "+"), UInt8(ascii: "="):
                    break
                default: return false
                }
            }
            return at > 0 && dot > at && dot < argument.count - 2
        }
    }

    /// Removes all pairs of brackets around an argument.
    private static func withoutBrackets(_ argument: [UInt8]) -> (text: ArraySlice<UInt8>, depth: Int) {
        var (text, depth) = (argument[...], 0)
        while EnvelopeAddress.isBracketed(text) {
            text = text.dropFirst().dropLast()
            depth += 1
        }
        return (text, depth)
    }

    private struct Hopelessness: Error {
        let text: String
        init(_ text: String) { self.text = text }
    }

    /// The tokens of the only address; nil for forms that are best left to the MTA.
    private static func mailbox(in tokens: AddressTokens) -> Result<Range<Int>?, Hopelessness> {
        let symbols = tokens.tokens.map(\.symbol)
        func count(_ symbol: Unicode.Scalar) -> Int { symbols.count { $0 == UInt8(ascii: symbol) } }
        guard !tokens.isUnterminated, count("<") == count(">"), count(")") == 0, count("]") == 0 else {
            return .failure(.init("unbalanced brackets, quotes or parentheses"))
        }
        let addresses = tokens.addresses(most: 2)
        guard let range = addresses.first else { return .failure(.init("no address")) }
        guard addresses.count == 1 else { return .failure(.init("more than one address")) }
        let ats = range.filter { symbols[$0] == UInt8(ascii: "@") }
        if ats.count > 1 { return .failure(.init("more than one @")) }
        if ats.last == range.upperBound - 1 { return .failure(.init("no domain after the @")) }
        if ats.first == range.lowerBound { return .failure(.init("nothing before the @")) }
        let isClear = range.allSatisfy { symbols[$0] == 0 || "@.%!".utf8.contains(symbols[$0]) }
        return .success(isClear ? range : nil)
    }

    /// Adds the repairs that the form of the argument needs.
    private func addNeeded(
        by tokens: AddressTokens, around range: Range<Int>, _ argument: [UInt8], to needed: inout AddressRepairs
    ) {
        for (index, token) in tokens.tokens.enumerated() where !range.contains(index) {
            switch token.symbol {
            case UInt8(ascii: "<"), UInt8(ascii: ">"): break
            case UInt8(ascii: ":"), UInt8(ascii: ";"), UInt8(ascii: ","): needed.insert(.group)
            default: needed.insert(.phrase)
            }
        }
        if needed.contains(.group) { needed.remove(AddressRepairs([.phrase])) }
        if tokens.hasComments { needed.insert(.comment) }
        let isWrapped = needed.contains(.group) || needed.contains(.phrase)
        if !isWrapped, tokens.tokens.contains(where: { $0.symbol == UInt8(ascii: "<") }) { needed.insert(.brackets) }
        if tokens.hasBlanks, !isWrapped, !tokens.hasComments { needed.insert(.blanks) }
        var external: [UInt8] = []
        EnvelopeAddress.appendExternal(tokens.text(range), to: &external)
        let isQuoted = argument.contains { $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }
        if isQuoted, !isWrapped, external.first != UInt8(ascii: "\"") { needed.insert(.quotes) }
    }

    /// Makes the chosen repairs of the domain, and the new argument.
    private func rewrite(
        _ tokens: AddressTokens, _ range: Range<Int>, _ argument: [UInt8], _ needed: AddressRepairs
    ) -> Outcome {
        var repairs = needed
        let at = tokens.firstIndex(of: "@", in: range)
        var localPart = Array(tokens.text(range.lowerBound..<(at ?? range.upperBound)))
        var domain = at.map { Array(tokens.text($0 + 1..<range.upperBound)) } ?? []
        let local = range.lowerBound..<(at ?? range.upperBound)
        if domain.isEmpty || isOwn(domain) {
            if chosen.contains(.percentRoute), let percent = tokens.lastIndex(of: "%", in: local),
                local.lowerBound < percent, percent + 1 < local.upperBound
            {
                localPart = Array(tokens.text(local.lowerBound..<percent))
                domain = Array(tokens.text(percent + 1..<local.upperBound))
                repairs.insert(.percentRoute)
            } else if chosen.contains(.bangRoute), let bang = tokens.firstIndex(of: "!", in: local),
                local.lowerBound < bang, bang + 1 < local.upperBound
            {
                localPart = Array(tokens.text(bang + 1..<local.upperBound))
                domain = Array(tokens.text(local.lowerBound..<bang))
                repairs.insert(.bangRoute)
            }
        }
        repairDomain(&domain, &repairs)
        guard !repairs.isEmpty else { return .unchanged }
        let address = domain.isEmpty ? localPart : localPart + [UInt8(ascii: "@")] + domain
        let new = EnvelopeAddress.argument(address)
        // A domain that is none would be read otherwise than it was meant.
        guard new != argument, EnvelopeAddress.internalForm(of: new).elementsEqual(address) else { return .unchanged }
        return .repaired(new, repairs)
    }

    private func repairDomain(_ domain: inout [UInt8], _ repairs: inout AddressRepairs) {
        if chosen.contains(.trailingDot) {
            let length = domain.count
            while domain.count > 1, domain.last == UInt8(ascii: ".") { domain.removeLast() }
            if domain.count < length { repairs.insert(.trailingDot) }
        }
        if chosen.contains(.localDomain), !hostName.isEmpty, isOwn(domain), !isHostName(domain) {
            domain = hostName
            repairs.insert(.localDomain)
        }
        if chosen.contains(.domainCase), domain.contains(where: { $0.lowercased != $0 }) {
            domain = domain.map(\.lowercased)
            repairs.insert(.domainCase)
        }
    }

    private func isHostName(_ domain: [UInt8]) -> Bool { EnvelopeAddress.isSame(domain[...], hostName[...]) }

    private func isOwn(_ domain: [UInt8]) -> Bool {
        if domain.equalsIgnoringCase("localhost") || !hostName.isEmpty && isHostName(domain) { return true }
        guard domain.first == UInt8(ascii: "["), domain.last == UInt8(ascii: "]") else { return false }
        var literal = domain.dropFirst().dropLast()
        if literal.prefix(5).equalsIgnoringCase("ipv6:") { literal = literal.dropFirst(5) }
        return literal.elementsEqual("127.0.0.1".utf8) || literal.elementsEqual("::1".utf8)
            || !hostAddress.isEmpty && literal.elementsEqual(hostAddress)
    }
}

extension AddressTokens {
    fileprivate func firstIndex(of symbol: Unicode.Scalar, in range: Range<Int>) -> Int? {
        range.first { tokens[$0].symbol == UInt8(ascii: symbol) }
    }

    fileprivate func lastIndex(of symbol: Unicode.Scalar, in range: Range<Int>) -> Int? {
        range.last { tokens[$0].symbol == UInt8(ascii: symbol) }
    }
}
