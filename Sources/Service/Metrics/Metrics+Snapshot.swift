// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Report

/// The metrics of the policy server, the ledger, the limits, messages, next hops and rules.
extension Metrics {
    mutating func add(_ snapshot: AdminMessages.Snapshot, latency: LatencyHistogram) {
        add("weir_build_info", .gauge, "The running version.", samples: [Sample(["version": snapshot.version], 1)])
        add(
            "weir_policy_answers_total", .counter, "Answered policy requests, by action.",
            samples: snapshot.answers.map { Sample(["answer": $0.action.lowercased()], $0.total) })
        add("weir_policy_answer_seconds", "Time from a policy request to its answer, in the ledger.", latency)
        addPolicyClients(snapshot.status)
        addLedger(snapshot.status)
        addLimits(snapshot.status.limits)
        addMessages(snapshot.ways)
        addNextHops(snapshot.ways.compactMap { way in way.values.nextHop.map { (way.name, $0) } })
        addRules(snapshot.rules, snapshot.tags ?? [])
    }

    mutating func add(_ reload: ReloadFigures) {
        add(
            "weir_reload_successful", .gauge,
            "0 if the configuration was rejected at the last reload, else 1.", reload.fault == nil ? 1 : 0)
        add(
            "weir_reload_time_seconds", .gauge,
            "When the configuration was last read, at the start or a reload, in seconds since 1970.", reload.time)
    }

    private mutating func addPolicyClients(_ status: AdminMessages.Status) {
        let faults = status.faults
        add("weir_policy_connections", .gauge, "Open connections of policy clients.", status.connections)
        add(
            "weir_policy_faults_total", .counter, "Errors of policy clients, by kind.",
            samples: [
                Sample(["kind": "refused_connection"], faults.refusedConnections),
                Sample(["kind": "malformed"], faults.malformed),
                Sample(["kind": "too_slow"], faults.tooSlow),
                Sample(["kind": "dropped"], faults.droppedMidRequest),
            ])
    }

    private mutating func addLedger(_ status: AdminMessages.Status) {
        let ledger = status.ledger
        add("weir_ledger_up", .gauge, "1 if counts are saved to disk, else 0.", status.trouble == nil ? 1 : 0)
        add("weir_ledger_journal_bytes", .gauge, "Size of the journal's newest segment.", ledger.journalBytes)
        if let began = ledger.lastCheckpoint {
            add(
                "weir_ledger_checkpoint_time_seconds", .gauge,
                "Start of the last checkpoint, in seconds since 1970.", began)
        }
        if let took = ledger.checkpointSeconds {
            add(
                "weir_ledger_checkpoint_duration_seconds", .gauge, "Duration of the last checkpoint that finished.",
                took)
        }
        add("weir_ledger_keys_most", .gauge, "Maximum number of keys (ledger.most_keys).", ledger.mostKeys)
        add(
            "weir_ledger_keys_evicted_total", .counter, "Keys evicted because there were more than ledger.most_keys.",
            ledger.evictedKeys)
    }

    private mutating func addLimits(_ limits: [LimitFigures]) {
        add(
            "weir_limit_keys", .gauge, "Keys that a limit counts.",
            samples: limits.map { Sample(["limit": $0.name], $0.keys) })
        add(
            "weir_limit_refusals_total", .counter,
            "Requests that a limit refused, or would have refused in shadow mode.",
            samples: limits.map { Sample(["limit": $0.name, "mode": $0.mode], $0.refusals) })
        add(
            "weir_limit_blocks_total", .counter, "Times that a limit blocked a key, or would have in shadow mode.",
            samples: limits.map { Sample(["limit": $0.name, "mode": $0.mode], $0.blocks) })
        add(
            "weir_limit_conditions_undecided_total", .counter,
            "Requests to which a limit did not apply because a pattern of its conditions gave up.",
            samples: limits.map { Sample(["limit": $0.name], $0.undecided) })
    }

    private mutating func addMessages(_ ways: [WayFigures]) {
        add(
            "weir_messages_total", .counter, "Messages, by listener and outcome of the checks.",
            samples: ways.flatMap { way in
                MessageCounters.Outcome.allCases.map { outcome in
                    Sample(
                        ["listener": way.name, "outcome": outcome.name],
                        way.values.messages[outcome.name] ?? 0)
                }
            })
        add(
            "weir_addresses_total", .counter,
            "Addresses that Weir repaired, by repair (header_... in headers), or that the milter refused; repairs that "
                + "never happened are left out.",
            samples: ways.flatMap { way in
                way.values.addresses.sorted { $0.key < $1.key }.map { Sample(["repair": $0.key], $0.value) }
            })
        add(
            "weir_message_connections", .gauge, "Open connections, by listener.",
            samples: ways.map { Sample(["listener": $0.name], $0.values.connections) })
    }

    private mutating func addNextHops(_ hops: [(listener: String, values: NextHopCounters.Values)]) {
        add(
            "weir_next_hop_failures_total", .counter, "Failed connection attempts and lost connections to a next hop.",
            samples: hops.map { Sample(["listener": $0.listener], $0.values.failures) })
        add(
            "weir_next_hop_up", .gauge, "0 if the last connection attempt to a next hop failed, else 1.",
            samples: hops.map { Sample(["listener": $0.listener], $0.values.trouble == nil ? 1 : 0) })
        add(
            "weir_next_hop_connections", .gauge, "Open connections to a next hop.",
            samples: hops.flatMap { listener, hop in
                [
                    Sample(["listener": listener, "state": "busy"], hop.connections - hop.idle),
                    Sample(["listener": listener, "state": "idle"], hop.idle),
                ]
            })
    }

    private mutating func addRules(_ rules: [RuleFigures], _ tags: [TagFigures]) {
        add(
            "weir_rule_hits_total", .counter, "Times that a rule decided; rules without hits are left out.",
            samples: rules.filter { $0.hits > 0 }.map { Sample($0.labels, $0.hits) })
        add(
            "weir_rule_tag_hits_total", .counter,
            "Times that a rule with this tag decided; tags after the first \(TagFigures.most) are counted together.",
            samples: tags.map { Sample(["tag": $0.tag], $0.hits) })
        add(
            "weir_rule_limits_reached_total", .counter,
            "Times that matching a rule was aborted at a limit and counted as no match.",
            samples: rules.filter { $0.limitsReached > 0 }.map { Sample($0.labels, $0.limitsReached) })
    }
}

extension RuleFigures {
    /// With the set, where there are several.
    fileprivate var labels: KeyValuePairs<String, String> {
        if let set { return ["checks": checks, "set": set, "rule": location] }
        return ["checks": checks, "rule": location]
    }
}
