// SPDX-License-Identifier: Apache-2.0
import Exchange
import Report
import Testing

@Suite struct RefusalGroupsTests {
    private static func refusal(
        _ key: String, at time: Double, mode: String = "enforce", client: String = "host[192.0.2.1]",
        queueID: String = ""
    ) -> RefusedRequest {
        RefusedRequest(
            time: time, limit: "per-user", key: key, mode: mode, reason: "over", usage: "", retry: 1, action: "DEFER",
            queueID: queueID, client: client, login: key, sender: "", recipient: "")
    }

    @Test func groupsByKeyAndMode() {
        var groups = RefusalGroups()
        for time in [1000.0, 1001, 1002] { groups.add(Self.refusal("alice", at: time)) }
        groups.add(Self.refusal("alice", at: 1003, mode: "shadow"))
        groups.add(Self.refusal("bob", at: 999))
        let found = groups.newestFirst(at: 1003)
        #expect(found.map(\.newest.key) == ["alice", "alice", "bob"])
        #expect(found.map(\.newest.mode) == ["shadow", "enforce", "enforce"])
        #expect(found.map(\.count) == [1, 3, 1])
        #expect(found.map(\.first) == [1003, 1000, 999])
        #expect(found.map(\.newest.time) == [1003, 1002, 999])
    }

    @Test func lastMinute() {
        var groups = RefusalGroups()
        groups.add(Self.refusal("alice", at: 1000))
        groups.add(Self.refusal("alice", at: 1055))
        // A clock that steps back does not lose what was counted.
        groups.add(Self.refusal("alice", at: 1020))
        #expect(groups.newestFirst(at: 1059).map(\.lastMinute) == [3])
        #expect(groups.newestFirst(at: 1075).map(\.lastMinute) == [2])
        #expect(groups.newestFirst(at: 1_000_000).map(\.lastMinute) == [0])
        #expect(groups.newestFirst(at: 1_000_000).map(\.count) == [3])
    }

    /// A busy key keeps its latest clients and queue ids, each once, and no more than the bound.
    @Test func clientsAndQueueIDs() {
        var groups = RefusalGroups()
        for number in 0..<30 {
            let id = number % 2 == 0 ? "" : "4FZ\(number)"
            groups.add(Self.refusal("alice", at: 1000, client: "host[192.0.2.\(number % 20)]", queueID: id))
        }
        let group = groups.newestFirst(at: 1000)[0]
        #expect(group.clients.count == RefusalGroup.mostKept)
        #expect(group.clients.prefix(2) == ["host[192.0.2.9]", "host[192.0.2.8]"])
        #expect(Set(group.clients).count == group.clients.count)
        #expect(group.queueIDs.first == "4FZ29")
        #expect(group.queueIDs.count == RefusalGroup.mostKept)
    }

    @Test func forgetsWhatWasRefusedLongestAgo() {
        var groups = RefusalGroups(most: 10)
        for number in 0..<1000 { groups.add(Self.refusal("user\(number)", at: Double(number))) }
        let found = groups.newestFirst(at: 1000)
        #expect((10...20).contains(found.count))
        #expect(found.prefix(10).map(\.newest.key) == (0..<10).map { "user\(999 - $0)" })
    }

    /// A host that has not told anything for longer may have refused nothing since.
    @Test func whatAHostHasToldLongAgoIsNotOfTheLastMinute() {
        var groups = RefusalGroups()
        groups.add(Self.refusal("alice", at: 1000))
        let told = [2.0, 11].map { age in
            var answer = HostAnswer(id: 1, from: "mx2", age: age)
            answer.refusals = groups.newestFirst(at: 1001)
            return answer
        }
        let refusals = ToldFigures(own: "mx1", shared: ["per-user"], answers: told).refusals
        #expect(refusals.map { $0.map(\.lastMinute) } == [[1], [0]])
        #expect(refusals.map { $0.map(\.count) } == [[1], [1]])
    }
}
