// SPDX-License-Identifier: Apache-2.0
import Exchange
import Report
import Testing

/// When hosts ask each other whether all of them together are near a limit.
struct KeyMarksTests {
    /// - Parameter used: of a limit of 1,000, by host; nil without an answer.
    private static func marks(_ used: [UInt64?], warnAt: UInt64 = 80, limit: UInt64 = 1000) -> KeyMarks {
        var sum = KeyStanding(
            limit: "user", key: "a", count: "recipients", mode: "enforce",
            rates: [
                .init(
                    rate: "\(limit)/1h", window: "1h", used: used.compactMap(\.self).reduce(0, +), limit: limit,
                    freesAt: nil, history: nil)
            ], refusedTries: 0, blockedUntil: nil, raisedUntil: nil, exempt: false)
        sum.hosts = used.enumerated().map { index, used in
            HostUse(host: "mx\(index + 1)", used: used.map { [$0] }, refusedTries: 0, age: 0)
        }
        return KeyMarks(sum, warnAt: warnAt, hosts: used.count)
    }

    @Test func theSumReachesThePercentage() {
        #expect(Self.marks([300, 300, 200]).isReached)
        #expect(!Self.marks([300, 300, 199]).isReached)
        #expect(Self.marks([500, 300, nil]).isReached)
        #expect(!Self.marks([500, 299, nil]).isReached)
        // 80 % of 6 is 4.8.
        #expect(Self.marks([3, 2], limit: 6).isReached)
        #expect(!Self.marks([2, 2], limit: 6).isReached)
    }

    /// As long as no host has reached its mark, all together are below the percentage and 1 % more.
    @Test(arguments: [[0, 0, 0], [400, 0, 100], [266, 266, 266], [799, 0, 0], [0, 795, 0]] as [[UInt64]])
    func marksLeaveNoGap(_ used: [UInt64]) throws {
        let marks = Self.marks(used).marks
        let sum = try used.indices.reduce(into: UInt64(0)) { sum, index in
            let mark = try #require(marks["mx\(index + 1)"]?["1h"])
            #expect(mark > used[index])
            sum += mark - 1
        }
        #expect(sum < 800 + 10)
    }

    /// If one host uses all of a limit, it asks some ten times.
    @Test func questionsAreFew() throws {
        var (used, questions): (UInt64, Int) = (267, 1)
        while true {
            let marks = Self.marks([used, 0, 0])
            if marks.isReached { break }
            used = try #require(marks.marks["mx1"]?["1h"])
            questions += 1
        }
        #expect(5...20 ~= questions)
        #expect(800...803 ~= used)
    }

    @Test func aHostThatHasNotAnsweredKeepsItsMarks() {
        #expect(Set(Self.marks([300, nil, 10]).marks.keys) == ["mx1", "mx3"])
    }

    @Test func theLargestFiguresFit() {
        let marks = Self.marks([.max / 2, 0], limit: .max)
        #expect(!marks.isReached)
        #expect(Self.marks([.max / 10 * 9], limit: .max).isReached)
    }

    @Test func messagesArriveAsTheyWereSent() throws {
        let sent = MarksMessage(from: "mx1", keys: [Self.marks([300, 20]), Self.marks([900, 0])])
        let message = try #require(sent.message)
        #expect(MarksMessage(message) == sent)
        for text in ["", "{}", "[]", #"{"from":"mx1"}"#, #"{"from":"mx1","keys":[{}]}"#] {
            #expect(MarksMessage(Array(text.utf8)) == nil)
        }
        let many = MarksMessage(from: "mx1", keys: Array(repeating: Self.marks([1, 2]), count: 501))
        #expect(MarksMessage(try #require(many.message)) == nil)
    }

    @Test func aKeyHasOneWarningWithinItsWindow() {
        let start = ContinuousClock.now
        var warned = WarnedKeys()
        func add(_ key: String, at seconds: Int) -> Bool {
            let now = start + .seconds(seconds)
            return warned.add(KeyName(limit: "user", key: key), until: now + .seconds(60), at: now)
        }
        #expect([0, 1, 59].map { add("a", at: $0) } == [true, false, false])
        #expect([0, 60, 61].map { add("b", at: $0) } == [true, true, false])
        let isKnown = warned.contains(KeyName(limit: "other", key: "a"), at: start)
        #expect(!isKnown)
    }

    /// However many keys there are, those that are warned of last are known.
    @Test func warnedKeysAreBounded() {
        var warned = WarnedKeys()
        let now = ContinuousClock.now
        for number in 0..<10_050 {
            let isNew = warned.add(KeyName(limit: "user", key: "\(number)"), until: now + .seconds(60), at: now)
            #expect(isNew)
        }
        let count = (0..<10_050).count { warned.contains(KeyName(limit: "user", key: "\($0)"), at: now) }
        #expect(count == 10_000)
    }
}
