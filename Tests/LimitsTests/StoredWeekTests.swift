// SPDX-License-Identifier: Apache-2.0
import Foundation
import Limits
import Storage
import Testing

/// A week of 500,000 messages a day from 20,000 senders, on a test clock and in real files.
@Suite struct StoredWeekTests {
    private static let day: Int64 = 86_400_000
    private static let messagesPerDay = 500_000
    private static let messagesPerTick = 100

    @Test func theFilesStaySmallForAWeek() throws {
        let folder = NSTemporaryDirectory() + "weir-week-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var make = LimitMaker()
        let limits = [
            make.limit("per-sender", key: ["sender"], rates: ["100/1m", "1000/1h", "10000/1d"]),
            make.limit("per-client", key: ["client_address"], count: .messages, rates: ["1000/1h"]),
        ]
        let store = SQLiteStore(path: folder + "/ledger.sqlite", durability: .commit) { Issue.record("\($0)") }
        let harness = try LedgerHarness(limits, names: make.names, store: store)
        var random = SeededGenerator(seed: 1)
        var largest = [Int](repeating: 0, count: 7)
        for day in largest.indices {
            for tick in 0..<Self.messagesPerDay / Self.messagesPerTick {
                harness.clocks.advance(Self.day * Int64(Self.messagesPerTick) / Int64(Self.messagesPerDay))
                harness.ledger.beginTick()
                for message in 0..<Self.messagesPerTick {
                    // A few senders send most of the mail.
                    let sender =
                        Int.random(in: 0..<20_000, using: &random) * Int.random(in: 0..<20_000, using: &random) / 20_000
                    let action = harness.decide([
                        "request": "smtpd_access_policy", "protocol_state": "RCPT",
                        "sender": "user\(sender)@example.org",
                        "recipient": "friend@example.com", "client_address": "192.0.2.\(sender % 250)",
                        "instance": "\(day).\(tick).\(message)",
                    ])
                    #expect(action == nil)
                }
                try harness.ledger.commit()
                // A real service has 17 s for it.
                repeat {
                    if let fault = harness.ledger.maintain(slots: 2_048) { throw fault }
                    try harness.ledger.commit()
                } while harness.ledger.isCheckpointRunning
                largest[day] = max(largest[day], try size(of: folder))
            }
        }
        let megabytes = largest.map { "\($0 / 1_000_000)" }.joined(separator: ", ")
        print("largest of each day, MB: \(megabytes)")
        // At least 1 MB: a day's journal before its first checkpoint.
        #expect(largest.allSatisfy { (1_000_000...50_000_000).contains($0) }, "MB by day: \(megabytes)")
    }

    private func size(of folder: String) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: folder).reduce(0) { sum, name in
            // A segment may be deleted in the meantime.
            let attributes = try? FileManager.default.attributesOfItem(atPath: folder + "/" + name)
            return sum + ((attributes?[.size] as? NSNumber)?.intValue ?? 0)
        }
    }
}
