// SPDX-License-Identifier: Apache-2.0
package import Patterns
internal import MailSyntax

/// One entry of a limit's `when`: a test of an attribute.
package struct Condition: Sendable {
    package indirect enum Test: Sendable {
        case present
        case absent
        /// One of these values, which are in canonical form.
        case equals([[UInt8]])
        case inNetworks([Network])
        case matches(Pattern)
        /// Found in one of the tables with a result other than DUNNO. The first table that has the value decides.
        case inTables([LookupTable])
        case not(Test)
    }

    package let part: KeyPart
    package let test: Test
    /// With full prefix lengths: `keys.ipv4_prefix` and `keys.ipv6_prefix` apply to keys only.
    private let forms: KeyForms

    package init(part: KeyPart, test: Test, forms: KeyForms) {
        self.part = part
        self.test = test
        self.forms = Self.exact(forms)
    }

    /// The forms of values that conditions test.
    package static func exact(_ forms: KeyForms) -> KeyForms {
        var exact = forms
        (exact.ipv4Prefix, exact.ipv6Prefix) = (32, 128)
        return exact
    }

    /// The limits of one match attempt. Values are short, and each request waits for the patterns of all limits, so
    /// the steps are fewer than for header and body checks. Those from one position take a tenth of a millisecond, and
    /// all together about a millisecond.
    package static let matchLimits = MatchLimits(steps: 10_000, stepsOfAll: 100_000)

    /// Whether the condition holds. `value` is scratch space.
    ///
    /// - Throws: if the pattern gives up, so that nobody knows whether the value matches it.
    package func holds(
        _ attributes: Attributes, scratch: MatchScratch, value: inout [UInt8]
    ) throws(UndecidedCondition) -> Bool {
        try holds(test, attributes[part.attribute], scratch: scratch, value: &value)
    }

    private func holds(
        _ test: Test, _ raw: UnsafeRawBufferPointer, scratch: MatchScratch, value: inout [UInt8]
    ) throws(UndecidedCondition) -> Bool {
        switch test {
        case .present where part.form != .domain:
            return !raw.isEmpty
        case .absent where part.form != .domain:
            return raw.isEmpty
        case .not(let inner):
            return try !holds(inner, raw, scratch: scratch, value: &value)
        case .inNetworks(let networks):
            guard let address = IPAddress(raw) else { return false }
            return networks.contains { $0.contains(address) }
        case .matches(let pattern) where part.form != .domain:
            return try decided(pattern.matches(raw, using: scratch))
        case .present, .absent, .equals, .matches, .inTables:
            value.removeAll(keepingCapacity: true)
            let hasValue = append(raw, to: &value)
            switch test {
            case .present: return hasValue
            case .absent: return !hasValue
            case .equals(let values): return values.contains(value)
            case .matches(let pattern): return try decided(pattern.matches(value, using: scratch))
            case .inTables(let tables):
                guard hasValue else { return false }
                for table in tables {
                    if let result = table.lookup(value, isHost: part.isHost) { return !LookupTable.isDunno(result) }
                }
                return false
            case .inNetworks, .not: return false
            }
        }
    }

    private func decided(_ result: MatchResult) throws(UndecidedCondition) -> Bool {
        switch result {
        case .match: return true
        case .noMatch: return false
        case .failed(let code): throw UndecidedCondition(attribute: part.name, code: code)
        }
    }

    /// Appends the canonical value; false if there is none. Unlike a key, a condition can test a client name for
    /// `unknown`.
    private func append(_ raw: UnsafeRawBufferPointer, to value: inout [UInt8]) -> Bool {
        guard part.form == .host else { return part.append(raw, to: &value, forms: forms) }
        value.append(contentsOf: CanonicalAddress.folded(raw))
        return !raw.isEmpty
    }

    /// The canonical form of a value in the configuration, for comparison with those of requests.
    package static func canonical(_ text: String, for part: KeyPart, forms: KeyForms) -> [UInt8] {
        // For a domain part, the configuration has the domain and the request has the whole address.
        if part.isHost { return CanonicalAddress.folded(Array(text.utf8)) }
        return part.canonical(Array(text.utf8), forms: exact(forms)) ?? []
    }
}

/// A pattern gave up on the value of an attribute: it needed more steps or memory than `Condition.matchLimits` allow,
/// or PCRE2 failed for another reason.
package struct UndecidedCondition: Error, Equatable, Sendable {
    package let attribute: String
    /// PCRE2's error code.
    package let code: Int32

    package var reason: String { errorMessage(code) }
}
