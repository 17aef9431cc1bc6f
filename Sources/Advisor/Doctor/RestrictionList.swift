// SPDX-License-Identifier: Apache-2.0

/// A list such as smtpd_recipient_restrictions, with elements such as `permit_mynetworks` and
/// `check_policy_service inet:...`.
struct RestrictionList {
    struct Element {
        /// With its argument.
        var text: String
        /// In lower case: smtpd does not tell cases apart.
        var name: String { text.prefix { $0 != " " }.lowercased() }
        var argument: String { text.dropFirst(name.count).trimmed }
    }

    var elements: [Element]

    init(_ text: String) {
        elements = []
        var words = Self.words(text)[...]
        while let word = words.popFirst() {
            if Self.takesArgument(word), let argument = words.popFirst() {
                elements.append(Element(text: "\(word) \(argument)"))
            } else {
                elements.append(Element(text: word))
            }
        }
    }

    /// Splits at separators; text in braces is one word.
    static func words(_ text: some StringProtocol, separators: String = ", \t") -> [String] {
        var words: [String] = []
        var rest = Substring(text)
        while true {
            rest = rest.drop { separators.contains($0) }
            guard let first = rest.first else { return words }
            if first == "{", let (inner, after) = PostfixSetup.enclosed(rest, "{", "}") {
                words.append("{\(inner)}")
                rest = after
            } else {
                let word = Self.plainWord(rest, separators)
                words.append(String(word))
                rest = rest.dropFirst(word.count)
            }
        }
    }

    /// Separators within braces and parentheses, as in `${name}`, don't end the word.
    private static func plainWord(_ text: Substring, _ separators: String) -> Substring {
        var depth = 0
        for index in text.indices {
            switch text[index] {
            case "{", "(": depth += 1
            case "}", ")": depth -= 1
            case let character where depth <= 0 && separators.contains(character): return text[..<index]
            default: break
            }
        }
        return text
    }

    private static func takesArgument(_ text: String) -> Bool {
        let word = text.lowercased()
        return ["check_", "reject_rbl", "reject_rhsbl", "permit_dnswl", "permit_rhswl"].contains { word.hasPrefix($0) }
            || word == "sleep"
    }

    /// Restrictions that permit a site's own users and hosts, and so end the list for them.
    static let permits: Set<String> = [
        "permit", "permit_mynetworks", "permit_sasl_authenticated", "permit_tls_clientcerts",
        "permit_tls_all_clientcerts", "permit_auth_destination",
        "permit_inet_interfaces", "permit_naked_ip_address",
    ]
    /// Restrictions that refuse everything, and so end the list for all.
    static let refusals: Set<String> = ["reject", "defer"]
    /// Makes a refusal of the next restriction a line of the log.
    static let warning = "warn_if_reject"

    /// The first restriction that ends the list for the site's own users and hosts, or for all. A refusal of which
    /// smtpd only warns is none.
    static func end(of elements: ArraySlice<Element>) -> String? {
        let index = elements.indices.first { index in
            let name = elements[index].name
            let isWarned = index > elements.startIndex && elements[index - 1].name == warning
            return permits.contains(name) || refusals.contains(name) && !isWarned
        }
        return index.map { elements[$0].name }
    }
}

/// A server in a Postfix parameter, with its attributes: `{ inet:127.0.0.1:10040, timeout=10s }`.
struct ServerReference {
    let address: String
    let attributes: [String: String]

    init(_ text: String) {
        let inner = text.first == "{" ? String(text.dropFirst().dropLast()) : text
        let words = RestrictionList.words(inner)
        address = words.first ?? ""
        var attributes: [String: String] = [:]
        for word in words.dropFirst() {
            // Also accepts `{ name = value }`.
            let pair = word.first == "{" ? String(word.dropFirst().dropLast()) : word
            guard let equals = pair.firstIndex(of: "=") else { continue }
            attributes[pair[..<equals].trimmed] = pair[pair.index(after: equals)...].trimmed
        }
        self.attributes = attributes
    }
}
