// SPDX-License-Identifier: Apache-2.0
internal import Limits
package import Report

/// Sums up how keys stand on all hosts that share their limits.
package struct KeySums {
    private let own: String
    private let hosts: [HostFigures]
    /// By host, for those that have answered.
    private var standings: [String: [KeyName: KeyStanding]] = [:]
    private var ages: [String: Double] = [:]
    /// The hosts that have told of all keys that were asked for. What they have not told of is 0.
    private var complete: Set<String>

    /// - Parameters:
    ///   - own: the name of this host.
    ///   - hosts: all hosts, in the order in which their parts are shown.
    package init(own: String, hosts: [HostFigures]) {
        self.own = own
        self.hosts = hosts
        ages[own] = 0
        standings[own] = [:]
        complete = [own]
    }

    /// Later standings of a key replace earlier ones of the same host.
    package mutating func add(own list: [KeyStanding]) { add(list, of: own) }

    /// - Parameter tellAll: whether they are about keys that were asked for by name, and not lists of some keys.
    package mutating func add(_ answers: [HostAnswer], tellAll: Bool) {
        for answer in answers where hosts.contains(where: { $0.name == answer.from }) {
            ages[answer.from] = answer.age
            if tellAll, !answer.isCut { complete.insert(answer.from) }
            add(answer.standings, of: answer.from)
        }
    }

    private mutating func add(_ list: [KeyStanding], of host: String) {
        for standing in list { standings[host, default: [:]][KeyName(standing)] = standing }
    }

    /// All keys that any host has told of.
    package var names: Set<KeyName> { standings.values.reduce(into: []) { $0.formUnion($1.keys) } }

    /// The keys that are fullest as far as is known, at most `most`.
    package func candidates(_ most: Int) -> [KeyName] {
        sums(names, at: 0).prefix(most).map { KeyName($0) }
    }

    /// The sums of these keys, the fullest first. Keys that no host knows are left out.
    ///
    /// - Parameter time: seconds since 1970.
    package func sums(_ names: some Sequence<KeyName>, at time: Double) -> [KeyStanding] {
        Self.fullestFirst(names.compactMap { sum($0, at: time) })
    }

    /// Of keys that are equally full, the one with more refused requests comes first.
    static func fullestFirst(_ standings: [KeyStanding]) -> [KeyStanding] {
        standings.map { (share: $0.share, standing: $0) }.sorted { one, other in
            if one.share != other.share { return one.share > other.share }
            let (first, second) = (one.standing, other.standing)
            return (second.refusedTries, first.key, first.limit) < (first.refusedTries, second.key, second.limit)
        }.map(\.standing)
    }

    private func sum(_ name: KeyName, at time: Double) -> KeyStanding? {
        let told = hosts.map { (host: $0, standing: standings[$0.name]?[name]) }
        guard var sum = standings[own]?[name] ?? told.lazy.compactMap(\.standing).first else { return nil }
        let all = told.compactMap(\.standing)
        for index in sum.rates.indices { sum.rates[index] = Self.sum(of: sum.rates[index], all, at: time) }
        sum.refusedTries = all.reduce(0) { Self.sum($0, $1.refusedTries) }
        sum.blockedUntil = all.compactMap(\.blockedUntil).max()
        sum.raisedUntil = all.compactMap(\.raisedUntil).max()
        guard told.count > 1 else { return sum }
        sum.hosts = told.map { host, standing in
            guard let age = ages[host.name], standing != nil || complete.contains(host.name) else {
                return HostUse(host: host.name, used: nil, refusedTries: nil, age: host.age)
            }
            let used = sum.rates.map { rate in standing?.rates.first { $0.window == rate.window }?.used ?? 0 }
            return HostUse(host: host.name, used: used, refusedTries: standing?.refusedTries ?? 0, age: age)
        }
        return sum
    }

    /// - Parameter rate: of one host. Its limit holds for the sum.
    private static func sum(of rate: KeyStanding.Rate, _ all: [KeyStanding], at time: Double) -> KeyStanding.Rate {
        var result = rate
        let parts = all.compactMap { standing in standing.rates.first { $0.window == rate.window } }
        result.used = parts.reduce(0) { sum($0, $1.used) }
        result.history = sum(parts.map(\.history))
        result.freesAt = nil
        guard result.used >= rate.limit else { return result }
        result.freesAt =
            result.history.flatMap { room(in: $0, limit: rate.limit, window: rate.window, at: time) }
            ?? parts.compactMap(\.freesAt).max()
        return result
    }

    /// nil if one is missing.
    private static func sum(_ histories: [[UInt64]?]) -> [UInt64]? {
        let known = histories.compactMap(\.self)
        guard known.count == histories.count, let count = known.map(\.count).max() else { return nil }
        // The last slot of each is the current one.
        return (0..<count).map { place in
            known.reduce(0) { total, history in
                let index = place - (count - history.count)
                return index < 0 ? total : sum(total, history[index])
            }
        }
    }

    /// When so many of the oldest slots have left the window that there is room for one more, at most a slot late.
    private static func room(in history: [UInt64], limit: UInt64, window: String, at time: Double) -> Double? {
        guard limit > 0, let milliseconds = Limits.Rate.duration(window) else { return nil }
        let slot = Double(milliseconds) / 1000 / Double(Window.slots)
        var left = history.reduce(0) { sum($0, $1) }
        for (index, amount) in history.enumerated() {
            left -= amount
            if left < limit { return time + Double(index + 1) * slot }
        }
        return nil
    }

    private static func sum(_ one: UInt64, _ other: UInt64) -> UInt64 {
        let (sum, isOver) = one.addingReportingOverflow(other)
        return isOver ? .max : sum
    }
}

extension KeyStanding {
    /// The part that is used of the fullest window.
    fileprivate var share: Double { rates.map { Double($0.used) / Double(max(1, $0.limit)) }.max() ?? 0 }

    /// Whether at least this part of a window is used.
    func isFilled(percent: UInt64) -> Bool {
        rates.contains { $0.used > 0 && Double($0.used) * 100 >= Double($0.limit) * Double(percent) }
    }
}
