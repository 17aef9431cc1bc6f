// SPDX-License-Identifier: Apache-2.0

/// What a limit has refused to one key since the start, or would have refused without shadow mode.
package struct RefusalGroup: Codable, Equatable, Sendable {
    /// The newest refusal.
    package private(set) var newest: RefusedRequest
    package private(set) var count: UInt64 = 0
    /// Seconds since 1970.
    package private(set) var first: Double
    /// Refusals of the last minute, or up to ten seconds more. Only `RefusalGroups.newestFirst` keeps it up to date.
    package fileprivate(set) var lastMinute: UInt64 = 0
    /// `host[192.0.2.1]`, newest first; at most `mostKept`.
    package private(set) var clients: [String] = []
    /// Newest first; at most `mostKept`.
    package private(set) var queueIDs: [String] = []
    private var pieces = [UInt64](repeating: 0, count: RefusalGroup.piecesKept)
    private var newestPiece: Int64 = 0

    package static let mostKept = 10
    private static let pieceSeconds: Int64 = 10
    /// A minute, and the piece that has just begun.
    private static let piecesKept = 7

    private enum CodingKeys: CodingKey {
        case newest, count, first, lastMinute, clients, queueIDs
    }

    fileprivate init(_ refusal: RefusedRequest) {
        newest = refusal
        first = refusal.time
    }

    fileprivate mutating func add(_ refusal: RefusedRequest) {
        newest = refusal
        count += 1
        Self.keep(refusal.client, in: &clients)
        if !refusal.queueID.isEmpty { Self.keep(refusal.queueID, in: &queueIDs) }
        advance(to: refusal.time)
        pieces[Int(newestPiece % Int64(Self.piecesKept))] += 1
    }

    /// A wall clock that steps back leaves the pieces as they are.
    fileprivate mutating func advance(to time: Double) {
        let piece = Int64(time) / Self.pieceSeconds
        guard piece > newestPiece else { return }
        for passed in max(newestPiece + 1, piece - Int64(Self.piecesKept) + 1)...piece {
            pieces[Int(passed % Int64(Self.piecesKept))] = 0
        }
        newestPiece = piece
    }

    fileprivate func counted(at time: Double) -> Self {
        var group = self
        group.advance(to: time)
        group.lastMinute = group.pieces.reduce(0, +)
        return group
    }

    /// Adds what another host has refused.
    package mutating func add(_ other: RefusalGroup) {
        let (one, other) = newest.time < other.newest.time ? (self, other) : (other, self)
        self = other
        count += one.count
        lastMinute += one.lastMinute
        first = min(one.first, first)
        for client in one.clients where !clients.contains(client) && clients.count < Self.mostKept {
            clients.append(client)
        }
        for queueID in one.queueIDs where !queueIDs.contains(queueID) && queueIDs.count < Self.mostKept {
            queueIDs.append(queueID)
        }
    }

    /// The group without its rate, for figures that another host has told too long ago: nobody knows what that host has
    /// refused since.
    package var withoutRate: Self {
        var group = self
        group.lastMinute = 0
        return group
    }

    /// The group as another host has told it, with no figure that can't be added or shown.
    package func bounded(most: UInt64, from host: String) -> Self {
        let times = 0...1e11
        func bounded(_ time: Double) -> Double { times.contains(time) ? time : 0 }
        var group = self
        group.newest.host = host
        group.newest.time = bounded(newest.time)
        group.newest.retry = min(max(0, newest.retry), Int64(times.upperBound))
        group.count = min(count, most)
        group.first = bounded(first)
        group.lastMinute = min(lastMinute, most)
        group.clients = Array(clients.prefix(Self.mostKept))
        group.queueIDs = Array(queueIDs.prefix(Self.mostKept))
        return group
    }

    private static func keep(_ text: String, in texts: inout [String]) {
        guard texts.first != text else { return }
        texts.removeAll { $0 == text }
        texts.insert(text, at: 0)
        if texts.count > mostKept { texts.removeLast() }
    }
}

/// Refusals by limit, mode and key. Keys whose last refusal is oldest are forgotten first.
package struct RefusalGroups: Sendable {
    private struct Name: Hashable {
        let limit: String
        let mode: String
        let key: String

        init(_ refusal: RefusedRequest) { (limit, mode, key) = (refusal.limit, refusal.mode, refusal.key) }
    }

    private var groups: [Name: RefusalGroup] = [:]
    private let most: Int

    /// - Parameter most: groups that are kept at least, if there are as many. There are at most twice as many.
    package init(most: Int = 500) {
        self.most = most
    }

    package mutating func add(_ refusal: RefusedRequest) {
        let name = Name(refusal)
        groups[name, default: RefusalGroup(refusal)].add(refusal)
        if groups.count > 2 * most { prune() }
    }

    package func newestFirst(at time: Double) -> [RefusalGroup] {
        groups.values.map { $0.counted(at: time) }.sorted { Self.precedes($0, $1) }
    }

    /// The groups of several hosts as one list, the newest first.
    package static func merged(_ lists: [[RefusalGroup]]) -> [RefusalGroup] {
        var groups: [Name: RefusalGroup] = [:]
        for group in lists.joined() {
            let name = Name(group.newest)
            if groups[name] == nil { groups[name] = group } else { groups[name]?.add(group) }
        }
        return groups.values.sorted { precedes($0, $1) }
    }

    private mutating func prune() {
        let kept = groups.sorted { Self.precedes($0.value, $1.value) }.prefix(most)
        groups = Dictionary(uniqueKeysWithValues: kept.map { ($0.key, $0.value) })
    }

    private static func precedes(_ one: RefusalGroup, _ other: RefusalGroup) -> Bool {
        let (newer, older) = (one.newest, other.newest)
        return (newer.time, older.limit, older.key) > (older.time, newer.limit, newer.key)
    }
}
