// SPDX-License-Identifier: Apache-2.0
import Limits
import Loop
import Policy
import Report
import Testing

struct SelectionChangeTests {
    private static let selection = KeySelection(limit: "senders", pattern: nil, state: .any)
    private static let onOthers = "the other hosts get it"

    private static var block: SelectionChange {
        SelectionChange(
            KeyChange(.block, key: "*", limit: nil, rates: [], duration: 3600, reason: "", user: "", details: ""),
            to: selection, most: nil)
    }

    /// Makes keys that nothing keeps in memory.
    private static func open(_ count: Int, in ledger: Ledger) throws {
        for number in 0..<count {
            _ = try ledger.intervene(
                .unblock, onKey: Array("a\(number)@example.org".utf8), limit: "senders", by: .here)
        }
    }

    /// Other hosts are told of at most 1,000 keys. What counts is what was found: some may leave while others change.
    @Test(arguments: [(1000, false, onOthers), (1001, false, "on this host only"), (1001, true, "on this host only")])
    func theNoteSaysWhetherOthersAreTold(found: Int, someLeave: Bool, note: String) async throws {
        try await RunningLedger.run { ledger in
            try await ledger.loop.submit { [host = ledger.host] in
                try host.withLedger { ledger in
                    try Self.open(found, in: ledger)
                    var change = Self.block
                    while change.changed.count == 0 {
                        guard case .more = try change.step(in: ledger) else {
                            Issue.record("all keys have changed in one step")
                            return
                        }
                    }
                    if someLeave {
                        try ledger.commit()
                        #expect(ledger.maintain(slots: 2048) == nil)
                    }
                    while case .more = try change.step(in: ledger) {}
                    #expect((change.changed.count < found) == someLeave)
                    #expect(change.note(onOthers: Self.onOthers)?.hasPrefix(note) == true)
                    #expect(change.note(onOthers: nil) == nil)
                }
            }
        }
    }
}
