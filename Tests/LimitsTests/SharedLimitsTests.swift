// SPDX-License-Identifier: Apache-2.0
import Limits
import Sharing
import Testing

/// Shared limits of one host, with an engine that the test plays. Of 10 units, each of two hosts has a share of 2. The
/// pool is 6.
@Suite struct SharedLimitsTests {
    private let harness: LedgerHarness
    private let shared: SharedCounts

    private init(_ make: (inout LimitMaker) -> Limit) throws {
        let harness = try LedgerHarness { maker in
            var limit = make(&maker)
            limit.isShared = true
            return [limit]
        }
        self.harness = harness
        let settings = SharedCounts.Settings(
            name: "mx1", hosts: ["mx1", "mx2"], share: 500, timeout: 50, isOpenOnCutOff: false)
        shared = SharedCounts(settings, limits: harness.limits, kept: nil, versions: [])
        harness.ledger.shared = shared
        _ = shared.ledger.connect(run: "a", at: now)
        receive(.hello(epoch: 1, id: "1", settled: terms))
        exchange()
    }

    init() throws { try self.init { $0.limit(rates: ["10/1h"], countRefused: true) } }

    private var now: Int64 { harness.ledger.now.milliseconds }
    private var terms: String { shared.ledger.kept.active.last?.text ?? "" }

    private func receive(_ answer: Answer) { _ = shared.ledger.receive(answer, at: now) }

    /// What the host asks for, by lane. It gets all of it.
    @discardableResult
    private func exchange() -> [Int64] {
        guard case .exchange(let call) = shared.ledger.nextCall(at: now) else { return [] }
        receive(.exchanged(time: 0, settled: terms, granted: call.lanes.map(\.want)))
        return call.lanes.map(\.need)
    }

    /// The units of all rows that the host reports.
    private func reported() throws -> [Int64] {
        harness.clocks.advance(1000)
        harness.ledger.beginTick()
        let next = shared.ledger.nextCall(at: now)
        guard case .exchange(let call) = try #require(next) else { return [] }
        receive(.exchanged(time: 0, settled: terms, granted: call.lanes.map { _ in 0 }))
        return call.lanes.flatMap(\.rows).map(\.units)
    }

    private func ask(_ message: String) throws -> Bool {
        try harness.ask(rcpt(message, to: "a@example.org")) == nil
    }

    @Test func refusedRequestsCountInTheShareAndInThePool() throws {
        let answers = try (0..<4).map { try ask("m\($0)") }
        #expect(answers == [true, true, false, false])
        #expect(harness.used("user") == [4])
        #expect(try reported() == [2])
        // Nothing is reported twice.
        #expect(try reported() == [])
    }

    @Test func aRefusalWithoutTheEngineDoesNotCount() throws {
        _ = shared.ledger.disconnect()
        let answers = try (0..<4).map { try ask("m\($0)") }
        #expect(answers == [true, true, false, false])
        #expect(harness.used("user") == [2])
        #expect(!shared.ledger.usesPools)
    }

