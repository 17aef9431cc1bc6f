// SPDX-License-Identifier: Apache-2.0
internal import Report

/// The state of the service as a plugin of Nagios reports it.
package struct Health: Equatable, Sendable {
    /// The raw values are the exit statuses of the plugin interface.
    package enum State: Int32, Comparable, Sendable {
        case ok, warning, critical, unknown

        package static func < (one: State, other: State) -> Bool { one.rawValue < other.rawValue }
    }

    package let state: State
    /// What is wrong, or a summary. Without a line break or the `|` that begins the performance data.
    package let text: String
    /// `name=value`, as the plugin interface defines it.
    package let performance: [String]

    /// `WEIR OK: 12 keys | keys=12`
    package var line: String {
        "WEIR \("\(state)".uppercased()): \(text)"
            + (performance.isEmpty ? "" : " | \(performance.joined(separator: " "))")
    }

    /// - Parameters:
    ///   - slow: p99 of the answer times from which on it is a warning, in milliseconds; ten times that is critical.
    ///   - fileFault: what is wrong with the configuration file now; nil if the service would load it.
    package init(_ snapshot: AdminMessages.Snapshot, slow: Int, fileFault: String? = nil) {
        var warnings = snapshot.ways.compactMap { way in
            way.values.nextHop?.trouble.map { "next hop of \(way.name): \($0.cause)" }
        }
        if let trouble = snapshot.status.engineTrouble { warnings.append("shared limits: \(trouble)") }
        if let fault = snapshot.reload?.fault {
            warnings.append("the last reload was rejected\(fault == fileFault ? "" : ": \(fault)")")
        }
        if let fileFault { warnings.append("a restart would fail: \(fileFault)") }
        self.init(snapshot.status, slowAnswer: snapshot.slowAnswer, warnings: warnings, slow: slow)
    }

    /// The service can't be asked.
    ///
    /// - Parameter fileFault: as above.
    package init(_ failure: AdminClient.Failure, fileFault: String? = nil) {
        let state: State =
            switch failure.kind {
            case .unreachable, .inTrouble: .critical
            case .notPermitted, .refused: .unknown
            }
        let text = "\(failure)\(fileFault.map { "; a restart would fail: \($0)" } ?? "")"
        self.init(state: state, text: text, performance: [])
    }

    package init(state: State, text: String, performance: [String]) {
        self.state = state
        self.text = String(text.map { $0.isNewline ? " " : $0 == "|" ? "/" : $0 })
        self.performance = performance
    }

    /// - Parameters:
    ///   - slowAnswer: p99 of the last minute, in microseconds.
    ///   - warnings: what is wrong besides.
    package init(_ status: AdminMessages.Status, slowAnswer: Int64?, warnings: [String], slow: Int) {
        var problems: [(State, String)] = []
        if let trouble = status.trouble { problems.append((.critical, trouble)) }
        let microseconds = Int64(slow) * 1000
        if let slowAnswer, slowAnswer >= microseconds {
            problems.append(
                (slowAnswer >= 10 * microseconds ? .critical : .warning, "p99 of answers is \(slowAnswer / 1000) ms"))
        }
        problems += warnings.map { (.warning, $0) }
        if status.keys >= status.ledger.mostKeys {
            problems.append((.warning, "\(status.keys) keys, as many as ledger.most_keys allows"))
        }
        let limits = status.limits
        let shadows = limits.count { $0.mode == "shadow" }
        let summary =
            "\(limits.count) limit\(limits.count == 1 ? "" : "s")"
            + (shadows > 0 ? " (\(shadows) in shadow mode)" : "") + ", \(status.keys) key\(status.keys == 1 ? "" : "s")"
        var performance = ["requests=\(status.requests)c", "connections=\(status.connections)"]
        performance.append("keys=\(status.keys);\(status.ledger.mostKeys);;0;\(status.ledger.mostKeys)")
        performance.append("refusals=\(limits.reduce(0) { $0 + $1.refusals })c")
        performance.append("blocks=\(limits.reduce(0) { $0 + $1.blocks })c")
        if let slowAnswer {
            performance.append("answer_p99=\(slowAnswer)us;\(microseconds);\(10 * microseconds);0")
        }
        performance.append("journal=\(status.ledger.journalBytes)B")
        self.init(
            state: problems.map(\.0).max() ?? .ok,
            text: problems.isEmpty ? summary : problems.map(\.1).joined(separator: "; "), performance: performance)
    }
}
