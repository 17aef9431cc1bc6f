// SPDX-License-Identifier: Apache-2.0
import Sharing
import Testing

struct SharedLedgerTests {
    private static let hour = Lane(key: 1, window: 3_600_000)
    private static let other = Lane(key: 2, window: 60_000)
    private static let ten = SharedLedger.Most(limits: 1, units: 10, divided: 10)
    private static let terms = Terms(hosts: ["mx1", "mx2"], share: 500, limits: 1)

    /// A host that is connected and whose terms are settled. Of 10 units, each host has a share of 2. The pool is 6.
    private static func ready(at now: Int64 = 0) -> SharedLedger {
        let timing = Timing(longestWindow: 3_600_000, validity: 1000)
        var ledger = SharedLedger(name: "mx1", kept: KeptState(mark: 7), timing: timing)
        ledger.configure(terms)
        _ = ledger.connect(run: "a", at: now)
        _ = ledger.receive(.hello(epoch: 1, id: "1", settled: terms.text), at: now)
        _ = ledger.nextCall(at: now)
        _ = ledger.receive(.exchanged(time: 0, settled: terms.text, granted: []), at: now)
        #expect(ledger.isReady)
        return ledger
    }

    /// It has asked for 5 units of an hour, and the engine has granted some.
    private static func granted(_ units: Int64) -> SharedLedger {
        var ledger = ready()
        _ = ledger.decide(request(1, (hour, 5)), at: 1)
        _ = ledger.nextCall(at: 1)
        _ = ledger.receive(.exchanged(time: 5, settled: terms.text, granted: [units]), at: 2)
        return ledger
    }

    private static func request(
        _ number: Int, _ units: (lane: Lane, units: Int64)..., after own: Int64 = 0
    ) -> SharedRequest {
        SharedRequest(
            number: number,
            demands: units.map { lane, units in
                SharedRequest.Demand(
                    lane: lane, units: units, most: [(1, 10)],
                    own: own > 0 ? [SlotCounts.Slot(number: 0, units: own)] : [])
            })
    }

    @Test func whatFitsIntoTheShareAsksNobody() {
        var ledger = Self.ready()
        for number in 1...2 {
            let request = Self.request(number, (Self.hour, 1), after: Int64(number) - 1)
            guard case .admitted = ledger.decide(request, at: 1) else {
                Issue.record("request \(number) is not admitted")
                return
            }
            #expect(ledger.charge(request.demands[0], at: 1) == 0)
        }
        #expect(ledger.nextCall(at: 1) == nil)
        #expect(ledger.share(of: Self.ten) == 2)
        #expect(ledger.share(of: SharedLedger.Most(limits: 2, units: 10, divided: 10)) == nil)
    }

    @Test func aGrantAdmitsWhatWaits() {
        var ledger = Self.ready()
        let request = Self.request(1, (Self.hour, 5))
        guard case .waits = ledger.decide(request, at: 1), case .exchange(let call) = ledger.nextCall(at: 1)
        else {
            Issue.record("nothing is asked for")
            return
        }
        #expect(call.lanes.map { [$0.need, $0.pool] } == [[3, 6]])
        let outcome = ledger.receive(.exchanged(time: 5, settled: Self.terms.text, granted: [3]), at: 2)
        #expect(outcome.answered == [1])
        guard case .admitted = ledger.decide(request, isLast: true, at: 2) else {
            Issue.record("the request is not admitted")
            return
        }
        #expect(ledger.charge(request.demands[0], at: 2) == 3)
        guard case .refused = ledger.decide(Self.request(2, (Self.hour, 1), after: 5), isLast: true, at: 2) else {
            Issue.record("more than the share and the grant is admitted")
            return
        }
    }

