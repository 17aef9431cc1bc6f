// SPDX-License-Identifier: Apache-2.0
import Filter
import Patterns
import Rules
import Testing

/// The time budget of a message, and what it reports of rules that are given up.
@Suite struct MessageBudgetTests {
    @Test func budgetIsPerMessageAndReported() throws {
        let rules = try rules(body: (0..<200).map { "/rule\($0)x/ REJECT" }.joined(separator: "\n"))
        rules.sets[0].body.fastPass = nil
        nonisolated(unsafe) var now: UInt64 = 0
        let matcher = Matcher(budget: 50) {
            now += 1
            return now
        }
        let filter = MessageFilter(rules, matcher: matcher)
        for _ in 0..<2 {
            filter.begin(rules)
            filter.update(Array(("\r\n" + String(repeating: "line\r\n", count: 100)).utf8))
            let notes = filter.finish().notes
            #expect(notes.count == 1)
            guard case .givenUp(let location, let reason)? = notes.first else { continue }
            #expect(location.line > 0)
            #expect(reason == "the message's time budget is spent")
        }
    }

    /// A message has its budget, whatever others spend of theirs, and whenever they begin.
    @Test func budgetsOfMessagesThatTakeTurns() throws {
        let rules = try rules(body: (0..<200).map { "/rule\($0)x/ HOLD\n" }.joined() + "/^late/ REJECT")
        rules.sets[0].body.fastPass = nil
        nonisolated(unsafe) var now: UInt64 = 0
        let matcher = Matcher(budget: 50) {
            now += 1
            return now
        }
        let (quiet, loud) = (MessageFilter(rules, matcher: matcher), MessageFilter(rules, matcher: matcher))
        loud.update(Array(("\r\n" + String(repeating: "line\r\n", count: 100)).utf8))
        quiet.update(Array("\r\nlate\r\n".utf8))
        let third = MessageFilter(rules, matcher: matcher)
        third.begin(rules)
        loud.update(Array("late\r\n".utf8))
        let verdicts = [loud, quiet, third].map { $0.finish() }
        #expect(verdicts.map { $0.disposition == .accept } == [true, false, true])
        #expect(verdicts.map(\.notes.count) == [1, 0, 0])
    }

    /// Each message reports a rule that is given up, once.
    @Test func reportsOfMessagesThatTakeTurns() throws {
        let rules = try rules(body: "/^(x+x+)+(.)\\2y$/ REJECT")
        let matcher = Matcher(limits: MatchLimits(steps: 1_000))
        let filters = (0..<2).map { _ in MessageFilter(rules, matcher: matcher) }
        let heavy = Array((String(repeating: "x", count: 60) + "qy\r\n").utf8)
        for filter in filters { filter.update(Array("\r\n".utf8)) }
        for filter in filters + filters { filter.update(heavy) }
        #expect(filters.map { $0.finish().notes.count } == [1, 1])
    }
}
