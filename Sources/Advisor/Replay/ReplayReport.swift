// SPDX-License-Identifier: Apache-2.0
import Limits

/// What the limits of a configuration would have done to the mail of a log. Times are milliseconds since 1970, in the zone of the log.
package struct ReplayReport: Codable, Sendable {
    package let log: LogFigures
    package let limits: [LimitReplay]
    /// Names of limits that ask for what no log tells.
    package let limitsLeftOut: [String]
}

/// A key that was refused.
package struct KeyRefusals: Codable, Sendable {
    package let key: String
    /// Of the first refusal.
    package let first: Int64
    package let reason: String
    package internal(set) var refused = 0
}

package struct LimitReplay: Codable, Sendable {
    package let name: String
    package let mode: String
    /// `recipients`, ...
    package let count: String
    package let keys: Int
    package let counted: UInt64
    /// Requests that were refused, or would have been in shadow mode.
    package let refused: Int
    package let keysRefused: Int
    /// Most refusals first, at most `mostKeys`.
    package let refusals: [KeyRefusals]
    package let windows: [WindowReplay]

    static let mostKeys = 50

    init(_ course: UsageCourse, refusals: [KeyRefusals]) {
        name = course.limit.name
        mode = course.limit.mode.rawValue
        count = course.limit.count.rawValue
        keys = course.keys.count
        counted = course.counted
        refused = refusals.reduce(0) { $0 + $1.refused }
        keysRefused = refusals.count
        self.refusals = Array(refusals.prefix(Self.mostKeys))
        windows = course.limit.rates.indices.map { WindowReplay(course, lane: $0) }
    }
}

/// How much the keys of a limit used at most of one of its windows, if nothing had been refused.
package struct WindowReplay: Codable, Sendable {
    package struct Key: Codable, Sendable, Equatable {
        package let key: String
        package let peak: UInt64
        /// When that was.
        package let at: Int64
    }

    /// As configured: `100/1m`.
    package let rate: String
    package let window: String
    /// The peaks of all keys: half of them have no more than `p50`.
    package let p50, p90, p99, p999, max: UInt64
    /// Largest peaks first, at most `LimitReplay.mostKeys`.
    package let top: [Key]
    /// What 99.9 % of the keys, and all but the outliers, stay well below; absent where there is no key.
    package let suggested: UInt64?
    /// Keys that this would have caught.
    package let caught: [Key]
    /// The peaks at the shares of `shares`, for a plot.
    package let curve: [UInt64]

    package static let shares = (0...200).map { Double($0) / 200 }

    init(_ course: UsageCourse, lane: Int) {
        let all = course.keys.map {
            Key(key: String(decoding: $0.key, as: UTF8.self), peak: $0.value.most[lane], at: $0.value.at[lane])
        }
        .sorted { ($0.peak, $1.key) > ($1.peak, $0.key) }
        let rising = all.map(\.peak).reversed() as [UInt64]
        func share(_ share: Double) -> UInt64 {
            rising.isEmpty ? 0 : rising[Swift.min(rising.count - 1, Int(share * Double(rising.count)))]
        }
        rate = course.limit.rates[lane].description
        window = Rate.text(ofDuration: course.limit.rates[lane].window.milliseconds)
        (p50, p90, p99, p999) = (share(0.5), share(0.9), share(0.99), share(0.999))
        max = rising.last ?? 0
        top = Array(all.prefix(LimitReplay.mostKeys))
        suggested = Self.suggestion(rising)
        caught =
            suggested.map { suggested in Array(all.prefix { $0.peak > suggested }.prefix(LimitReplay.mostKeys)) } ?? []
        curve = Self.shares.map(share)
    }

    /// Half as much again as the largest peak of all keys but the outliers.
    ///
    /// Outliers are at most a thousandth of the keys, or one where they are few; they begin where the peaks rise most from one
    /// key to the next, by twice at least.
    static func suggestion(_ rising: [UInt64]) -> UInt64? {
        guard var untouched = rising.last else { return nil }
        var steepest = 2.0
        for outliers in 1...Swift.max(1, rising.count / 1000) where outliers < rising.count {
            let (below, above) = (rising[rising.count - outliers - 1], rising[rising.count - outliers])
            let rise = Double(above) / Double(Swift.max(1, below))
            if rise > steepest { (steepest, untouched) = (rise, below) }
        }
        return rounded(untouched + untouched / 2 + 1)
    }

    /// Up, to two digits that count.
    private static func rounded(_ value: UInt64) -> UInt64 {
        var scale: UInt64 = 1
        while value / scale >= 100 { scale *= 10 }
        return (value + scale - 1) / scale * scale
    }
}