    @Test func nobodyOvertakesWhatWaits() {
        var ledger = Self.ready()
        guard case .waits = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1),
            case .waits = ledger.decide(Self.request(2, (Self.hour, 2)), at: 1),
            case .exchange(let call) = ledger.nextCall(at: 1)
        else {
            Issue.record("the second request does not wait")
            return
        }
        #expect(call.lanes.map(\.need) == [5])
    }

    @Test func aRequestIsChargedToAllLanesOrNone() {
        var ledger = Self.ready()
        guard case .waits = ledger.decide(Self.request(1, (Self.hour, 1), (Self.other, 3)), at: 1) else {
            Issue.record("the second lane has room for 2 only")
            return
        }
        #expect(ledger.refuseOverdue(at: 100) == [1])
        guard case .refused = ledger.decide(Self.request(1, (Self.hour, 1), (Self.other, 3)), isLast: true, at: 100)
        else {
            Issue.record("the second lane has room for 2 only")
            return
        }
    }

    @Test func whatIsGivenBackIsReported() {
        var ledger = Self.granted(3)
        ledger.charge(Self.request(1, (Self.hour, 5)).demands[0], at: 2)
        ledger.giveBack(2, to: Self.hour, slot: 0)
        guard case .exchange(let call) = ledger.nextCall(at: 5000) else {
            Issue.record("nothing is reported")
            return
        }
        #expect(call.lanes.flatMap(\.rows).map(\.units) == [1])
    }

    @Test func aSecondHostOfOneNameHasNoShare() {
        var ledger = Self.ready()
        #expect(ledger.share(of: Self.ten) == 2)
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1)
        _ = ledger.nextCall(at: 1)
        #expect(ledger.receive(.clone, at: 2).hangsUp)
        #expect(ledger.share(of: Self.ten) == nil)
        guard case .refused = ledger.decide(Self.request(2, (Self.hour, 1)), at: 3) else {
            Issue.record("the share is used twice")
            return
        }
    }

    @Test func withoutTheEngineTheShareIsLeft() {
        var ledger = Self.ready()
        _ = ledger.disconnect()
        guard case .admitted = ledger.decide(Self.request(1, (Self.hour, 2)), at: 1),
            case .refused = ledger.decide(Self.request(2, (Self.hour, 1), after: 2), at: 1)
        else {
            Issue.record("not just the share is admitted")
            return
        }
    }

    @Test func eachRequestHasADeadlineOfItsOwn() {
        var ledger = Self.ready()
        #expect(ledger.nextDeadline == nil)
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 10)
        _ = ledger.decide(Self.request(2, (Self.other, 5)), at: 40)
        #expect(ledger.nextDeadline == 60)
        let overdue = ledger.refuseOverdue(at: 60)
        #expect(overdue == [1])
        #expect(ledger.nextDeadline == 90)
    }

    @Test func aRequestThatWaitsHoldsUpItsOwnLanesOnly() {
        var ledger = Self.ready()
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1)
        #expect(ledger.isAwaited(Self.hour))
        #expect(!ledger.isAwaited(Self.other))
    }

    /// Beside a grant of the same slot, which frees nothing of it when it is given back.
    @Test func whatIsRefusedCountsInThePoolOnly() {
        var ledger = Self.granted(3)
        ledger.charge(Self.request(1, (Self.hour, 5)).demands[0], at: 2)
        ledger.chargeRefused(7, to: Self.hour, at: 3)
        ledger.giveBack(3, to: Self.hour, slot: 0)
        guard case .exchange(let call) = ledger.nextCall(at: 5000) else {
            Issue.record("nothing is reported")
            return
        }
        #expect(call.lanes.flatMap(\.rows).map(\.units) == [7])
        // It is no use of the pool: what the host has admitted since is of its share.
        guard case .refused = ledger.decide(Self.request(2, (Self.hour, 1), after: 2), isLast: true, at: 5000) else {
            Issue.record("more than the share is admitted")
            return
        }
    }

    @Test func whatIsRefusedIsStoredAndForgottenAtAReset() {
        var ledger = Self.ready()
        ledger.chargeRefused(7, to: Self.hour, at: 3)
        ledger.chargeRefused(.max, to: Self.hour, at: 4)
        let unsaved = ledger.takeUnsaved()
        #expect(unsaved?.pools.flatMap { $0.slots.map { [$0.units, $0.refused] } } == [[0, SlotCounts.mostRefused]])
        ledger.forget([Self.hour])
        let later = ledger.takeUnsaved()
        #expect(later?.pools.map(\.slots.count) == [0])
    }

    /// The engine counts a grant for as long as the call has said.
    @Test func aReloadDuringACallDoesNotProlongItsGrant() {
        var ledger = Self.ready()
        let request = Self.request(1, (Self.hour, 5))
        _ = ledger.decide(request, at: 1)
        _ = ledger.nextCall(at: 1)
        ledger.timing.validity = 10_000
        _ = ledger.receive(.exchanged(time: 5, settled: Self.terms.text, granted: [3]), at: 2)
        #expect(ledger.grantsHold(3, of: Self.hour, Self.ten, at: 900))
        #expect(!ledger.grantsHold(3, of: Self.hour, Self.ten, at: 1001))
    }

    @Test func grantsAreSpentBeforeTheShareAndByOneVersionOfTheTermsOnly() {
        var ledger = Self.granted(4)
        let charged = ledger.charge(Self.request(1, (Self.hour, 3)).demands[0], at: 3)
        #expect(charged == 3)
        let other = SharedLedger.Most(limits: 2, units: 10, divided: 10)
        let spent = [(2, Self.ten), (1, other), (1, Self.ten)].map { units, most in
            ledger.spendGrants(units, of: Self.hour, most, at: 3)
        }
        #expect(spent == [false, false, true])
        #expect(ledger.used(ofPool: Self.hour).map(\.units) == [4])
    }

    /// The engine may have granted what a lost call has asked for.
    @Test func aLostCallIsReportedAgain() {
        var ledger = Self.ready()
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1)
        _ = ledger.nextCall(at: 1)
        let refused = ledger.disconnect()
        #expect(refused == [1])
        _ = ledger.connect(run: "a", at: 2)
        _ = ledger.receive(.hello(epoch: 1, id: "1", settled: Self.terms.text), at: 3)
        guard case .exchange(let call) = ledger.nextCall(at: 4) else {
            Issue.record("nothing is reported")
            return
        }
        #expect(call.lanes.map(\.lane) == [Self.hour])
        #expect(call.lanes.map(\.rows.count) == [0])
    }

    @Test func aLaneOfALargePoolGetsAPartOfIt() {
        var ledger = Self.ready()
        let demand = SharedRequest.Demand(lane: Self.hour, units: 600, most: [(1, 1000)], own: [])
        _ = ledger.decide(SharedRequest(number: 1, demands: [demand]), at: 1)
        guard case .exchange(let call) = ledger.nextCall(at: 1) else {
            Issue.record("nothing is asked for")
            return
        }
        // Of 1000, a share is 250 and the pool 500.
        #expect(call.lanes.map { [$0.need, $0.want, $0.pool] } == [[350, 357, 500]])
    }

    /// After a reboot, the wall clock may be behind what was kept.
    @Test func whatWasUsedLaterThanNowCountsAsUsedNow() {
        let kept = KeptState(
            KeptState.Saved(mark: 7, epoch: 1, epochID: "1", connection: 1, settled: Self.terms.text, pending: []),
            pools: [KeptState.Pool(lane: Self.hour, slots: [SlotCounts.Slot(number: 5, units: 4)])])
        var ledger = SharedLedger(
            name: "mx1", kept: kept, timing: Timing(longestWindow: 3_600_000, validity: 1000))
        ledger.configure(Self.terms)
        _ = ledger.connect(run: "a", at: 0)
        _ = ledger.receive(.hello(epoch: 1, id: "1", settled: Self.terms.text), at: 0)
        guard case .exchange(let call) = ledger.nextCall(at: 0) else {
            Issue.record("nothing is reported")
            return
        }
        #expect(call.lanes.flatMap { $0.rows.map { [$0.age, $0.units] } } == [[0, 4]])
        _ = ledger.receive(.exchanged(time: 0, settled: Self.terms.text, granted: [0]), at: 0)
        // What the host has admitted in the present slot is of its share.
        guard case .waits = ledger.decide(Self.request(1, (Self.hour, 1), after: 2), at: 1) else {
            Issue.record("more than the share is admitted")
            return
        }
    }

    @Test func whatCountsNoMoreIsForgotten() {
        var ledger = Self.ready()
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1)
        _ = ledger.nextCall(at: 1)
        _ = ledger.receive(.exchanged(time: 5, settled: Self.terms.text, granted: [5]), at: 2)
        ledger.charge(Self.request(1, (Self.hour, 1)).demands[0], at: 3)
        _ = ledger.nextCall(at: 5000)
        _ = ledger.receive(.exchanged(time: 5, settled: Self.terms.text, granted: [0]), at: 5000)
        _ = ledger.takeUnsaved()
        _ = ledger.nextCall(at: Self.hour.window)
        _ = ledger.receive(.exchanged(time: 5, settled: Self.terms.text, granted: []), at: Self.hour.window)
        #expect(ledger.usesPools)
        _ = ledger.nextCall(at: 2 * Self.hour.window)
        #expect(!ledger.usesPools)
        let unsaved = ledger.takeUnsaved()
        #expect(unsaved?.pools.map { [$0.first, Int64($0.slots.count)] } == [[.min, 0]])
    }

    /// Shares are rounded down. With the shares of a raised N, the pool could shrink as N grows.
    @Test func aRaiseEnlargesThePoolOnly() {
        let ledger = Self.ready()
        let raised = SharedRequest.Demand(lane: Self.hour, units: 1, most: [(1, 12)], usual: [(1, 10)], own: [])
        #expect([ledger.share(raised), ledger.pool(raised)] == [2, 8])
        #expect(ledger.share(of: SharedLedger.Most(limits: 1, units: 12, divided: 10)) == 2)
        let lowered = SharedRequest.Demand(lane: Self.hour, units: 1, most: [(1, 4)], usual: [(1, 10)], own: [])
        #expect([ledger.share(lowered), ledger.pool(lowered)] == [1, 2])
    }

    @Test func onlyWhatHasChangedIsStored() {
        var ledger = Self.ready()
        _ = ledger.takeUnsaved()
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1)
        _ = ledger.nextCall(at: 1)
        _ = ledger.receive(.exchanged(time: 5, settled: Self.terms.text, granted: [5]), at: 2)
        let grants = ledger.takeUnsaved()
        #expect(grants?.pools.count == nil, "a grant is not stored")
        let slot = Self.hour.window / SlotCounts.slots
        ledger.charge(Self.request(1, (Self.hour, 1)).demands[0], at: 3)
        let unsaved = ledger.takeUnsaved()
        #expect(unsaved?.pools.map(\.first) == [0])
        _ = ledger.decide(Self.request(2, (Self.hour, 9)), at: slot)
        _ = ledger.nextCall(at: slot)
        _ = ledger.receive(.exchanged(time: 5, settled: Self.terms.text, granted: [5]), at: slot)
        ledger.charge(Self.request(2, (Self.hour, 2)).demands[0], at: slot + 1)
        let later = ledger.takeUnsaved()
        #expect(later?.state == nil)
        #expect(later?.pools.map(\.first) == [1])
        #expect(later?.pools.flatMap { $0.slots.map { [$0.number, $0.units] } } == [[1, 2]])
    }

    @Test(arguments: [
        [], ["ok"], ["ok", "5", "", "0", "0"], ["ok", "5", "", "0", "0", "-1"], ["ok", "5", "", "0", "0", "9"],
        ["ok", "5", "", "0", "0", "1", "1"], ["ok", "x", "", "0", "0", "1"], ["OK", "5", "", "0", "0", "1"], ["late "],
        ["ok", "5", "", "0", "0", "99999999999999999999"], ["ok", "5", "", "-1", "0", "1"],
        ["ok", "5", "", "0", "0", "1", "1", "block user 61", "7", "00000000000000ff", "5"],
        ["ok", "5", "", "0", "0", "1", "1", "block user 61", "7", "ff", "5", "hand"],
        ["ok", "5", "", "0", "0", "1", "1", "block user 61", "7", "00000000000000ff", "-5", "hand"],
    ])
    func aReplyThatIsNoneIsAnError(reply: [String]) throws {
        var ledger = Self.ready()
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1)
        let next = ledger.nextCall(at: 1)
        let call = try #require(next)
        #expect(Answer(reply: reply, to: call) == nil)
    }

    /// A call without lanes wants no numbers after the first five words.
    @Test(arguments: [["ok"], ["ok", "5"], ["ok", "5", ""], ["ok", "5", "", "0"]])
    func aShortReplyToAHeartbeatIsAnError(reply: [String]) throws {
        var ledger = Self.ready()
        let next = ledger.nextCall(at: 10_000)
        let call = try #require(next)
        #expect(Answer(reply: reply, to: call) == nil)
        #expect(Answer(reply: ["ok", "5", "", "0", "0"], to: call) != nil)
    }

    @Test(arguments: [
        ["late"], ["clone"], ["ok", "5", "", "0", "0", "3"],
        ["ok", "5", "", "1", "2", "3", "2", "block user 61", "7", "00000000000000ff", "5", "hand\tmx2\t\t"],
    ])
    func repliesAreReadAsTheyAreWritten(reply: [String]) throws {
        var ledger = Self.ready()
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1)
        let next = ledger.nextCall(at: 1)
        let call = try #require(next)
        #expect(Answer(reply: reply, to: call)?.reply == reply)
    }
}
