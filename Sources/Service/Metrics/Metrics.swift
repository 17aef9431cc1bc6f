// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Glibc
internal import Policy
internal import Report
internal import Settings

/// The text format of Prometheus (version 0.0.4). Label values are names of the configuration, never what a peer has sent.
struct Metrics {
    private(set) var text = ""

    /// Begins a metric; its samples follow.
    mutating func begin(_ name: String, _ type: String, _ help: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
    }

    mutating func add(_ name: String, _ labels: [(String, String)], _ value: some CustomStringConvertible) {
        text += name
        if !labels.isEmpty { text += "{" + labels.map { "\($0)=\"\(Self.escaped($1))\"" }.joined(separator: ",") + "}" }
        text += " \(value)\n"
    }

    mutating func single(_ name: String, _ type: String, _ help: String, _ value: some CustomStringConvertible) {
        begin(name, type, help)
        add(name, [], value)
    }

    mutating func add(_ name: String, _ histogram: LatencyHistogram) {
        var sum: UInt64 = 0
        for (bound, count) in zip(LatencyHistogram.bounds, histogram.counts) {
            sum += count
            add("\(name)_bucket", [("le", "\(Double(bound) / 1_000_000)")], sum)
        }
        add("\(name)_bucket", [("le", "+Inf")], histogram.total)
        add("\(name)_sum", [], Double(histogram.nanoseconds) / 1_000_000_000)
        add("\(name)_count", [], histogram.total)
    }

    private static func escaped(_ value: String) -> String {
        value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}

extension Metrics {
    /// What every process has to tell (proc(5)).
    mutating func addProcess() {
        let seconds = Double(MachineClocks.microseconds(of: CLOCK_PROCESS_CPUTIME_ID)) / 1e6
        single("process_cpu_seconds_total", "counter", "CPU time that the process has used.", seconds)
        if case .success(let bytes) = BoundedFile.read("/proc/self/statm", upTo: 4096),
            let pages = Int(String(decoding: bytes, as: UTF8.self).split(separator: " ").dropFirst().first ?? "")
        {
            single("process_resident_memory_bytes", "gauge", "Memory of the process.", pages * Int(getpagesize()))
        }
        if let start = Self.processStart {
            single("process_start_time_seconds", "gauge", "When the process began, since 1970.", start)
        }
    }

    private static let processStart: Double? = {
        // The name of the program stands in brackets, and may hold anything.
        guard case .success(let process) = BoundedFile.read("/proc/self/stat", upTo: 4096),
            let fields = process.lastIndex(of: UInt8(ascii: ")")).map({
                String(decoding: process[$0...], as: UTF8.self).split(separator: " ")
            }),
            fields.count > 20, let ticks = Double(fields[20])
        else { return nil }
        let uptime = Double(MachineClocks.microseconds(of: CLOCK_BOOTTIME)) / 1e6
        return Double(MachineClocks.microseconds(of: CLOCK_REALTIME)) / 1e6 - uptime + ticks
            / Double(sysconf(Int32(_SC_CLK_TCK)))
    }()

    mutating func add(_ snapshot: AdminMessages.Snapshot, latency: LatencyHistogram) {
        begin("weir_policy_answers_total", "counter", "Policy requests answered, by action.")
        for answers in snapshot.answers {
            add("weir_policy_answers_total", [("answer", answers.action.lowercased())], answers.total)
        }
        begin("weir_policy_answer_seconds", "histogram", "Time from a request to its answer, in the ledger.")
        add("weir_policy_answer_seconds", latency)
        let status = snapshot.status
        single("weir_policy_connections", "gauge", "Open connections of policy clients.", status.connections)
        begin("weir_policy_faults_total", "counter", "What policy clients have done wrong.")
        for (kind, count) in [
            ("refused_connection", status.faults.refusedConnections), ("malformed", status.faults.malformed),
            ("too_slow", status.faults.tooSlow), ("dropped", status.faults.droppedMidRequest),
        ] {
            add("weir_policy_faults_total", [("kind", kind)], count)
        }
        single("weir_ledger_up", "gauge", "1 while counts are kept on disk.", status.trouble == nil ? 1 : 0)
        let ledger = status.ledger
        single("weir_ledger_journal_bytes", "gauge", "Size of the journal's newest segment.", ledger.journalBytes)
        if let began = ledger.lastCheckpoint {
            single("weir_ledger_checkpoint_time_seconds", "gauge", "When the last checkpoint began, since 1970.", began)
        }
        if let took = ledger.checkpointSeconds {
            single(
                "weir_ledger_checkpoint_duration_seconds", "gauge",
                "How long the last checkpoint took that came to its end.", took)
        }
        single("weir_ledger_keys_most", "gauge", "Keys that are kept at most (ledger.most_keys).", ledger.mostKeys)
        single(
            "weir_ledger_keys_evicted_total", "counter", "Keys given up because there were more than ledger.most_keys.",
            ledger.evictedKeys)
        begin("weir_limit_keys", "gauge", "Keys that a limit counts.")
        for limit in status.limits { add("weir_limit_keys", [("limit", limit.name)], limit.keys) }
        begin(
            "weir_limit_refusals_total", "counter", "Requests that a limit has refused, or would have in shadow mode.")
        for limit in status.limits { add("weir_limit_refusals_total", [("limit", limit.name)], limit.refusals) }
        begin("weir_messages_total", "counter", "Messages by way in, and what the checks made of them.")
        for way in snapshot.ways {
            for outcome in MessageCounters.Outcome.allCases {
                add(
                    "weir_messages_total", [("listener", way.name), ("outcome", outcome.rawValue)],
                    way.values.messages[outcome.rawValue] ?? 0)
            }
        }
        begin("weir_message_connections", "gauge", "Open connections by way in.")
        for way in snapshot.ways { add("weir_message_connections", [("listener", way.name)], way.values.connections) }
        begin("weir_next_hop_failures_total", "counter", "Times that a next hop could not be had, or went away.")
        for way in snapshot.ways {
            if let hop = way.values.nextHop {
                add("weir_next_hop_failures_total", [("listener", way.name)], hop.failures)
            }
        }
        begin("weir_next_hop_up", "gauge", "0 where a next hop could not be had when it was tried last.")
        for way in snapshot.ways {
            if let hop = way.values.nextHop {
                add("weir_next_hop_up", [("listener", way.name)], hop.trouble == nil ? 1 : 0)
            }
        }
        begin("weir_next_hop_connections", "gauge", "Open connections to a next hop.")
        for way in snapshot.ways {
            guard let hop = way.values.nextHop else { continue }
            add("weir_next_hop_connections", [("listener", way.name), ("state", "busy")], hop.connections - hop.idle)
            add("weir_next_hop_connections", [("listener", way.name), ("state", "idle")], hop.idle)
        }
        begin("weir_rule_hits_total", "counter", "Times that a rule has decided; rules without a hit are left out.")
        for rule in snapshot.rules where rule.hits > 0 {
            add("weir_rule_hits_total", [("checks", rule.checks), ("rule", rule.location)], rule.hits)
        }
        begin("weir_rule_limits_reached_total", "counter", "Times that a rule was given up, and counted as no match.")
        for rule in snapshot.rules where rule.limitsReached > 0 {
            add(
                "weir_rule_limits_reached_total", [("checks", rule.checks), ("rule", rule.location)], rule.limitsReached
            )
        }
    }
}
