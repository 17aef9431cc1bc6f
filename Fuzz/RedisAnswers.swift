// SPDX-License-Identifier: Apache-2.0
internal import Sharing

extension Target {
    /// Answers of the engine that hosts share limits through. An answer that can be read can be written, and reads the
    /// same. Whatever the engine answers, a host admits no more of a lane than it has as a share and was granted.
    ///
    /// Lines are the strings of an answer, and a form feed ends it.
    static let redisAnswer = Target(name: "redis-answer") { input in
        var host = Host()
        for answer in input.split(separator: 0x0c, omittingEmptySubsequences: false).prefix(64) {
            let strings = answer.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            host.receive(strings.map { String(decoding: $0, as: UTF8.self) })
        }
    }
}

private struct Host {
    private var ledger: SharedLedger
    private var call: Call?
    private var now: Int64 = 1_000_000
    private var requests = 0
    /// What the host has admitted.
    private var window = SlotCounts()
    private var admitted: Int64 = 0
    private var granted: Int64 = 0

    private static let lane = Lane(key: 1, window: 3_600_000)
    private static let most: Int64 = 10

    init() {
        let timing = Timing(longestWindow: 3_600_000, validity: 1_000)
        ledger = SharedLedger(name: "mx1", kept: KeptState(mark: 7), timing: timing)
        ledger.configure(Terms(hosts: ["mx1", "mx2"], share: 500, limits: 1))
        call = ledger.connect(run: "a", at: now)
    }

    mutating func receive(_ reply: [String]) {
        guard let call = call ?? next() else { return }
        self.call = nil
        guard let answer = Answer(reply: reply, to: call) else {
            // As after an error of the connection.
            _ = ledger.disconnect()
            self.call = ledger.isClosed ? ledger.connect(run: "a", at: now) : nil
            return
        }
        precondition(Answer(reply: answer.reply, to: call) == answer)
        if case .exchanged(_, _, let units, _) = answer { granted += units.reduce(0, +) }
        for number in ledger.receive(answer, at: now).answered { decide(number, isLast: true) }
        if ledger.isClosed { self.call = ledger.connect(run: "a", at: now) }
        requests += 1
        decide(requests, isLast: false)
        now += 100
        for number in ledger.refuseOverdue(at: now) { decide(number, isLast: true) }
    }

    private mutating func decide(_ number: Int, isLast: Bool) {
        let demand = SharedRequest.Demand(lane: Self.lane, units: 2, most: [(1, Self.most)], own: window.entries)
        let request = SharedRequest(number: number, demands: [demand])
        guard case .admitted = ledger.decide(request, isLast: isLast, at: now) else { return }
        _ = ledger.charge(demand, at: now)
        window.charge(demand.units, slot: Self.lane.slot(at: now))
        admitted += demand.units
        // All inputs are shorter than the window. A share is at most N, if the engine settles other terms.
        precondition(admitted <= Self.most + granted, "\(admitted) admitted, \(granted) granted")
    }

    private mutating func next() -> Call? {
        now += 250
        return ledger.nextCall(at: now)
    }
}
