// SPDX-License-Identifier: Apache-2.0
internal import Foundation
package import Limits
package import Report

/// How far a key is from `warn_at` on all hosts together, and when each host asks again. See `SharedWarnings`.
package struct KeyMarks: Codable, Equatable, Sendable {
    package let name: KeyName
    /// The last change of the key that the host which asked knew (`Ledger.lastChange`).
    package let change: Int64
    /// The windows (`1h`) of which the hosts have used that part together.
    package let reached: [String]
    /// What each host has used of the other windows when it asks again, by host and window.
    package let marks: [String: [String: UInt64]]

    /// - Parameters:
    ///   - sum: what the hosts have used together. Of a host that has not answered, the use is unknown, and counts as
    ///     none. It keeps its marks.
    ///   - change: known before the hosts were asked.
    ///   - warnAt: a percentage.
    ///   - hosts: how many share the limit.
    package init(_ sum: KeyStanding, after change: Int64, warnAt: UInt64, hosts: Int) {
        name = KeyName(sum)
        self.change = change
        let hosts = UInt64(max(1, hosts))
        /// By window; nil if it is reached.
        let steps = sum.rates.map { rate -> UInt64? in
            let least = Limit.leastToWarn(of: rate.limit, at: warnAt)
            // If one host used all of it, equal parts would become ever smaller.
            return rate.used >= least ? nil : max(1, (least - rate.used) / hosts, rate.limit / (100 * hosts))
        }
        reached = zip(sum.rates, steps).compactMap { $1 == nil ? $0.window : nil }
        var marks: [String: [String: UInt64]] = [:]
        for part in sum.hosts ?? [] {
            guard let used = part.used, used.count == steps.count else { continue }
            for (rate, (used, step)) in zip(sum.rates, zip(used, steps)) {
                guard let step else { continue }
                marks[part.host, default: [:]][rate.window] = min(used, .max - step) + step
            }
        }
        self.marks = marks
    }

    /// One for each window that is reached.
    package var warnings: [SharedWarning] {
        reached.compactMap { SharedWarning(name, window: $0, change: change) }
    }

    /// How long the marks hold.
    var longest: Duration? {
        let windows = Set(reached + marks.values.flatMap(\.keys))
        return windows.compactMap { SharedWarning(name, window: $0, change: change)?.quiet }.max()
    }

    /// What this means for a host; nil if it keeps its marks.
    ///
    /// - Parameter isGiven: whether a host has given the warning already.
    package func use(for host: String, isGiven: (SharedWarning) -> Bool) -> Ledger.SharedUse? {
        let own = (marks[host] ?? [:]).merging(reached.map { ($0, .max) }, uniquingKeysWith: max)
        var byLength: [Int64: UInt64] = [:]
        for (window, mark) in own {
            guard let length = Rate.duration(window) else { continue }
            let warning = SharedWarning(name, window: window, change: change)
            byLength[length] = warning.map(isGiven) ?? false ? .max : mark
        }
        return byLength.isEmpty ? nil : Ledger.SharedUse(marks: byLength, change: change)
    }
}

/// What a host tells all others of the keys that it has asked about. JSON.
package struct MarksMessage: Codable, Equatable, Sendable {
    package let from: String
    /// Empty if all hosts must ask again about all keys that have marks.
    package let keys: [KeyMarks]

    /// The most keys of a message.
    package static let mostKeys = 500

    package init(from: String, keys: [KeyMarks]) {
        self.from = from
        self.keys = keys
    }

    /// nil if the message is none of this version, or is too long.
    package init?(_ message: [UInt8]) {
        guard message.count <= HostQuestion.mostBytes,
            let marks = try? JSONDecoder().decode(Self.self, from: Data(message)), marks.keys.count <= Self.mostKeys
        else { return nil }
        self = marks
    }

    /// nil if it would be too long.
    package var message: [UInt8]? { HostAnswer.encoded(self) }
}
