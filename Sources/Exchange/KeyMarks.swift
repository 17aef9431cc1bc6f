// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Limits
package import Report

/// How far a key is from `warn_at` on all hosts together, and when each host asks again. See `SharedWarnings`.
package struct KeyMarks: Codable, Equatable, Sendable {
    package let name: KeyName
    /// Whether the hosts have used that part of a window together.
    package let isReached: Bool
    /// What each host has used when it asks again, by host and window (`1h`).
    package let marks: [String: [String: UInt64]]

    /// - Parameters:
    ///   - sum: what the hosts have used together. Of a host that has not answered, the use is unknown, and counts as
    ///     none. It keeps its marks.
    ///   - warnAt: a percentage.
    ///   - hosts: how many share the limit.
    package init(_ sum: KeyStanding, warnAt: UInt64, hosts: Int) {
        name = KeyName(sum)
        let least = sum.rates.map { Limit.leastToWarn(of: $0.limit, at: warnAt) }
        isReached = zip(sum.rates, least).contains { $0.used >= $1 }
        guard !isReached else {
            marks = [:]
            return
        }
        let hosts = UInt64(max(1, hosts))
        let steps = zip(sum.rates, least).map { rate, least in
            // If one host used all of it, equal parts would become ever smaller.
            max(1, (least - rate.used) / hosts, rate.limit / (100 * hosts))
        }
        var marks: [String: [String: UInt64]] = [:]
        for part in sum.hosts ?? [] {
            guard let used = part.used, used.count == steps.count else { continue }
            let windows = zip(sum.rates, zip(used, steps)).map { ($0.window, min($1.0, .max - $1.1) + $1.1) }
            marks[part.host] = Dictionary(windows, uniquingKeysWith: { one, _ in one })
        }
        self.marks = marks
    }

    /// What this means for a host; nil if it keeps its marks.
    func use(for host: String) -> Ledger.SharedUse? {
        if isReached { return .warned }
        guard let marks = marks[host] else { return nil }
        let byLength = marks.compactMap { window, mark in Rate.duration(window).map { ($0, mark) } }
        return .marks(Dictionary(byLength, uniquingKeysWith: { one, _ in one }))
    }
}

/// What a host tells all others of the keys that it has asked about. JSON.
package struct MarksMessage: Codable, Equatable, Sendable {
    package let from: String
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
