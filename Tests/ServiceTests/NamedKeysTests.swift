// SPDX-License-Identifier: Apache-2.0
import Policy
import Report
import Testing

/// Keys that are looked up by name.
struct NamedKeysTests {
    @Test func allPiecesAreLookedUp() async throws {
        try await RunningLedger.run { ledger in
            let names = (0..<150).map { KeyName(limit: "senders", key: "a\($0)@example.org") }
            for name in names {
                _ = try await ledger.host.apply(
                    KeyChange(
                        .block, key: name.key, limit: name.limit, rates: [], duration: 3600, reason: "", user: "",
                        details: ""))
            }
            let strange = [
                KeyName(limit: "senders", key: "b@example.org"), KeyName(limit: "none", key: "a0@example.org"),
            ]
            let found = try await ledger.host.standings(of: strange + names + strange, withHistory: true)
            #expect(found.map { KeyName($0) } == names)
            #expect(found.allSatisfy { $0.blockedUntil != nil && $0.rates[0].history?.count == 61 })
            let short = try await ledger.host.standings(of: names, withHistory: false)
            #expect(short.allSatisfy { $0.rates[0].history == nil })
            #expect(try await ledger.host.standings(of: [], withHistory: false).isEmpty)
        }
    }
}
