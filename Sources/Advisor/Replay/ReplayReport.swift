// SPDX-License-Identifier: Apache-2.0
import Limits

/// What the limits of a configuration would have done to the mail of a log.
///
/// Times are milliseconds since 1970. Beside each is its zone in the log, in minutes east of UTC. If the log has no
/// zones, that is nil, and the time is in the log's own time.
package struct ReplayReport: Codable, Sendable {
    package let log: LogFigures
    package let limits: [LimitReplay]
    /// Names of limits that use attributes which logs don't have.
    package let limitsLeftOut: [String]
}

/// The refusals of a key.
package struct KeyRefusals: Codable, Sendable {
    package let key: String
    /// The time of the first refusal, and its zone.
    package let first: Int64
    package let firstZone: Int?
    package let reason: String
    package internal(set) var refused = 0
}

/// Requests that a limit would refuse if it were the only one, and that another limit refuses.
package struct LimitMask: Codable, Sendable, Equatable {
    /// The name of the other limit.
    package let by: String
    package let requests: Int
}

package struct LimitReplay: Codable, Sendable {
    package let name: String
    package let mode: String
    /// `recipients`, ...
    package let count: String
    package let keys: Int
    package let counted: UInt64
    /// Refused requests; in shadow mode, requests that would have been refused.
    package let refused: Int
    package let keysRefused: Int
    /// Most refusals first, at most `mostKeys`.
    package let refusals: [KeyRefusals]
    /// Most requests first.
    package let masked: [LimitMask]
    package let windows: [WindowReplay]

    static let mostKeys = 50

    init(_ usage: LimitUsage, refusals: [KeyRefusals], masks: [LimitMask]) {
        name = usage.limit.name
        mode = usage.limit.mode.rawValue
        count = usage.limit.count.rawValue
        keys = usage.keys.count
        counted = usage.counted
        refused = refusals.reduce(0) { $0 + $1.refused }
        keysRefused = refusals.count
        self.refusals = Array(refusals.prefix(Self.mostKeys))
        masked = masks
        windows = usage.limit.rates.indices.map { WindowReplay(usage, lane: $0) }
    }
}

/// The peak use of each key in one window of a limit, as if nothing had been refused.
package struct WindowReplay: Codable, Sendable {
    package struct Key: Codable, Sendable, Equatable {
        package let key: String
        package let peak: UInt64
        /// The time of the peak.
        package let at: Int64
        package let zone: Int?
    }

    /// As configured: `100/1m`.
    package let rate: String
    package let window: String
    /// Percentiles of the keys' peaks.
    package let p50, p90, p99, p999, max: UInt64
    /// Largest peaks first, at most `LimitReplay.mostKeys`.
    package let top: [Key]
    /// A limit well above the peaks of all keys except outliers; nil if there are no keys.
    package let suggested: UInt64?
    /// Keys above `suggested`, at most `LimitReplay.mostKeys`.
    package let caught: [Key]
    /// The peaks at the percentiles of `shares`, for a plot.
    package let curve: [UInt64]

    package static let shares = (0...200).map { Double($0) / 200 }

    init(_ usage: LimitUsage, lane: Int) {
        let all = usage.keys.map {
            let moment = $0.value.peakTimes[lane]
            return Key(
                key: String(decoding: $0.key, as: UTF8.self), peak: $0.value.peaks[lane], at: moment.reported,
                zone: moment.zone)
        }
        .sorted { ($0.peak, $1.key) > ($1.peak, $0.key) }
        let rising = all.map(\.peak).reversed() as [UInt64]
        func share(_ share: Double) -> UInt64 {
            rising.isEmpty ? 0 : rising[Swift.min(rising.count - 1, Int(share * Double(rising.count)))]
        }
        rate = usage.limit.rates[lane].description
        window = Rate.text(ofDuration: usage.limit.rates[lane].window.milliseconds)
        (p50, p90, p99, p999) = (share(0.5), share(0.9), share(0.99), share(0.999))
        max = rising.last ?? 0
        top = Array(all.prefix(LimitReplay.mostKeys))
        suggested = Self.suggestion(rising)
        caught =
            suggested.map { suggested in Array(all.prefix { $0.peak > suggested }.prefix(LimitReplay.mostKeys)) } ?? []
        curve = Self.shares.map(share)
    }

    /// 1.5 times the largest peak of all keys except outliers.
    ///
    /// At most 0.1 % of the keys, but at least one, may be outliers. They start at the steepest rise from one peak to
    /// the next, if that is at least by a factor of two.
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

    /// Rounds up to two significant digits.
    private static func rounded(_ value: UInt64) -> UInt64 {
        var scale: UInt64 = 1
        while value / scale >= 100 { scale *= 10 }
        return (value + scale - 1) / scale * scale
    }
}
