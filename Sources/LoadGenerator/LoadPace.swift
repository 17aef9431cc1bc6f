// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The rate of a load over time.
package struct LoadPace: Sendable, Equatable {
    package struct Phase: Sendable, Equatable {
        package let seconds: Double
        /// Operations per second, above zero.
        package let rate: Double
    }

    package let phases: [Phase]

    private init(_ phases: [Phase]) {
        self.phases = phases
    }

    package static func steady(rate: Double, for duration: TimeAmount) -> LoadPace {
        LoadPace([Phase(seconds: duration.seconds, rate: rate)])
    }

    /// Three times the rate in the middle third.
    package static func peak(rate: Double, for duration: TimeAmount) -> LoadPace {
        LoadPace([1, 3, 1].map { Phase(seconds: duration.seconds / 3, rate: rate * $0) })
    }

    /// Adds `addition` to the rate after a time.
    package static func rising(
        rate: Double, by addition: Double, after: TimeAmount, for duration: TimeAmount
    ) -> LoadPace {
        LoadPace([
            Phase(seconds: after.seconds, rate: rate),
            Phase(seconds: max(0, (duration - after).seconds), rate: rate + addition),
        ])
    }

    /// `count` operations along the curve of a working day, compressed into `duration`.
    package static func day(count: Int, in duration: TimeAmount) -> LoadPace {
        let sum = hours.reduce(0, +)
        let seconds = duration.seconds / Double(hours.count)
        return LoadPace(hours.map { Phase(seconds: seconds, rate: Double(count) * $0 / sum / seconds) })
    }

    /// The rate of each hour of a working day, relative to the busiest.
    private static let hours: [Double] = [
        0.18, 0.14, 0.12, 0.12, 0.14, 0.20, 0.33, 0.55, 0.82, 0.97, 1.00, 0.95,
        0.80, 0.86, 0.98, 0.95, 0.86, 0.70, 0.52, 0.42, 0.38, 0.34, 0.28, 0.22,
    ]

    /// The number of operations due in the first `seconds`.
    package func due(within seconds: Double) -> Double {
        var rest = seconds
        var due = 0.0
        for (index, phase) in phases.enumerated() where rest > 0 {
            let length = index + 1 == phases.count ? rest : min(rest, phase.seconds)
            due += length * phase.rate
            rest -= length
        }
        return due
    }

    /// Operations per second over all phases.
    package var meanRate: Double {
        let seconds = phases.reduce(0) { $0 + $1.seconds }
        return phases.reduce(0) { $0 + $1.seconds * $1.rate } / seconds
    }
}

extension TimeAmount {
    var seconds: Double { Double(nanoseconds) / 1e9 }
}
