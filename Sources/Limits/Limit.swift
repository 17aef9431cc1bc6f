// SPDX-License-Identifier: Apache-2.0

/// `N/window`: at most `count` units in any interval of the window's length.
package struct Rate: Equatable, Sendable {
    package let count: UInt64
    package let window: Window

    package init(count: UInt64, window: Window) {
        self.count = count
        self.window = window
    }

    /// Parses `100/1m` or `2G/1d`. The count can have the suffix k, M or G (powers of 1000), the window has s, m, h, d
    /// or w.
    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let count = Self.amount(parts[0]), let window = Self.duration(parts[1]),
            count <= SlidingWindows.largestAmount, Window.allowed.contains(window)
        else { return nil }
        self.init(count: count, window: Window(milliseconds: window))
    }

    package var description: String { "\(count)/\(Self.text(ofDuration: window.milliseconds))" }

    /// Parses `90s`, `15m`, `1h`, `7d` or `1w` into milliseconds.
    package static func duration(_ text: some StringProtocol) -> Int64? {
        scaled(text, units: ["s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000])
            .flatMap { Int64(exactly: $0) }
    }

    package static func text(ofDuration milliseconds: Int64) -> String {
        for (unit, length) in [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)]
            as [(String, Int64)]
        where milliseconds >= length && milliseconds % length == 0 {
            return "\(milliseconds / length)\(unit)"
        }
        return "\(milliseconds / 1000)s"
    }

    private static func amount(_ text: some StringProtocol) -> UInt64? {
        number(text) ?? scaled(text, units: ["k": 1000, "K": 1000, "M": 1_000_000, "G": 1_000_000_000])
    }

    private static func scaled(_ text: some StringProtocol, units: [Character: UInt64]) -> UInt64? {
        guard let unit = text.last.flatMap({ units[$0] }), let number = number(text.dropLast()) else { return nil }
        let (value, overflow) = number.multipliedReportingOverflow(by: unit)
        return overflow ? nil : value
    }

    /// Only digits: `UInt64.init` also accepts a sign.
    private static func number(_ text: some StringProtocol) -> UInt64? {
        text.utf8.allSatisfy { $0 &- UInt8(ascii: "0") < 10 } ? UInt64(text) : nil
    }
}

/// A limit of the configuration, compiled.
package struct Limit: Sendable {
    package enum Mode: String, CaseIterable, Sendable {
        case enforce
        /// Counts and logs, but does not refuse.
        case shadow
    }

    /// After `after` refused requests within the longest window, all requests of the key are refused for
    /// `milliseconds`.
    package struct Block: Equatable, Sendable {
        package var after: UInt64
        package var milliseconds: Int64

        package init(after: UInt64, milliseconds: Int64) {
            self.after = after
            self.milliseconds = milliseconds
        }
    }

    package var name: String
    package var conditions: [Condition]
    package var key: KeyDefinition
    package var count: CountUnit
    package var rates: [Rate]
    package var over: ActionTemplate
    /// The answer to a single message that is larger than the whole limit, and so can never pass.
    package var tooLarge: ActionTemplate
    package var mode: Mode
    /// Percentage of a rate at which one warning is logged.
    package var warnAt: UInt64
    package var block: Block?
    /// The answer to a blocked key.
    package var blockOver: ActionTemplate
    /// Whether blocks that the limit has set stay when a reload raises its rates or removes `block`.
    package var keepsBlocks: Bool
    /// Whether refused requests are charged like accepted ones.
    package var countRefused: Bool
    /// Tables of keys that are not limited.
    package var exempt: [LookupTable]
    /// Tables of keys with other rates, which replace those in `rates` with the same windows.
    package var overrides: [LookupTable]
    /// Whether several hosts hold the limit together (`shared`).
    package var isShared = false

    package init(
        name: String, conditions: [Condition], key: KeyDefinition, count: CountUnit, rates: [Rate],
        over: ActionTemplate,
        tooLarge: ActionTemplate, mode: Mode, warnAt: UInt64, block: Block?,
        blockOver: ActionTemplate, keepsBlocks: Bool, countRefused: Bool,
        exempt: [LookupTable], overrides: [LookupTable]
    ) {
        self.name = name
        self.conditions = conditions
        self.key = key
        self.count = count
        self.rates = rates
        self.over = over
        self.tooLarge = tooLarge
        self.mode = mode
        self.warnAt = warnAt
        self.block = block
        self.blockOver = blockOver
        self.keepsBlocks = keepsBlocks
        self.countRefused = countRefused
        self.exempt = exempt
        self.overrides = overrides
    }

    /// What must be used of `admitted` units for a warning at a percentage of at most 100.
    package static func leastToWarn(of admitted: UInt64, at percent: UInt64) -> UInt64 {
        max(1, admitted / 100 * percent + (admitted % 100 * percent + 99) / 100)
    }

    /// The answer to a request that the limit refuses.
    package func answer(to reason: RefusalReason) -> ActionTemplate {
        switch reason {
        case .over, .noEngine: over
        case .tooLarge: tooLarge
        case .blocked: blockOver
        }
    }

    package var isPerRecipient: Bool {
        key.isPerRecipient || conditions.contains { $0.part.isPerRecipient }
    }

    /// The index of `policy_context`, if the key or a condition uses it.
    var contextAttribute: Int? {
        (conditions.map(\.part) + key.parts).first { $0.name == "policy_context" }?.attribute
    }

    /// Identifies the meaning of the counts. The store keeps it, and discards the counts of a limit whose signature
    /// changed.
    package var signature: String { "\(count.rawValue) by \(key.signature)" }

    func has(_ window: Window) -> Bool {
        rates.contains { $0.window == window }
    }

    /// The configuration rejects a limit without rates, so the maximum exists.
    var longestWindow: Window { rates.map(\.window).max { $0.milliseconds < $1.milliseconds }! }
}
