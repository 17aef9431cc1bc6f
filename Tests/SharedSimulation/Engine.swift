// SPDX-License-Identifier: Apache-2.0
package import Sharing

/// What `library.lua` does, in Swift. `Tests/sharing` compares the two, call by call.
package struct Engine: Sendable {
    private static let living: Int64 = 10_000
    private static let batch = 8

    struct Host: Sendable {
        var mark: UInt64
        var seen: Int64
        var terms: String
        var hosts: [String]
        var termsMatter: Int64
        var isRegistered = false
        /// Of the changes that it has seen; 0 for a host of version 1.
        var position: Int64 = 0
    }

    struct Change: Sendable {
        let position: Int64
        let version: SharedChange.Version
        let ends: Int64
        let content: String
    }

    struct Row: Sendable {
        let slot: Int64
        let units: Int64
    }

    private(set) var epoch: Int64 = 0
    private(set) var id = ""
    private(set) var run = ""
    private(set) var time: Int64 = 0
    private var read: Int64?
    private var hosts: [String: Host] = [:]
    private var gone: Set<String> = []
    private var heard: [UInt64: (connection: Int64, call: Int64)] = [:]
    private var hidden: Int64 = 0
    private var settled = ""
    private var agreed: (terms: String, at: Int64)?
    private var lanes: [Lane: [UInt64: [Row]]] = [:]
    private var changes: [String: Change] = [:]
    private var latestChange: Int64 = 0

    package init() {}

    /// - Parameter isOlder: whether the host calls version 1 of the library, which knows of no changes.
    package mutating func answer(_ call: Call, isOlder: Bool, clock: Int64, rules: SharingRules) -> Answer {
        switch call {
        case .hello(let call): hello(call, clock: clock, rules: rules)
        case .exchange(let call): exchange(call, isOlder: isOlder, clock: clock, rules: rules)
        }
    }

    package mutating func declareGone(_ host: String) { gone.insert(host) }

    private mutating func hello(_ call: Call.Hello, clock: Int64, rules: SharingRules) -> Answer {
        let isOther = epoch == call.known && id != call.knownID && rules.contains(.identifyEpochs)
        if epoch == 0 || call.run != run && rules.contains(.newEpoch) || epoch < call.known || isOther {
            let next = max(epoch, call.known) + 1
            self = Engine()
            epoch = next
            id = "\(String(call.mark, radix: 16)).\(call.connection).\(clock)"
            run = call.run
        }
        return .hello(epoch: epoch, id: id, settled: settled)
    }

    private mutating func tick(_ clock: Int64, _ rules: SharingRules) {
        let passed = read.map { clock - $0 } ?? 0
        if passed > 0, passed <= Timing.cap || !rules.contains(.cappedTime) { time += passed }
        read = clock
    }

    private mutating func exchange(_ call: Call.Exchange, isOlder: Bool, clock: Int64, rules: SharingRules) -> Answer {
        let latest = heard[call.mark] ?? (0, 0)
        guard call.epoch == epoch, call.epochID == id || !rules.contains(.identifyEpochs) else { return .late }
        if rules.contains(.numberCalls), (call.connection, call.number) <= latest { return .late }
        tick(clock, rules)
        var host =
            hosts[call.host] ?? Host(mark: call.mark, seen: 0, terms: "", hosts: [], termsMatter: 0)
        if host.mark != call.mark, time - host.seen < Self.living { return .clone }
        heard[call.mark] = (call.connection, call.number)
        (host.mark, host.seen, host.terms, host.hosts) = (call.mark, time, call.terms, call.hosts)
        host.termsMatter = call.termsMatter
        if call.completes { host.isRegistered = true }
        if !isOlder { host.position = call.position }
        hosts[call.host] = host
        gone.remove(call.host)
        hidden = max(hidden, call.hidden)
        if settled.isEmpty, call.obeyed == [call.terms] { settled = call.terms }
        let needed = Set(hosts.filter { !gone.contains($0.key) }.flatMap(\.value.hosts)).subtracting(gone)
        let isComplete = needed.allSatisfy { hosts[$0]?.isRegistered ?? false }
        let terms = Set(needed.map { hosts[$0]?.terms ?? "" })
        let isSettled = settle(isComplete && terms.count == 1 && terms != [""] ? terms.first : nil)
        let stable = needed.map { hosts[$0]?.position ?? 0 }.min() ?? 0
        let news = isOlder ? SharedChanges.News() : tell(call, stable: stable)
        let hasSeenAll = isOlder || news.position == latestChange || !rules.contains(.changesFirst)
        let mayGrant =
            !settled.isEmpty && call.obeyed.contains(settled) && host.isRegistered && hasSeenAll
            && (isComplete || time > hidden || !rules.contains(.waitForAll))
            && (isKnown(call.host) || isOlder || !rules.contains(.beKnown))
        let granted = call.lanes.map {
            exchange($0, mark: call.mark, mayGrant: mayGrant, hosts: Int64(max(needed.count, 1)), rules)
        }
        if !isOlder { prune(stable: rules.contains(.keepEnded) ? stable : .max) }
        let returns = call.terms == settled && call.termsMatter > 0 && rules.contains(.confirmReturn) && !isOlder
        return .exchanged(time: time, settled: returns && !isSettled ? "" : settled, granted: granted, news: news)
    }

    /// Whether the terms settled last name a host, or all of their hosts do.
    private func isKnown(_ name: String) -> Bool {
        let members = Terms(text: settled)?.hosts ?? []
        return members.contains(name)
            || members.allSatisfy { gone.contains($0) || hosts[$0]?.hosts.contains(name) ?? false }
    }

    /// Takes what the host tells of changes, and tells it what it has not seen.
    private mutating func tell(_ call: Call.Exchange, stable: Int64) -> SharedChanges.News {
        for told in call.changes where changes[told.subject].map({ $0.version < told.version }) ?? true {
            latestChange += 1
            changes[told.subject] = Change(
                position: latestChange, version: told.version, ends: time + told.left, content: told.content)
        }
        let unseen = changes.filter { $0.value.position > call.position }.sorted {
            $0.value.position < $1.value.position
        }
        let news = unseen.prefix(Int(call.mostNews)).map { subject, change in
            let told = SharedChanges.Told(
                subject: subject, version: change.version, left: max(0, change.ends - time), content: change.content)
            return (position: change.position, told: told)
        }
        let isCut = news.count >= call.mostNews
        return SharedChanges.News(
            stable: stable, position: isCut ? news.last?.position ?? 0 : latestChange, changes: news)
    }

    private mutating func prune(stable: Int64) {
        let over = changes.filter { $0.value.ends <= time }
            .sorted { ($0.value.ends, $0.key) < ($1.value.ends, $1.key) }
        for (subject, change) in over.prefix(Self.batch) where change.position <= stable { changes[subject] = nil }
    }

    /// - Parameter terms: those of every host that must agree; nil if they differ, or some are unknown.
    /// - Returns: whether no others matter now.
    private mutating func settle(_ terms: String?) -> Bool {
        guard let terms else {
            agreed = nil
            return false
        }
        if agreed?.terms != terms { agreed = (terms, time) }
        let after = hosts.reduce(0) { gone.contains($1.key) ? $0 : max($0, $1.value.termsMatter) }
        guard let agreed, time - agreed.at >= after else { return false }
        settled = terms
        return true
    }

    private mutating func exchange(
        _ report: Call.LaneReport, mark: UInt64, mayGrant: Bool, hosts: Int64, _ rules: SharingRules
    ) -> Int64 {
        func slot(_ time: Int64) -> Int64 {
            SlotCounts.floorDivide(time * SlotCounts.slots, report.lane.window)
        }
        let first = slot(time - Timing.cap) - SlotCounts.held
        var marks = lanes[report.lane] ?? [:]
        var used: Int64 = 0
        for (other, rows) in marks where other != mark {
            let counting = rows.filter { $0.slot >= first }
            marks[other] = counting.isEmpty ? nil : counting
            used += counting.reduce(0) { $0 + $1.units }
        }
        var mine = report.rows.map { Row(slot: slot(time - $0.age), units: $0.units) }.filter { $0.slot >= first }
        used += mine.reduce(0) { $0 + $1.units }
        let free = report.pool - used
        var granted: Int64 = 0
        if mayGrant, free > 0, report.want > 0 {
            granted = min(report.want, max(min(report.need, free), free / (2 * hosts)))
            if granted > 0, rules.contains(.countGrants) {
                mine.append(Row(slot: slot(time + report.validity), units: granted))
            }
        }
        marks[mark] = mine.isEmpty ? nil : mine
        lanes[report.lane] = marks.isEmpty ? nil : marks
        return granted
    }
}
