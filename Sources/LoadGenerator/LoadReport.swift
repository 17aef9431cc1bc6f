// SPDX-License-Identifier: Apache-2.0
import Histogram

/// How often each thing went wrong.
package struct LoadErrors: Codable, Sendable, Equatable {
    /// Connects that failed, and sessions that the peer would not have.
    package var refused = 0
    /// Connections that ended by the peer or by a network fault.
    package var closed = 0
    package var malformed = 0
    /// Operations not answered in time.
    package var timeout = 0

    package init() {}

    package var total: Int { refused + closed + malformed + timeout }
}

/// Latencies in microseconds.
package struct LatencyReport: Codable, Sendable {
    package let p50, p90, p99, p999, max, mean: Double

    init(_ nanoseconds: Histogram<UInt32>) {
        func microseconds(_ percentile: Double) -> Double {
            Double(nanoseconds.valueAtPercentile(percentile)) / 1000
        }
        let isEmpty = nanoseconds.totalCount == 0
        p50 = isEmpty ? 0 : microseconds(50)
        p90 = isEmpty ? 0 : microseconds(90)
        p99 = isEmpty ? 0 : microseconds(99)
        p999 = isEmpty ? 0 : microseconds(99.9)
        max = isEmpty ? 0 : Double(nanoseconds.maxRecorded) / 1000
        mean = isEmpty ? 0 : nanoseconds.mean / 1000
    }
}

/// Why a load ended.
package enum LoadEnding: String, Codable, Sendable {
    case duration, count, interrupted
    /// The last connection was lost.
    case lost
}

/// A load's figures.
package struct LoadReport: Codable, Sendable {
    package let target: String
    /// Those that were made.
    package let connections: Int
    /// Operations a second that were meant, in an open loop.
    package let rate: Double?
    package var endedBy: LoadEnding
    package let seconds: Double
    package let answered: Int
    package let answeredPerSecond: Double
    /// Of a closed loop from the sending of each operation, of an open loop from the time it was due.
    package let latency: LatencyReport
    /// Answers by their first word.
    package let actions: [String: Int]
    package let refusals: Int
    package let errors: LoadErrors
    /// Operations sent once more after a connection was lost.
    package let resent: Int
    /// Operations sent, and given up.
    package let unanswered: Int
    /// Operations of an open loop that were due before the end, and never sent as every connection was busy.
    package let unsent: Int
    /// What the last error was, for a person to read.
    package let lastError: String?
    /// Where the population had a trojan.
    package let trojan: TrojanReport?
    /// Of the latencies, finer the nearer to 100 %.
    package let percentiles: [PercentilePoint]
    /// What each second brought.
    package let series: [LoadProgress]
    /// Where a sink has looked at what arrived.
    package var sink: SinkReport?
}

/// A share of all operations was answered within a time.
package struct PercentilePoint: Codable, Sendable {
    package let percentile: Double
    /// Microseconds.
    package let latency: Double

    /// The points that HdrHistogram's own plots have.
    static func points(of nanoseconds: Histogram<UInt32>) -> [PercentilePoint] {
        guard nanoseconds.totalCount > 0 else { return [] }
        return nanoseconds.percentiles(ticksPerHalfDistance: 5).map {
            PercentilePoint(percentile: $0.percentile, latency: Double($0.value) / 1000)
        }
    }
}

/// The figures of one second of a load.
package struct LoadProgress: Codable, Sendable {
    package let elapsedSeconds: Int
    package let answered: Int
    package let latency: LatencyReport
    /// Since the start.
    package let refusals: Int
    /// Since the start.
    package let errors: Int
}
