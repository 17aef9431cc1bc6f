// SPDX-License-Identifier: Apache-2.0

/// What INFO says of a server.
package struct EngineInfo: Sendable {
    /// Identifies the server since it was started or promoted. One that was demoted and promoted again keeps its run
    /// id, but has another replication id.
    package let run: String
    package let version: String
    private let values: [Substring: Substring]

    /// nil if it is not Redis that says this.
    init?(_ text: String) {
        var values: [Substring: Substring] = [:]
        for line in text.split(whereSeparator: \.isNewline) {
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { values[parts[0]] = parts[1] }
        }
        guard let run = values["run_id"], let version = values["redis_version"] else { return nil }
        self.run = "\(run.prefix(64)).\(values["master_replid"]?.prefix(64) ?? "")"
        self.version = EngineFault.printable(String((values["valkey_version"] ?? version).prefix(20)))
        self.values = values
    }

    /// Why Weir can't use the server.
    package var fault: EngineFault? {
        if values["loading"] == "1" { return EngineFault(reply: "LOADING") }
        if values["role"] == "slave" { return EngineFault(reply: "READONLY") }
        let major = values["redis_version"]?.split(separator: ".").first.flatMap { Int($0) }
        guard let major, major >= 7 else {
            return EngineFault(.version, "it is version \(version): Weir needs Valkey, or Redis 7.0 or newer")
        }
        return nil
    }

    /// `maxmemory-policy`, if it evicts keys that do not expire, and whether it may evict now: there is a `maxmemory`.
    package var eviction: (policy: String, isPossible: Bool)? {
        guard let policy = values["maxmemory_policy"], policy.hasPrefix("allkeys-") else { return nil }
        return (EngineFault.printable(String(policy)), values["maxmemory"] != "0")
    }

    /// Whether the server stops taking writes when it has lost its replicas (`min-replicas-to-write`).
    package var stopsWithoutReplicas: Bool { values["min_slaves_good_slaves"] != nil }

    /// Whether the last attempt to save its data failed. It then takes no writes, unless it is told otherwise.
    package var failsToSave: Bool {
        values["rdb_last_bgsave_status"] == "err" || values["aof_last_write_status"] == "err"
    }
}
