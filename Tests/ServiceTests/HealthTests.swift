// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Report
import Testing

@Suite struct HealthTests {
    private static func status(keys: Int = 12, trouble: String? = nil) -> AdminMessages.Status {
        AdminMessages.Status(
            requests: 5, connections: 1, faults: PolicyFaults(), keys: keys, trouble: trouble,
            ledger: LedgerFigures(
                path: "/ledger", durability: "commit", journalBytes: 100, lastCheckpoint: nil, checkpointSeconds: nil,
                mostKeys: 1000, evictedKeys: 0),
            limits: [
                LimitFigures(
                    name: "l", attributes: "sender", count: "recipients", mode: "enforce", rates: ["1/1h"], keys: keys,
                    refusals: 3, blocks: 2, undecided: 0)
            ])
    }

    @Test(
        arguments: [
            (status(), nil, [], "WEIR OK: 1 limit, 12 keys | "),
            (status(keys: 1), nil, [], "WEIR OK: 1 limit, 1 key | "),
            (status(), 99_999, [], "WEIR OK: 1 limit, 12 keys | "),
            (status(), 100_000, [], "WEIR WARNING: p99 of answers is 100 ms | "),
            (status(), 1_000_000, [], "WEIR CRITICAL: p99 of answers is 1000 ms | "),
            (status(keys: 1000), nil, [], "WEIR WARNING: 1000 keys, as many as ledger.most_keys allows | "),
            (status(), nil, ["filter: down | refused\n"], "WEIR WARNING: filter: down / refused  | "),
            (
                status(trouble: "counts are not saved: disk full"), nil, ["filter: refused"],
                "WEIR CRITICAL: counts are not saved: disk full; filter: refused | "
            ),
        ] as [(AdminMessages.Status, Int64?, [String], String)])
    func line(status: AdminMessages.Status, slowAnswer: Int64?, warnings: [String], start: String) {
        let line = Health(status, slowAnswer: slowAnswer, warnings: warnings, slow: 100).line
        let latency = slowAnswer.map { " answer_p99=\($0)us;100000;1000000;0" } ?? ""
        #expect(
            line == start + "requests=5c connections=1 keys=\(status.keys);1000;;0;1000 refusals=3c blocks=2c"
                + latency + " journal=100B")
    }

    private static func snapshot(_ change: (inout AdminMessages.Snapshot) -> Void) -> AdminMessages.Snapshot {
        var snapshot = AdminMessages.Snapshot(
            time: 0, version: "1", configuration: "", status: status(), answers: [], medianAnswer: nil,
            slowAnswer: nil, refusals: [], ways: [], rules: [], rulesWithoutHits: 0, audit: [])
        change(&snapshot)
        return snapshot
    }

    private static var rejected: ReloadFigures {
        let last = LastReload()
        _ = last.record(fault: "weir.yaml:3:7: mode: no")
        return last.figures
    }

    private static var brokenWay: WayFigures {
        let hop = NextHopCounters(address: "inet:127.0.0.1:10026")
        hop.countFailure("can't connect: Connection refused")
        return WayFigures(name: "filter", values: MessageCounters(nextHop: hop).values(connections: 0))
    }

    /// Everything that is wrong and does not stop mail is a warning, in words.
    @Test(
        arguments: [
            (snapshot { _ in }, nil, "WEIR OK: 1 limit, 12 keys"),
            (
                snapshot { $0.ways = [brokenWay] }, nil,
                "WEIR WARNING: next hop of filter: can't connect: Connection refused"
            ),
            (
                snapshot {
                    $0.status.engineTrouble = EngineTrouble(cause: "can't use the engine", effect: "each has its share")
                }, nil,
                "WEIR WARNING: shared limits: can't use the engine; each has its share"
            ),
            (
                snapshot { $0.reload = rejected }, nil,
                "WEIR WARNING: the last reload was rejected: weir.yaml:3:7: mode: no"
            ),
            (snapshot { _ in }, "weir.yaml:3: no", "WEIR WARNING: a restart would fail: weir.yaml:3: no"),
        ] as [(AdminMessages.Snapshot, String?, String)])
    func warnings(snapshot: AdminMessages.Snapshot, fileFault: String?, start: String) {
        let health = Health(snapshot, slow: 100, fileFault: fileFault)
        #expect(health.line.hasPrefix(start + " | "), "\(health.line)")
    }
}
