// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Limits
package import Report

/// What one host asks of all others that share its limits. JSON, in a message of at most `mostBytes`.
package struct HostQuestion: Codable, Equatable, Sendable {
    package enum Subject: Codable, Hashable, Sendable {
        /// The fullest keys, of one limit or of all.
        case fullest(most: Int, limit: String?)
        /// The keys that an administrator means. `state` and `match` are as in requests to the admin listener.
        case selection(state: String?, limit: String?, match: String?, most: Int)
        /// How these keys stand.
        case names([KeyName], withHistory: Bool)
        /// How a key stands, in any spelling, with one limit or with all.
        case key(String, limit: String?)
        /// Keys that contain the text.
        case search(String)
        /// What the limits have counted, and what they have refused.
        case figures
    }

    /// Chosen by the host that asks.
    package var id: UInt64
    package var from: String
    package var subject: Subject

    package static let mostBytes = 1 << 20
    /// The most keys of a question or an answer.
    package static let mostKeys = 4000

    package init(id: UInt64, from: String, subject: Subject) {
        self.id = id
        self.from = from
        self.subject = subject
    }

    /// nil if the message is no question of this version, or is too long.
    package init?(_ message: [UInt8]) {
        guard message.count <= Self.mostBytes,
            let question = try? JSONDecoder().decode(Self.self, from: Data(message)), question.isBounded
        else { return nil }
        self = question
    }

    private var isBounded: Bool {
        switch subject {
        case .fullest(let most, _): 1...Self.mostKeys ~= most
        case .selection(let state, _, let match, let most):
            1...Self.mostKeys ~= most && [state ?? "", match ?? ""].allSatisfy { $0.utf8.count <= KeyPattern.longest }
        case .names(let names, _): names.count <= Self.mostKeys
        // Each of the following is done at once on the ledger's loop, or for each key.
        case .key(let key, _): key.utf8.count <= Self.longestKey
        case .search(let text): text.utf8.count <= KeyPattern.longest
        case .figures: true
        }
    }

    /// Bytes.
    private static let longestKey = 1024

    /// nil if it would be too long.
    package var message: [UInt8]? { HostAnswer.encoded(self) }
}

/// The answer of one host.
package struct HostAnswer: Codable, Equatable, Sendable {
    /// The id of the question.
    package var id: UInt64
    package var from: String
    /// Seconds since the figures were taken.
    package var age: Double
    /// When it was sent, in seconds since 1970 by the sender's clock; nil from earlier versions of Weir.
    package var sentAt: Double?
    /// How keys stand with limits that the hosts share.
    package var standings: [KeyStanding] = []
    /// How many keys there are, if there are more than `standings`.
    package var count = 0
    package var isCut = false
    /// By name. Their `host` is empty: only the sender of the message counts.
    package var limits: [String: LimitPart] = [:]
    package var refusals: [RefusalGroup] = []

    package init(id: UInt64, from: String, age: Double) {
        self.id = id
        self.from = from
        self.age = age
    }

    /// nil if the message is no answer of this version, or is too long. No figure of the result is so large that adding
    /// or showing it fails.
    package init?(_ message: [UInt8]) {
        guard message.count <= HostQuestion.mostBytes,
            let answer = try? JSONDecoder().decode(Self.self, from: Data(message)),
            answer.standings.count <= HostQuestion.mostKeys, answer.age >= 0, answer.age <= Self.mostAge
        else { return nil }
        self = answer
        count = min(max(0, count), Int(Self.mostUnits))
        standings = standings.filter(Self.isSound).map(Self.bounded)
        limits = limits.mapValues(bounded)
        refusals = refusals.prefix(Self.mostRefusals).map { $0.bounded(most: Self.mostUnits, from: from) }
    }

    /// Turns the times of standings from the sender's clock to that of this host.
    ///
    /// - Parameter now: seconds since 1970.
    package mutating func setClock(to now: Double) {
        guard let sentAt, Self.times.contains(sentAt) else { return }
        func turned(_ time: Double?) -> Double? { Self.bounded(time.map { $0 + now - sentAt }) }
        for index in standings.indices {
            standings[index].blockedUntil = turned(standings[index].blockedUntil)
            standings[index].raisedUntil = turned(standings[index].raisedUntil)
            for rate in standings[index].rates.indices {
                standings[index].rates[rate].freesAt = turned(standings[index].rates[rate].freesAt)
            }
        }
    }

    static let mostRefusals = 100
    private static let mostUnits: UInt64 = 1 << 50
    private static let mostAge = 3600.0
    private static let times = 0...1e11

    /// Whether it has the form of a standing of Weir. Its words go to terminals and pages.
    private static func isSound(_ standing: KeyStanding) -> Bool {
        func isWord(_ text: String) -> Bool {
            text.utf8.count <= 32 && text.utf8.allSatisfy { 0x21...0x7e ~= $0 }
        }
        return 1...mostRates ~= standing.rates.count && isWord(standing.count) && isWord(standing.mode)
            && standing.rates.allSatisfy { isWord($0.rate) && isWord($0.window) }
    }

    private static let mostRates = 100

    private static func bounded(_ standing: KeyStanding) -> KeyStanding {
        var standing = standing
        for index in standing.rates.indices {
            standing.rates[index].used = min(standing.rates[index].used, mostUnits)
            standing.rates[index].limit = min(standing.rates[index].limit, mostUnits)
            standing.rates[index].freesAt = bounded(standing.rates[index].freesAt)
            standing.rates[index].history = standing.rates[index].history?.prefix(100).map { min($0, mostUnits) }
        }
        standing.refusedTries = min(standing.refusedTries, mostUnits)
        standing.blockedUntil = bounded(standing.blockedUntil)
        standing.raisedUntil = bounded(standing.raisedUntil)
        (standing.note, standing.hosts) = (nil, nil)
        return standing
    }

    private static func bounded(_ time: Double?) -> Double? {
        time.flatMap { times.contains($0) ? $0 : nil }
    }

    private func bounded(_ part: LimitPart) -> LimitPart {
        LimitPart(
            host: from, keys: min(max(0, part.keys), Int(Self.mostUnits)), refusals: min(part.refusals, Self.mostUnits),
            blocks: min(part.blocks, Self.mostUnits))
    }

    /// With fewer keys and refusals if the message would be too long.
    package var message: [UInt8]? {
        if let message = Self.encoded(self) { return message }
        guard !standings.isEmpty || !refusals.isEmpty else { return nil }
        var shorter = self
        shorter.count = max(count, standings.count)
        shorter.standings.removeLast((standings.count + 1) / 2)
        shorter.refusals.removeLast((refusals.count + 1) / 2)
        shorter.isCut = true
        return shorter.message
    }

    static func encoded(_ value: some Encodable) -> [UInt8]? {
        guard let data = try? JSONEncoder().encode(value), data.count <= HostQuestion.mostBytes else { return nil }
        return Array(data)
    }
}
