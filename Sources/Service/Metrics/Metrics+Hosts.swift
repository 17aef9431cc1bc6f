// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Report

/// The metrics of the hosts that share limits. Their names come from `shared.hosts`.
extension Metrics {
    mutating func add(_ shared: SharedFigures, _ status: AdminMessages.Status) {
        add(
            "weir_shared_engine_up", .gauge,
            "1 while this host uses the engine of shared limits, else 0: shared.on_cut_off says what it then admits.",
            status.engineTrouble == nil ? 1 : 0)
        add(
            "weir_shared_host_answered", .gauge,
            "1 if a host has answered the last question of this host, else 0; 1 for this host.",
            samples: shared.hosts.map { Sample(["host": $0.name], $0.hasAnswered ? 1 : 0) })
        add(
            "weir_shared_host_age_seconds", .gauge,
            "Age of the last figures of a host; left out if it has told none.",
            samples: shared.hosts.compactMap { host in host.age.map { Sample(["host": host.name], $0) } })
        let parts = status.limits.flatMap { limit in (limit.hosts ?? []).map { (limit, $0) } }
        add(
            "weir_shared_limit_keys", .gauge, "Keys that a shared limit counts, by host.",
            samples: parts.map { Sample(["limit": $0.name, "host": $1.host], $1.keys) })
        add(
            "weir_shared_limit_refusals_total", .counter,
            "Requests that a shared limit refused, or would have refused in shadow mode, by host.",
            samples: parts.map { Sample(["limit": $0.name, "mode": $0.mode, "host": $1.host], $1.refusals) })
        add(
            "weir_shared_limit_blocks_total", .counter,
            "Times that a shared limit blocked a key, or would have in shadow mode, by host.",
            samples: parts.map { Sample(["limit": $0.name, "mode": $0.mode, "host": $1.host], $1.blocks) })
    }
}