    /// Others may have used nothing: only an answer of the engine says that there is no room.
    @Test(arguments: [(false, 2), (true, 3)] as [(Bool, UInt64)])
    func aRefusalWithoutAnAnswerDoesNotCount(isAnswered: Bool, used: UInt64) throws {
        for message in 0..<2 { #expect(try ask("m\(message)")) }
        let request = rcpt("m2", to: "a@example.org")
        let number = try #require(harness.putAside(request))
        harness.clocks.advance(60)
        harness.ledger.beginTick()
        #expect(shared.ledger.refuseOverdue(at: now) == [number])
        #expect(harness.decideLast(request, isAnswered: isAnswered) != nil)
        #expect(harness.used("user") == [used])
        #expect(harness.standing("user")?.refusedTries == (isAnswered ? 1 : 0))
    }

    /// This host knows by itself that the limit is reached.
    @Test func aRefusalAboveTheLimitCountsWithoutTheEngine() throws {
        let reasons = ReasonObserver()
        harness.ledger.observer = reasons
        for message in 0..<10 { _ = try ask("m\(message)") }
        _ = shared.ledger.disconnect()
        _ = try ask("n")
        #expect(harness.used("user") == [11])
        #expect(reasons.reasons.last == .over)
    }

    /// An operator must see that the limit has room, and that only the engine is missing.
    @Test func aRefusalForWantOfTheEngineSaysSo() throws {
        let reasons = ReasonObserver()
        harness.ledger.observer = reasons
        for message in 0..<3 { _ = try ask("a\(message)") }
        #expect(reasons.reasons == [.over])
        _ = shared.ledger.disconnect()
        for message in 0..<3 { _ = try harness.ask(rcpt("b\(message)", to: "a@example.org", user: "other")) }
        #expect(reasons.reasons == [.over, .noEngine])
    }

    @Test(arguments: [(false, RefusalReason.noEngine), (true, .over)] as [(Bool, RefusalReason)])
    func aRefusalWithoutAnAnswerSaysSo(isAnswered: Bool, reason: RefusalReason) throws {
        let reasons = ReasonObserver()
        harness.ledger.observer = reasons
        for message in 0..<2 { #expect(try ask("m\(message)")) }
        let request = rcpt("m2", to: "a@example.org")
        _ = try #require(harness.putAside(request))
        harness.ledger.beginTick()
        #expect(harness.decideLast(request, isAnswered: isAnswered) != nil)
        #expect(reasons.reasons == [reason])
    }

    /// What comes over a connection that was refused for want of the engine is refused as well.
    @Test func aConnectionIsRefusedWithoutTheEngine() throws {
        let tests = try SharedLimitsTests {
            $0.limit("connections", key: ["client_address"], count: .connections, rates: ["10/1h"])
        }
        func request(_ state: String, _ port: Int) -> [String: String] {
            ["protocol_state": state, "client_address": "192.0.2.1", "client_port": String(port)]
        }
        _ = tests.shared.ledger.disconnect()
        for port in 1...2 { #expect(try tests.harness.ask(request("CONNECT", port)) == nil) }
        #expect(try tests.harness.ask(request("CONNECT", 3)) != nil)
        #expect(try tests.harness.ask(request("RCPT", 3)) != nil)
        #expect(tests.harness.standing("192.0.2.1")?.refusedTries == 0)
    }

    /// Those who send most are refused first while the engine is down.
    @Test(arguments: [true, false])
    func anOutageOfTheEngineBlocksNobody(isOutage: Bool) throws {
        let tests = try SharedLimitsTests {
            $0.limit(rates: ["10/1h"], block: Limit.Block(after: 2, milliseconds: 600_000))
        }
        if isOutage { _ = tests.shared.ledger.disconnect() }
        for message in 0..<6 { _ = try tests.ask("m\(message)") }
        #expect((tests.harness.standing("user")?.blockedUntil != nil) == !isOutage)
    }

    @Test func aRequestThatIsTooLargeDoesNotCount() throws {
        #expect(try harness.ask(settling("DATA", "m", count: 9)) == "REJECT 5.7.1 never")
        #expect(harness.used("user") == [0])
        #expect(!shared.ledger.usesPools)
    }

    @Test func aResetForgetsWhatWasRefused() throws {
        for message in 0..<4 { _ = try ask("m\(message)") }
        harness.ledger.beginTick()
        _ = try harness.ledger.intervene(.reset, onKey: Array("user".utf8), limit: "per-user", by: .here)
        #expect(try reported() == [])
        #expect(harness.used("user") == [0])
    }

    @Test func connectionsBeyondTheShareComeFromThePool() throws {
        let tests = try SharedLimitsTests {
            $0.limit("connections", key: ["client_address"], count: .connections, rates: ["10/1h"])
        }
        func request(_ state: String, _ port: Int) -> [String: String] {
            ["protocol_state": state, "client_address": "192.0.2.1", "client_port": String(port)]
        }
        #expect(try tests.harness.ask(request("CONNECT", 1)) == nil)
        #expect(try tests.harness.ask(request("CONNECT", 2)) == nil)
        // A counted connection needs nothing more; a new one waits.
        #expect(tests.harness.putAside(request("RCPT", 2)) == nil)
        let number = try #require(tests.harness.putAside(request("CONNECT", 3)))
        tests.harness.ledger.beginTick()
        #expect(tests.exchange() == [1])
        #expect(number == 1)
        #expect(try tests.harness.ask(request("CONNECT", 3)) == nil)
        #expect(try tests.harness.ask(request("RCPT", 3)) == nil)
        #expect(tests.harness.used("192.0.2.1") == [3])
        // Without a grant, it is refused, and so is all that comes over it.
        #expect(try tests.harness.ask(request("CONNECT", 4)) != nil)
        #expect(tests.harness.putAside(request("RCPT", 4)) == nil)
        #expect(try tests.harness.ask(request("RCPT", 4)) != nil)
        #expect(tests.harness.standing("192.0.2.1")?.refusedTries == 1)
    }
}
