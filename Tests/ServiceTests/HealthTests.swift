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
            (status(), 99_999, [], "WEIR OK: 1 limit, 12 keys | "),
            (status(), 100_000, [], "WEIR WARNING: p99 of answers is 100 ms | "),
            (status(), 1_000_000, [], "WEIR CRITICAL: p99 of answers is 1000 ms | "),
            (status(keys: 1000), nil, [], "WEIR WARNING: 1000 keys, as many as ledger.most_keys allows | "),
            (status(), nil, ["filter: down | refused\n"], "WEIR WARNING: next hop of filter: down / refused  | "),
            (
                status(trouble: "disk full"), nil, ["filter: refused"],
                "WEIR CRITICAL: counts are not saved: disk full; next hop of filter: refused | "
            ),
        ] as [(AdminMessages.Status, Int64?, [String], String)])
    func line(status: AdminMessages.Status, slowAnswer: Int64?, nextHops: [String], start: String) {
        let line = Health(status, slowAnswer: slowAnswer, nextHops: nextHops, slow: 100).line
        let latency = slowAnswer.map { " answer_p99=\($0)us;100000;1000000;0" } ?? ""
        #expect(
            line == start + "requests=5c connections=1 keys=\(status.keys);1000;;0;1000 refusals=3c blocks=2c"
                + latency + " journal=100B")
    }
}
