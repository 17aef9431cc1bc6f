// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Foundation
import Limits
import Loop
import NIOCore
import Policy
import Report
import Settings
import Testing
import Wire

/// Periodic work is done even if every turn of the loop has requests.
@Suite struct LedgerHostTests {
    private static let request = Array(
        """
        request=smtpd_access_policy
        protocol_state=RCPT
        instance=1
        sender=a@example.org
        recipient=b@example.com


        """.utf8)

    @Test func heldBatchesAreWrittenWhileEveryTurnHasRequests() async throws {
        try await RunningLedger.run { ledger in
            let before = try Self.journalBytes(ledger.directory.path)
            try await ledger.loop.submit { Asker(ledger.host, ledger.loop).begin() }
            // Normally true after a few looks; the test fails after ten minutes.
            var looks = 0
            while try Self.journalBytes(ledger.directory.path) == before, looks < 60_000 {
                looks += 1
                try await Task.sleep(for: .milliseconds(10))
            }
            #expect(try Self.journalBytes(ledger.directory.path) > before)
        }
    }

    private static func journalBytes(_ directory: String) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: directory)
            .filter { $0.contains(".segment-") }
            .map { try FileManager.default.attributesOfItem(atPath: "\(directory)/\($0)")[.size] as? Int ?? 0 }
            .reduce(0, +)
    }

    /// Submits a request in every turn of the loop. Sendable, unchecked: only the loop uses it.
    private final class Asker: LedgerHost.Client, @unchecked Sendable {
        static let stage = ProbeStage.policy
        private let host: LedgerHost
        private let loop: SocketLoop
        private var parser = PolicyRequestParser(names: AttributeNames().names)

        init(_ host: LedgerHost, _ loop: SocketLoop) {
            self.host = host
            self.loop = loop
        }

        func begin() {
            host.submit(self)
            loop.execute { if self.host.fault == nil { self.begin() } }
        }

        func withRequest(_ body: (Attributes) -> Void) {
            LedgerHostTests.request.withUnsafeBytes { bytes in
                var (searched, ranges) = (0, [Range<Int>]())
                _ = try? parser.parse(bytes, searched: &searched, ranges: &ranges)
                ranges.withUnsafeBufferPointer { body(Attributes(bytes: bytes, ranges: $0)) }
            }
        }

        func decided(_ decision: Decision) {}
        func committed() {}
    }
}
