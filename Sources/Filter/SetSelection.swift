// SPDX-License-Identifier: Apache-2.0
internal import Limits
package import Patterns

/// What a way in knows of a message before its content, by the names of the attributes of a policy request. An
/// attribute that it does not know has an empty value.
package struct MessageAttributes: Equatable, Sendable {
    private var values: [String: [UInt8]] = [:]

    package init() {}

    /// - Parameter request: lines of a policy request: `name=value`.
    package init(request: [UInt8]) {
        for line in request.split(separator: 0x0a) {
            guard let equals = line.firstIndex(of: UInt8(ascii: "=")) else { continue }
            self[String(decoding: line[..<equals], as: UTF8.self)] = Array(line[(equals + 1)...])
        }
    }

    package subscript(name: String) -> [UInt8] {
        get { values[name] ?? [] }
        set { values[name] = newValue }
    }
}

/// The sets of checks that a message is checked by.
package struct ChosenSets: Equatable, Sendable {
    /// By their indexes, in order.
    package let indexes: [Int]
    /// Sets that do not apply because a condition could not be decided.
    package let notes: [Note]
}

/// Finds the sets of checks for a message. Its recipients may come one after the other.
package struct SetSelection {
    private let rules: ContentRules
    private let attributes: MessageAttributes
    private let scratch: MatchScratch
    private var standings: [Standing] = []
    /// By set: the first condition that could not be decided.
    private var undecided: [Int: UndecidedCondition] = [:]
    private var hasRecipients = false

    /// What is known of a set.
    private struct Standing {
        /// Whether it applies, as far as the recipients are known.
        var applies: Bool
        /// Whether further recipients may change that.
        var isOpen: Bool
        let aboutRecipients: [Condition]
    }

    /// - Parameter scratch: with `Condition.matchLimits`. It may be used for other messages between two calls.
    package init(_ rules: ContentRules, _ attributes: MessageAttributes, _ scratch: MatchScratch) {
        self.rules = rules
        self.attributes = attributes
        self.scratch = scratch
        Self.withAttributes(attributes, recipient: [], of: rules) { known in
            for set in rules.sets {
                let conditions = set.definition.conditions
                let aboutRecipients = conditions.filter(\.part.isPerRecipient)
                let isOpen = hold(conditions.filter { !$0.part.isPerRecipient }, of: set, known)
                standings.append(
                    Standing(
                        applies: isOpen && (aboutRecipients.isEmpty || set.definition.recipients == .all),
                        isOpen: isOpen && !aboutRecipients.isEmpty, aboutRecipients: aboutRecipients))
            }
        }
    }

    /// - Parameter recipient: in its internal form.
    package mutating func add(recipient: [UInt8]) {
        hasRecipients = true
        guard standings.contains(where: \.isOpen) else { return }
        Self.withAttributes(attributes, recipient: recipient, of: rules) { known in
            for set in rules.sets where standings[set.index].isOpen {
                let holds = hold(standings[set.index].aboutRecipients, of: set, known)
                switch set.definition.recipients {
                case .any where holds: (standings[set.index].applies, standings[set.index].isOpen) = (true, false)
                case .all where !holds: (standings[set.index].applies, standings[set.index].isOpen) = (false, false)
                case .any, .all: break
                }
            }
        }
    }

    /// The sets, once all recipients are known. Without any, the recipient is empty, as any attribute is that is not
    /// known.
    package mutating func finish() -> ChosenSets {
        if !hasRecipients { add(recipient: []) }
        let left = rules.sets.filter { !standings[$0.index].applies }
        return ChosenSets(
            indexes: standings.indices.filter { standings[$0].applies },
            notes: left.compactMap { set in
                undecided[set.index].map { .undecidedSet(set.name, attribute: $0.attribute, reason: $0.reason) }
            })
    }

    /// Whether all conditions hold. One that can't be decided does not, as in limits.
    private mutating func hold(_ conditions: [Condition], of set: RuleSet, _ known: Attributes) -> Bool {
        switch hold(conditions, known) {
        case .success(let holds): return holds
        case .failure(let condition):
            undecided[set.index] = undecided[set.index] ?? condition
            return false
        }
    }

    private static func withAttributes(
        _ known: MessageAttributes, recipient: [UInt8], of rules: ContentRules, _ body: (Attributes) -> Void
    ) {
        var bytes: [UInt8] = []
        let ranges = rules.checks.attributeNames.names.map { name in
            let start = bytes.count
            bytes += name == "recipient" ? recipient : known[name]
            return start..<bytes.count
        }
        bytes.withUnsafeBytes { bytes in
            ranges.withUnsafeBufferPointer { body(Attributes(bytes: bytes, ranges: $0)) }
        }
    }

    private func hold(_ conditions: [Condition], _ attributes: Attributes) -> Result<Bool, UndecidedCondition> {
        var value: [UInt8] = []
        do throws(UndecidedCondition) {
            for condition in conditions {
                guard try condition.holds(attributes, scratch: scratch, value: &value) else { return .success(false) }
            }
            return .success(true)
        } catch {
            return .failure(error)
        }
    }
}
