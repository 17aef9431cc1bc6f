// SPDX-License-Identifier: Apache-2.0
internal import Report

/// The text format of Prometheus (version 0.0.4). Label values are names from the configuration, never a peer's data.
struct Metrics {
    enum Kind: String {
        case counter, gauge, histogram
    }

    struct Sample {
        let labels: KeyValuePairs<String, String>
        let value: String

        init(_ labels: KeyValuePairs<String, String>, _ value: some CustomStringConvertible) {
            self.labels = labels
            self.value = value.description
        }
    }

    private(set) var text = ""

    mutating func add(_ name: String, _ kind: Kind, _ help: String, samples: [Sample]) {
        begin(name, kind, help)
        for sample in samples { append(name, sample) }
    }

    /// A metric with one sample and no labels.
    mutating func add(_ name: String, _ kind: Kind, _ help: String, _ value: some CustomStringConvertible) {
        add(name, kind, help, samples: [Sample([:], value)])
    }

    /// A histogram in seconds.
    mutating func add(_ name: String, _ help: String, _ histogram: LatencyHistogram) {
        begin(name, .histogram, help)
        var sum: UInt64 = 0
        for (bound, count) in zip(LatencyHistogram.bounds, histogram.counts) {
            sum += count
            append("\(name)_bucket", Sample(["le": "\(Double(bound) / 1_000_000)"], sum))
        }
        append("\(name)_bucket", Sample(["le": "+Inf"], histogram.total))
        append("\(name)_sum", Sample([:], Double(histogram.nanoseconds) / 1_000_000_000))
        append("\(name)_count", Sample([:], histogram.total))
    }

    private mutating func begin(_ name: String, _ kind: Kind, _ help: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n"
    }

    private mutating func append(_ name: String, _ sample: Sample) {
        let labels = sample.labels.map { "\($0)=\"\(Self.escaped($1))\"" }.joined(separator: ",")
        text += "\(name)\(labels.isEmpty ? "" : "{\(labels)}") \(sample.value)\n"
    }

    private static func escaped(_ value: String) -> String {
        value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}
