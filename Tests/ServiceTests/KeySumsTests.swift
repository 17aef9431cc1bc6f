// SPDX-License-Identifier: Apache-2.0
import Exchange
import Foundation
import Report
import Testing

/// How the figures of several hosts are added up.
struct KeySumsTests {
    private static let hosts = ["mx1", "mx2", "mx3"].map {
        HostFigures(name: $0, isThisHost: $0 == "mx1", hasAnswered: $0 != "mx3", age: $0 == "mx3" ? 12 : 0)
    }

    private static func standing(
        _ key: String, used: UInt64, of limit: UInt64 = 100, limit name: String = "user", history: [UInt64]? = nil,
        refused: UInt64 = 0, blockedUntil: Double? = nil
    ) -> KeyStanding {
        KeyStanding(
            limit: name, key: key, count: "recipients", mode: "enforce",
            rates: [.init(rate: "100/1h", window: "1h", used: used, limit: limit, freesAt: nil, history: history)],
            refusedTries: refused, blockedUntil: blockedUntil, raisedUntil: nil, exempt: false)
    }

    private static func answer(_ host: String, age: Double = 0.5, _ standings: KeyStanding...) -> HostAnswer {
        var answer = HostAnswer(id: 1, from: host, age: age)
        answer.standings = standings
        return answer
    }

    private static func sums(_ own: [KeyStanding], _ answers: HostAnswer...) -> [KeyStanding] {
        var sums = KeySums(own: "mx1", hosts: hosts)
        sums.add(own: own)
        sums.add(answers, tellAll: true)
        return sums.sums(sums.names, at: 1000)
    }

    @Test func usesAreAddedAndEachHostHasItsPart() throws {
        let sums = Self.sums(
            [Self.standing("a", used: 30, refused: 2)],
            Self.answer("mx2", age: 0.4, Self.standing("a", used: 50, refused: 3)))
        let sum = try #require(sums.first)
        #expect(sums.count == 1)
        #expect(sum.rates[0].used == 80)
        #expect(sum.refusedTries == 5)
        #expect(
            sum.hosts == [
                HostUse(host: "mx1", used: [30], refusedTries: 2, age: 0),
                HostUse(host: "mx2", used: [50], refusedTries: 3, age: 0.4),
                HostUse(host: "mx3", used: nil, refusedTries: nil, age: 12),
            ])
    }

    /// A host that has told of some keys only may have used others.
    @Test func aKeyThatAListLacksIsUnknown() throws {
        var sums = KeySums(own: "mx1", hosts: Self.hosts)
        sums.add(own: [Self.standing("a", used: 30)])
        sums.add([Self.answer("mx2", Self.standing("b", used: 50))], tellAll: false)
        let sum = try #require(sums.sums(sums.names, at: 1000).first { $0.key == "a" })
        #expect(sum.hosts?.map(\.used) == [[30], nil, nil])
    }

    @Test func theSumSaysWhichKeyIsFullest() {
        let sums = Self.sums(
            [Self.standing("alone", used: 60), Self.standing("both", used: 40)],
            Self.answer("mx2", Self.standing("both", used: 40), Self.standing("there", used: 10)))
        #expect(sums.map(\.key) == ["both", "alone", "there"])
        // Hosts that do not know a key have used nothing.
        #expect(sums[2].hosts?.map(\.used) == [[0], [10], nil])
    }

    @Test func thereIsRoomWhenTheOldestSlotsOfAllHostsHaveLeft() {
        var (own, other) = ([UInt64](repeating: 0, count: 61), [UInt64](repeating: 0, count: 61))
        (own[2], own[60], other[10], other[60]) = (20, 30, 30, 20)
        let full = Self.sums(
            [Self.standing("a", used: 50, history: own)],
            Self.answer("mx2", Self.standing("a", used: 50, history: other)))
        // The third oldest slot of 61 leaves after three minutes of an hour.
        #expect(full[0].rates[0].freesAt == 1180)
        #expect(full[0].rates[0].history?[10] == 30)
        let notFull = Self.sums(
            [Self.standing("a", used: 50, history: own)],
            Self.answer("mx2", Self.standing("a", used: 49, history: other)))
        #expect(notFull[0].rates[0].freesAt == nil)
    }

    @Test func windowsAreMatchedAndOtherLimitsOfAHostDoNotCount() throws {
        var other = Self.standing("a", used: 50, of: 200)
        other.rates.insert(.init(rate: "5/1m", window: "1m", used: 5, limit: 5, freesAt: nil, history: nil), at: 0)
        let sum = try #require(Self.sums([Self.standing("a", used: 1)], Self.answer("mx2", other)).first)
        #expect(sum.rates.map(\.used) == [51])
        #expect(sum.rates.map(\.limit) == [100])
    }

    @Test func aHostThatIsNotConfiguredDoesNotCount() {
        let sums = Self.sums([Self.standing("a", used: 1)], Self.answer("mx9", Self.standing("a", used: 50)))
        #expect(sums.map { $0.rates[0].used } == [1])
    }

    @Test func aBlockOnOneHostIsShown() {
        let sums = Self.sums(
            [Self.standing("a", used: 1)], Self.answer("mx2", Self.standing("a", used: 1, blockedUntil: 2000)))
        #expect(sums[0].blockedUntil == 2000)
    }

    @Test func sumsDoNotOverflow() {
        let sums = Self.sums(
            [Self.standing("a", used: .max)], Self.answer("mx2", Self.standing("a", used: .max, refused: .max)))
        #expect(sums[0].rates[0].used == .max)
    }

    @Test func theSummarySaysWhoIsMissing() {
        let text = SharedFigures(fault: nil, hosts: Self.hosts).summary { "\(Int($0))s" }
        #expect(text == "figures of mx1 (this host), mx2 (0s old); mx3: no answer, last heard 12s ago")
        #expect(SharedFigures(fault: nil, hosts: [Self.hosts[0]]).summary { "\($0)" } == nil)
    }
}
