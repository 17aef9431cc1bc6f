// SPDX-License-Identifier: Apache-2.0
import Sharing
import Testing

struct SharedLedgerTests {
    private static let hour = Lane(key: 1, window: 3_600_000)
    private static let other = Lane(key: 2, window: 60_000)
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

    private static func request(_ number: Int, _ units: (lane: Lane, units: Int64)...) -> SharedRequest {
        SharedRequest(
            number: number,
            demands: units.map { SharedRequest.Demand(lane: $0.lane, units: $0.units, most: [(1, 10)]) })
    }

    @Test func whatFitsIntoTheShareAsksNobody() {
        var ledger = Self.ready()
        for number in 1...2 {
            guard case .admitted = ledger.decide(Self.request(number, (Self.hour, 1)), at: 1) else {
                Issue.record("request \(number) is not admitted")
                return
            }
        }
        #expect(ledger.nextCall(at: 1) == nil)
    }

    @Test func aGrantAdmitsWhatWaits() {
        var ledger = Self.ready()
        guard case .waits = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1),
            case .exchange(let call) = ledger.nextCall(at: 1)
        else {
            Issue.record("nothing is asked for")
            return
        }
        #expect(call.lanes.map { [$0.need, $0.pool] } == [[3, 6]])
        let outcome = ledger.receive(.exchanged(time: 5, settled: Self.terms.text, granted: [3]), at: 2)
        guard case .admitted(let charge)? = outcome.decisions.first?.decision else {
            Issue.record("the request is not admitted")
            return
        }
        #expect(charge.ofPool == 3)
    }

    @Test func aRequestIsChargedToAllLanesOrNone() {
        var ledger = Self.ready()
        guard case .waits = ledger.decide(Self.request(1, (Self.hour, 1), (Self.other, 3)), at: 1) else {
            Issue.record("the second lane has room for 2 only")
            return
        }
        #expect(ledger.refuseOverdue(at: 100) == [1])
        for number in 2...3 {
            guard case .admitted = ledger.decide(Self.request(number, (Self.hour, 1)), at: 100) else {
                Issue.record("the share is charged for the refused request")
                return
            }
        }
    }

    @Test func whatIsGivenBackIsFreeAgain() {
        var ledger = Self.ready()
        for number in 1...5 {
            guard case .admitted(let charge) = ledger.decide(Self.request(number, (Self.hour, 2)), at: 1) else {
                Issue.record("request \(number) is not admitted")
                return
            }
            ledger.giveBack(charge)
        }
    }

    @Test func withoutTheEngineTheShareIsLeft() {
        var ledger = Self.ready()
        _ = ledger.disconnect()
        guard case .admitted = ledger.decide(Self.request(1, (Self.hour, 2)), at: 1),
            case .refused = ledger.decide(Self.request(2, (Self.hour, 1)), at: 1)
        else {
            Issue.record("not just the share is admitted")
            return
        }
    }

    @Test(arguments: [
        [], ["ok"], ["ok", "5", ""], ["ok", "5", "", "-1"], ["ok", "5", "", "9"], ["ok", "5", "", "1", "1"],
        ["ok", "x", "", "1"], ["OK", "5", "", "1"], ["late "],
        ["ok", "5", "", "99999999999999999999"],
    ])
    func aReplyThatIsNoneIsAnError(reply: [String]) throws {
        var ledger = Self.ready()
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1)
        let next = ledger.nextCall(at: 1)
        let call = try #require(next)
        #expect(Answer(reply: reply, to: call) == nil)
    }

    @Test(arguments: [["late"], ["clone"], ["ok", "5", "", "3"]])
    func repliesAreReadAsTheyAreWritten(reply: [String]) throws {
        var ledger = Self.ready()
        _ = ledger.decide(Self.request(1, (Self.hour, 5)), at: 1)
        let next = ledger.nextCall(at: 1)
        let call = try #require(next)
        #expect(Answer(reply: reply, to: call)?.reply == reply)
    }
}
