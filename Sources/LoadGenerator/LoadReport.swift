// SPDX-License-Identifier: Apache-2.0
import Histogram

/// The number of errors of each kind.
package struct LoadErrors: Codable, Sendable, Equatable {
    /// Failed connects, and sessions that the peer refused.
    package var refused = 0
    /// Connections closed by the peer or broken by the network.
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

/// The reason for the end of a load.
package enum LoadEnding: String, Codable, Sendable {
    case duration, count, interrupted
    /// The last connection was lost.
    case lost
}

/// The figures of a load.
package struct LoadReport: Codable, Sendable {
    package let target: String
    /// Connections that succeeded.
    package let connections: Int
    /// Requested operations per second of an open loop; absent for a closed loop.
    package let rate: Double?
    package var endedBy: LoadEnding
    /// Without the wait for answers that never came.
    package let seconds: Double
    package let answered: Int
    package let answeredPerSecond: Double
    /// In a closed loop measured from the sending of an operation, in an open loop from the time it was due.
    package let latency: LatencyReport
    /// Answers by their first word.
    package let actions: [String: Int]
    package let refusals: Int
    package let errors: LoadErrors
    /// Operations sent again after a connection was lost.
    package let resent: Int
    /// Operations sent and never answered.
    package let unanswered: Int
    /// Operations of an open loop that were due but never sent, because all connections were busy.
    package let unsent: Int
    /// The text of the last error.
    package let lastError: String?
    /// Absent if the population has no trojan.
    package let trojan: TrojanReport?
    /// The latency distribution, with more points towards 100 %.
    package let percentiles: [PercentilePoint]
    /// The figures of each second; the last may be of a shorter time.
    package let series: [LoadProgress]
    /// Absent without a sink.
    package var sink: SinkReport?
}

/// A point of the latency distribution.
package struct PercentilePoint: Codable, Sendable {
    package let percentile: Double
    /// Microseconds.
    package let latency: Double

    /// The points of HdrHistogram's own plots.
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
