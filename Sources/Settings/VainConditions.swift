// SPDX-License-Identifier: Apache-2.0
internal import Limits

/// Finds conditions that no request meets, or under which nothing is counted. They are valid, but what depends on them
/// never happens, and nothing else would say so.
enum VainConditions {
    /// What was probably meant by a value that `when` compares an attribute with; nil if requests may have the value.
    ///
    /// - Parameter isInList: the value stands for itself, so it is no test.
    static func remark(onValue text: String, of part: KeyPart, isInList: Bool) -> String? {
        let quoted = Spelling.quoted(text)
        // Postfix sends stress=yes.
        if !isInList, part.name != "stress", let test = tests[text.lowercased()] {
            return "\(quoted) is compared as a value; did you mean '\(test)'?"
        }
        if isPattern(text) { return "\(quoted) is compared as a value; for a pattern, write { matches: ... }" }
        switch part.form {
        case .network, .verbatim: return nil
        case .host where part.name == "helo_name": return nil
        case .host, .domain:
            if text.contains("@") { return "the value of '\(part.name)' has no '@'" }
            let isPart = text.hasPrefix("*") || text.hasPrefix(".")
            return isPart ? "\(quoted) is compared as a whole name; use 'matches' or 'table' for other names" : nil
        case .address, .login:
            // A client may write an address of this machine without a domain.
            let isDomain = part.form == .address && !text.contains("@") && text.contains(".")
            guard text.hasPrefix("*") || text.hasPrefix("@") || isDomain else { return nil }
            let hint = domains[part.name].map { "; for a domain, test '\($0)'" } ?? ""
            return "\(quoted) is compared as a whole address\(hint)"
        }
    }

    private static let tests = [
        "true": "present", "yes": "present", "on": "present", "*": "present", "false": "absent", "no": "absent",
        "off": "absent",
    ]
    private static let domains = [
        "sender": "sender_domain", "recipient": "recipient_domain", "sasl_username": "sasl_domain",
    ]

    /// Whether a text is written as a pattern: `/text/flags`.
    private static func isPattern(_ text: String) -> Bool {
        guard text.hasPrefix("/"), let end = text.lastIndex(of: "/") else { return false }
        return text.distance(from: text.startIndex, to: end) > 1
            && text[end...].dropFirst().allSatisfy { "imsxAEU".contains($0) }
    }

    /// Why a limit with these conditions counts nothing, or not what it says.
    static func remarks(onLimitOf count: CountUnit, _ key: [KeyPart], _ conditions: [Condition]) -> [String] {
        var remarks: [String] = []
        for condition in conditions where condition.test.passesOnlyEmpty {
            let name = condition.part.name
            if key.contains(where: { $0.needs(condition.part) }) {
                remarks.append("a request without '\(name)' has no key, so this limit never counts")
            }
        }
        let ofState = conditions.filter { $0.part.name == "protocol_state" }
        let states = PolicyAttributes.states.filter { state in ofState.allSatisfy { $0.test.admits(state) ?? true } }
        // An unknown state has a warning of its own.
        guard !ofState.isEmpty, !states.isEmpty else { return remarks }
        if !states.contains(where: count.isCounted) {
            let needed = PolicyAttributes.states.filter(count.isCounted).joined(separator: ", ")
            remarks.append(
                "'count: \(count.rawValue)' counts nothing in these states, so this limit never counts; expected at "
                    + "least one of \(needed)")
        } else if count == .bytes, !states.contains("END-OF-MESSAGE") {
            remarks.append("without END-OF-MESSAGE, 'count: bytes' counts only the size that the client declares")
        } else if !states.contains("RCPT"), (key + conditions.map(\.part)).contains(where: \.isPerRecipient) {
            remarks.append("without RCPT, Postfix names the recipient only of messages with a single one")
        }
        return remarks
    }
}

extension KeyPart {
    /// Whether a value of this part needs one of `other`.
    fileprivate func needs(_ other: KeyPart) -> Bool {
        self == other || form == .domain && attribute == other.attribute
    }
}

extension CountUnit {
    /// Whether a request in the state of this name charges something.
    fileprivate func isCounted(in state: String) -> Bool {
        let state = Array(state.utf8).withUnsafeBytes { ProtocolState($0) }
        if case .nothing = charge(in: state) { return false }
        return true
    }
}

extension Condition.Test {
    /// Whether no value passes but the empty one.
    fileprivate var passesOnlyEmpty: Bool {
        switch self {
        case .absent, .not(.present): true
        case .not(.not(let test)): test.passesOnlyEmpty
        case .present, .equals, .inNetworks, .matches, .inTables, .not: false
        }
    }

    /// Whether a value that is not empty passes; nil if that takes a pattern or a table.
    fileprivate func admits(_ value: String) -> Bool? {
        switch self {
        case .present: true
        case .absent: false
        case .equals(let values): values.contains(Array(value.utf8))
        case .not(let test): test.admits(value).map { !$0 }
        case .inNetworks, .matches, .inTables: nil
        }
    }
}
