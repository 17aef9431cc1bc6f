// SPDX-License-Identifier: Apache-2.0

/// What a limit counts by.
enum KeyAttribute: String, CaseIterable {
    case user = "sasl_username"
    case sender
    case client = "client_address"
    case recipient
}

/// What a limit counts.
enum Unit: String, CaseIterable {
    case recipients, messages, bytes, connections
}

/// N in any interval of `window` milliseconds.
struct PlannedRate: Equatable {
    var count: Int
    var window: Int64

    var text: String { "\(count)/\(window / 1000)s" }
}

/// A limit as a scenario configures it.
struct LimitPlan: Equatable {
    var name: String
    var key: KeyAttribute
    var count: Unit
    var rates: [PlannedRate]
    /// Whether `over` lets mail pass.
    var warnsOnly = false
    var isShadow = false
    /// The limit applies to requests with this `policy_context`; nil for all.
    var context: String?
    /// Refused requests that block a key, and milliseconds for how long.
    var block: (after: Int, length: Int64)?
    /// Whether its blocks stay when a reload makes it more generous.
    var keepsBlocks = true
    var countsRefused = false
    /// By key.
    var exempt: [String] = []
    var overrides: [(key: String, rates: [PlannedRate])] = []

    static func == (left: LimitPlan, right: LimitPlan) -> Bool { left.yaml(in: "") == right.yaml(in: "") }

    var longestWindow: Int64 { rates.map(\.window).max() ?? 0 }

    /// Whether counts continue under this limit after a reload.
    func continues(_ old: LimitPlan) -> Bool { (name, key, count) == (old.name, old.key, old.count) }

    /// Whether a rate was raised, or a window or `block` removed.
    func isMoreGenerous(than old: LimitPlan) -> Bool {
        if block == nil, old.block != nil { return true }
        return old.rates.contains { rate in
            rates.first { $0.window == rate.window }.map { $0.count > rate.count } ?? true
        }
    }

    /// An item of `limits`.
    ///
    /// - Parameter folder: where the tables are.
    func yaml(in folder: String) -> String {
        var text = "  - name: \(name)\n    key: [\(key.rawValue)]\n    count: \(count.rawValue)\n"
        text += "    rates: [\(rates.map(\.text).joined(separator: ", "))]\n"
        text += "    over: \"\(warnsOnly ? "WARN" : "DEFER_IF_PERMIT 4.7.1") $name $limit $window $retry\"\n"
        text += "    too_large: \"REJECT 5.7.1 $name $limit $window $retry\"\n"
        if isShadow { text += "    mode: shadow\n" }
        if let context { text += "    when: { policy_context: \(context) }\n" }
        let block = block.map { "after: \($0.after), for: \($0.length / 1000)s, " } ?? ""
        text += "    block: { \(block)over: \"REJECT 5.7.2 $name $limit $window $retry\" }\n"
        if keepsBlocks { text += "    keep_blocks: true\n" }
        if countsRefused { text += "    count_refused: true\n" }
        if !exempt.isEmpty { text += "    exempt: [\"texthash:\(folder)/\(name).exempt\"]\n" }
        if !overrides.isEmpty { text += "    overrides: [\"texthash:\(folder)/\(name).overrides\"]\n" }
        return text
    }

    var exemptTable: String { exempt.map { "\($0) OK\n" }.joined() }

    var overridesTable: String {
        overrides.map { "\($0.key) \($0.rates.map(\.text).joined(separator: ","))\n" }.joined()
    }
}
