// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import NIOCore

/// What the policy server and the ledger have been doing: for the page, `weir top` and the metrics. Belongs to the ledger's
/// event loop; counting costs an addition per request, and all else is done when somebody looks.
struct PolicyActivity {
    /// What became of the requests of one second.
    struct Second: Codable, Sendable {
        var passed: UInt64 = 0
        var answered: UInt64 = 0
    }

    /// Requests that were let through without a word.
    private(set) var passed: UInt64 = 0
    /// Those that were answered with an action.
    private(set) var answered: UInt64 = 0
    private(set) var latency = LatencyHistogram()
    /// Oldest last.
    private(set) var refusals = Recent<AdminMessages.Refusal>(most: 200)

    /// One for each second of the last ten minutes; the index is the second modulo the number of them.
    private var seconds = [Second](repeating: Second(), count: PolicyActivity.secondsKept)
    private var newest: Int64 = 0

    static let secondsKept = 600

    mutating func count(passed: UInt64, answered: UInt64, at second: Int64) {
        self.passed &+= passed
        self.answered &+= answered
        advance(to: second)
        let index = Int(second % Int64(Self.secondsKept))
        seconds[index].passed &+= passed
        seconds[index].answered &+= answered
    }

    mutating func record(latency: TimeAmount, requests: Int) {
        self.latency.record(latency.nanoseconds, count: UInt64(requests))
    }

    mutating func note(_ refusal: AdminMessages.Refusal) { refusals.append(refusal) }

    /// Oldest first; the second that is going on is left out.
    mutating func history(at second: Int64) -> [Second] {
        advance(to: second)
        return (1..<Self.secondsKept).map { seconds[Int((second + Int64($0)) % Int64(Self.secondsKept))] }
    }

    /// Seconds of the machine's uptime, which does not go back.
    private mutating func advance(to second: Int64) {
        guard second > newest else { return }
        for passed in max(newest + 1, second - Int64(Self.secondsKept) + 1)...second {
            seconds[Int(passed % Int64(Self.secondsKept))] = Second()
        }
        newest = second
    }
}

/// The last few of something, newest first.
struct Recent<Element: Sendable>: Sendable {
    private var elements: [Element] = []
    private var next = 0
    let most: Int

    init(most: Int) {
        self.most = most
    }

    mutating func append(_ element: Element) {
        if elements.count < most { elements.append(element) } else { elements[next] = element }
        next = (next + 1) % most
    }

    var newestFirst: [Element] {
        let start = elements.count < most ? elements.count : next
        return (0..<elements.count).map { elements[(start - 1 - $0 + elements.count) % elements.count] }
    }
}

/// How long things took, in the buckets of a Prometheus histogram.
struct LatencyHistogram: Sendable {
    /// Upper bounds in microseconds.
    static let bounds: [Int64] = [25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000]

    /// The last one has no bound.
    private(set) var counts = [UInt64](repeating: 0, count: bounds.count + 1)
    private(set) var nanoseconds: UInt64 = 0

    mutating func record(_ duration: Int64, count: UInt64) {
        let index = Self.bounds.firstIndex { duration <= $0 * 1000 } ?? Self.bounds.count
        counts[index] &+= count
        nanoseconds &+= UInt64(max(0, duration)) &* count
    }

    var total: UInt64 { counts.reduce(0, &+) }

    /// The bound, in microseconds, below which this share of all was; nil where there was nothing, or it is above all bounds.
    func bound(ofShare share: Double) -> Int64? {
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
