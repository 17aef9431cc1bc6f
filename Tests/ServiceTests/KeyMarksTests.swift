// SPDX-License-Identifier: Apache-2.0
import Exchange
import Limits
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
        return KeyMarks(sum, after: 0, warnAt: warnAt, hosts: used.count)
    }

    @Test func theSumReachesThePercentage() {
        #expect(Self.marks([300, 300, 200]).reached == ["1h"])
        #expect(Self.marks([300, 300, 199]).reached.isEmpty)
        #expect(Self.marks([500, 300, nil]).reached == ["1h"])
        #expect(Self.marks([500, 299, nil]).reached.isEmpty)
        // 80 % of 6 is 4.8.
        #expect(Self.marks([3, 2], limit: 6).reached == ["1h"])
        #expect(Self.marks([2, 2], limit: 6).reached.isEmpty)
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
            if !marks.reached.isEmpty { break }
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
        #expect(marks.reached.isEmpty)
        #expect(Self.marks([.max / 10 * 9], limit: .max).reached == ["1h"])
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

    private static func warning(_ key: String, window: String = "1h", after change: Int64 = 0) throws -> SharedWarning {
        try #require(SharedWarning(KeyName(limit: "user", key: key), window: window, change: change))
    }

    @Test func aWindowHasOneWarningWithinItsLength() throws {
        let start = ContinuousClock.now
        var warned = WarnedKeys()
        func add(_ key: String, _ window: String, at seconds: Int, after change: Int64 = 0) throws -> Bool {
            warned.add(try Self.warning(key, window: window, after: change), at: start + .seconds(seconds))
        }
        #expect(try [0, 1, 119].map { try add("a", "2m", at: $0) } == [true, false, false])
        #expect(try [0, 120, 121].map { try add("b", "2m", at: $0) } == [true, true, false])
        // However short it is, a key that stays near its limit has one warning a minute.
        #expect(try [0, 59, 60].map { try add("a", "1s", at: $0) } == [true, false, true])
        // After a change by an administrator, there is another one.
        #expect(try [0, 1].map { try add("a", "2m", at: $0, after: 7) } == [true, false])
        #expect(!warned.contains(try Self.warning("c", window: "2m"), at: start))
    }

    @Test(arguments: ["", "1", "x", "0s", "900000000000w"])
    func warningsOfStrangeWindowsAreNone(window: String) {
        #expect(SharedWarning(KeyName(limit: "user", key: "a"), window: window, change: 0) == nil)
    }

    /// A window that is reached leaves the marks of the others.
    @Test func eachWindowIsDecidedByItself() throws {
        var sum = KeyStanding(
            limit: "user", key: "a", count: "recipients", mode: "enforce",
            rates: [("1m", 48, 60), ("1d", 48, 1000)].map { window, used, limit in
                .init(
                    rate: "\(limit)/\(window)", window: window, used: used, limit: limit, freesAt: nil, history: nil)
            }, refusedTries: 0, blockedUntil: nil, raisedUntil: nil, exempt: false)
        sum.hosts = [
            HostUse(host: "mx1", used: [40, 40], refusedTries: 0, age: 0),
            HostUse(host: "mx2", used: [8, 8], refusedTries: 0, age: 0),
        ]
        let marks = KeyMarks(sum, after: 5, warnAt: 80, hosts: 2)
        #expect(marks.reached == ["1m"])
        #expect(marks.warnings == [try Self.warning("a", window: "1m", after: 5)])
        #expect(marks.marks == ["mx1": ["1d": 416], "mx2": ["1d": 384]])
        let use = marks.use(for: "mx2") { _ in false }
        #expect(use == .init(marks: [60_000: .max, 86_400_000: 384], change: 5))
        // A host that has not answered keeps its mark of the day.
        #expect(marks.use(for: "mx3") { _ in false } == .init(marks: [60_000: .max], change: 5))
        // The warning of the day was given meanwhile.
        #expect(marks.use(for: "mx2") { $0.window == "1d" }?.marks[86_400_000] == .max)
    }

    /// However many keys there are, those that are warned of last are known.
    @Test func warnedKeysAreBounded() throws {
        var warned = WarnedKeys()
        let now = ContinuousClock.now
        for number in 0..<10_050 {
            let isNew = warned.add(try Self.warning("\(number)"), at: now)
            #expect(isNew)
        }
        let count = try (0..<10_050).count { warned.contains(try Self.warning("\($0)"), at: now) }
        #expect(count == 10_000)
    }
}
