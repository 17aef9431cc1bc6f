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
        let directory = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let text = """
            listen: { policy: "inet:127.0.0.1:10040" }
            ledger: { store: "sqlite:\(directory.path)/ledger.sqlite", durability: relaxed }
            limits: [ { name: senders, key: sender, rates: [ 1M/1h ] } ]
            """
        let configuration = try ConfigurationReader.read(Array(text.utf8), file: "weir.yaml").get().configuration
        let log = EventLog(destination: .file(directory.appending(path: "log").path))
        let loop = try SocketLoop.start(named: "weir-ledger")
        let host = LedgerHost(
            configuration: configuration, loop: loop, clocks: MachineClocks(), log: log,
            alerts: Alerts(configuration.alerts, starter: .init(control: -1), log: log), probes: ProbeBoard())
        try await loop.submit { host.start() }
        #expect(await host.firstOpening())
        let before = try Self.journalBytes(directory)
        try await loop.submit { Asker(host, loop).begin() }
        // Normally true after a few looks; the test fails after ten seconds.
        var looks = 0
        while try Self.journalBytes(directory) == before, looks < 1_000 {
            looks += 1
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(try Self.journalBytes(directory) > before)
        try await loop.submit { host.stop(by: .now() + .seconds(10)) }
        await loop.stop()
        log.flush()
    }

    private static func journalBytes(_ directory: URL) throws -> Int {
        try FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)
            .filter { $0.lastPathComponent.contains(".segment-") }
            .map { try FileManager.default.attributesOfItem(atPath: $0.path)[.size] as? Int ?? 0 }
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
