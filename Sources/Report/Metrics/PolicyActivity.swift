// SPDX-License-Identifier: Apache-2.0

/// Figures of the policy server for the page, `weir top` and the metrics. Belongs to the ledger's loop. Counting costs
/// one addition per request; everything else is computed on demand.
package struct PolicyActivity: Sendable {
    /// By `PolicyAction`, as all that follow.
    private var totals = [UInt64](repeating: 0, count: PolicyActivity.actions)
    /// Actions of the requests that have been decided since `recordTick`.
    private var pending = [UInt64](repeating: 0, count: PolicyActivity.actions)
    /// Since the start.
    package private(set) var latency = LatencyHistogram()
    /// The latencies of the last minute, in pieces of ten seconds. The index is the piece modulo the number of them.
    private var latencies = [LatencyHistogram](repeating: LatencyHistogram(), count: PolicyActivity.piecesKept)
    private var newestPiece: Int64 = 0
    /// Oldest last.
    package private(set) var refusals = Recent<RefusedRequest>(most: 200)
    package private(set) var refusalGroups = RefusalGroups()

    /// A row for each second of the last ten minutes; its number is the second modulo the number of them.
    private var seconds = [UInt64](repeating: 0, count: PolicyActivity.secondsKept * PolicyActivity.actions)
    private var newest: Int64 = 0

    private static let actions = PolicyAction.allCases.count
    package static let secondsKept = 600
    private static let pieceSeconds: Int64 = 10
    /// A minute, and the piece that is going on.
    private static let piecesKept = 7

    package init() {}

    /// Requests that were answered with an action; `recordTick` follows.
    package mutating func count(_ answer: [UInt8], requests: Int = 1) {
        pending[PolicyAction(answer).rawValue] &+= UInt64(requests)
    }

    /// Adds the tick's requests to the totals and to `second`: `passed` requests got DUNNO, the others were counted
    /// by `count`.
    package mutating func recordTick(passed: UInt64, at second: Int64) {
        advance(to: second)
        let row = Self.row(second)
        pending[PolicyAction.dunno.rawValue] &+= passed
        for action in 0..<Self.actions where pending[action] > 0 {
            totals[action] &+= pending[action]
            seconds[row + action] &+= pending[action]
            pending[action] = 0
        }
    }

    package mutating func record(latency nanoseconds: Int64, requests: Int, at second: Int64) {
        latency.record(nanoseconds, count: UInt64(requests))
        let piece = second / Self.pieceSeconds
        advance(toPiece: piece)
        latencies[Int(piece) % Self.piecesKept].record(nanoseconds, count: UInt64(requests))
    }

    package mutating func note(_ refusal: RefusedRequest) {
        refusals.append(refusal)
        refusalGroups.add(refusal)
    }

    /// The latency of answers in the last minute, or up to ten seconds more.
    package mutating func latencyOfLastMinute(at second: Int64) -> LatencyHistogram {
        advance(toPiece: second / Self.pieceSeconds)
        return latencies.reduce(into: LatencyHistogram()) { $0.add($1) }
    }

    package func total(_ action: PolicyAction) -> UInt64 { totals[action.rawValue] }

    /// Oldest first, without the current second.
    package mutating func history(of action: PolicyAction, at second: Int64) -> [UInt64] {
        advance(to: second)
        return (1..<Self.secondsKept).map { seconds[Self.row(second + Int64($0)) + action.rawValue] }
    }

    private static func row(_ second: Int64) -> Int { Int(second % Int64(secondsKept)) * actions }

    /// Seconds of the machine's uptime, which does not go back.
    private mutating func advance(to second: Int64) {
        guard second > newest else { return }
        for passed in max(newest + 1, second - Int64(Self.secondsKept) + 1)...second {
            let row = Self.row(passed)
            for action in 0..<Self.actions { seconds[row + action] = 0 }
        }
        newest = second
    }

    private mutating func advance(toPiece piece: Int64) {
        guard piece > newestPiece else { return }
        for passed in max(newestPiece + 1, piece - Int64(Self.piecesKept) + 1)...piece {
            latencies[Int(passed) % Self.piecesKept] = LatencyHistogram()
        }
        newestPiece = piece
    }
}

/// The most recent elements, newest first.
package struct Recent<Element: Sendable>: Sendable {
    private var elements: [Element] = []
    private var next = 0
    let most: Int

    package init(most: Int) {
        self.most = most
    }

    package mutating func append(_ element: Element) {
        if elements.count < most { elements.append(element) } else { elements[next] = element }
        next = (next + 1) % most
    }

    package var newestFirst: [Element] {
        let start = elements.count < most ? elements.count : next
        return (0..<elements.count).map { elements[(start - 1 - $0 + elements.count) % elements.count] }
    }
}

/// Durations in the buckets of a Prometheus histogram.
package struct LatencyHistogram: Sendable {
    /// Upper bounds in microseconds.
    package static let bounds: [Int64] = [
        25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000,
        5_000_000,
        10_000_000, 30_000_000,
    ]

    /// The last bucket has no bound.
    package private(set) var counts = [UInt64](repeating: 0, count: bounds.count + 1)
    package private(set) var nanoseconds: UInt64 = 0

    package mutating func record(_ duration: Int64, count: UInt64) {
        let index = Self.bounds.firstIndex { duration <= $0 * 1000 } ?? Self.bounds.count
        counts[index] &+= count
        nanoseconds &+= UInt64(max(0, duration)) &* count
    }

    package mutating func add(_ other: LatencyHistogram) {
        for index in counts.indices { counts[index] &+= other.counts[index] }
        nanoseconds &+= other.nanoseconds
    }

    package var total: UInt64 { counts.reduce(0, &+) }

    /// The bucket's bound, in microseconds, below which this share of all values lies; nil without values, or above all
    /// bounds.
    package func bound(ofShare share: Double) -> Int64? {
        let total = total
        guard total > 0 else { return nil }
        var sum: UInt64 = 0
        for (bound, count) in zip(Self.bounds, counts) {
            sum += count
            if Double(sum) >= share * Double(total) { return bound }
        }
        return nil
    }
}
