// SPDX-License-Identifier: Apache-2.0

/// `N/window`: at most `count` in any interval of the window's length.
package struct Rate: Equatable, Sendable {
    package let count: UInt64
    package let window: Window

    package init(count: UInt64, window: Window) {
        self.count = count
        self.window = window
    }

    /// Reads `100/1m`, `2G/1d`; units of the count are k, M, G (thousands), of the window s, m, h, d, w.
    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let count = Self.amount(parts[0]), let window = Self.duration(parts[1]),
            count <= SlidingWindows.largestAmount, Window.allowed.contains(window)
        else { return nil }
        self.init(count: count, window: Window(milliseconds: window))
    }

    package var description: String { "\(count)/\(Self.text(ofDuration: window.milliseconds))" }

    /// Milliseconds of `90s`, `15m`, `1h`, `7d`, `1w`.
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

    /// Digits only: `UInt64.init` would take a sign.
    private static func number(_ text: some StringProtocol) -> UInt64? {
        text.utf8.allSatisfy { $0 &- UInt8(ascii: "0") < 10 } ? UInt64(text) : nil
    }
}

/// A limit as the operator wrote it, compiled.
package struct Limit: Sendable {
    package enum Count: String, CaseIterable, Sendable {
        case recipients, messages, bytes, connections
    }

    package enum Mode: String, CaseIterable, Sendable {
        case enforce
        /// Counts and logs what it would have done, and refuses nothing.
        case shadow
    }

    /// After `after` refused tries within the longest window, everything of the key is refused for `milliseconds`.
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
    package var count: Count
    package var rates: [Rate]
    package var over: ActionTemplate
    /// The answer to one message that is larger than the whole limit, and so can never pass.
    package var tooLarge: ActionTemplate
    package var mode: Mode
    /// Percent of a rate at which one warning is logged.
    package var warnAt: UInt64
    package var block: Block?
    /// Whether a refused try is charged like an accepted one.
    package var countRefused: Bool
    /// Keys that a table knows are not limited.
    package var exempt: [LookupTable]
    /// Tables whose result is the rates of a key, in place of `rates`.
    package var overrides: [LookupTable]

    package init(
        name: String, conditions: [Condition], key: KeyDefinition, count: Count, rates: [Rate], over: ActionTemplate,
        tooLarge: ActionTemplate, mode: Mode, warnAt: UInt64, block: Block?, countRefused: Bool,
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
        self.countRefused = countRefused
        self.exempt = exempt
        self.overrides = overrides
    }

    var isPerRecipient: Bool {
        key.isPerRecipient || conditions.contains { $0.part.isPerRecipient }
    }

    /// The index of `policy_context`, where the limit looks at it.
    var contextAttribute: Int? {
        (conditions.map(\.part) + key.parts).first { $0.name == "policy_context" }?.attribute
    }

    /// Tells whether counts of another limit of this name mean the same.
    package var signature: String { "\(count.rawValue) by \(key.signature)" }

    func has(_ window: Window) -> Bool {
        rates.contains { $0.window == window }
    }

    /// Rates are never empty: the configuration refuses a limit without one.
    var longestWindow: Window { rates.map(\.window).max { $0.milliseconds < $1.milliseconds }! }
}
