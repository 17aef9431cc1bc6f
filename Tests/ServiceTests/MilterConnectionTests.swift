// SPDX-License-Identifier: Apache-2.0
import Dispatch
import Glibc
import Loop
import Policy
import Report
import Testing

/// Milter connections over a socket, with real rules, ledger and spool.
@Suite(.serialized) struct MilterConnectionTests {
    private static let rules = ["/^Subject: reject/ REJECT no", "/^Subject: hold/ HOLD"]
    /// Each login may have one recipient.
    private static let limits =
        "limits: [ { name: login, key: sasl_username, rates: [ 1/1h ], over: \"REJECT 5.7.1 over\" } ]"

    /// Sends the same bytes split at each position, and expects the same replies.
    private func expectSame(
        _ service: MilterService, _ expected: [String], _ stream: (_ cut: Int) -> [UInt8]
    ) throws {
        for cut in 1..<stream(0).count {
            let client = try MilterClient("\(service.directory.path)/milter")
            let bytes = stream(cut)
            client.send(Array(bytes[..<cut]))
            // Usually enough for the service to read the first part alone.
            usleep(200)
            client.send(Array(bytes[cut...]))
            let replies = client.replies(expected.count).map { $0.hasPrefix("O") ? "O" : $0 }
            #expect(replies == expected, "cut at \(cut)")
        }
    }

    @Test func packetsSplitAnywhere() async throws {
        let service = try await MilterService(header: Self.rules)
        var bytes = MilterClient.negotiation()
        bytes += MilterClient.packet("L", "Subject\0 reject\0")
        bytes += MilterClient.packet("B", "x\r\n")
        bytes += MilterClient.packet("E")
        bytes += MilterClient.packet("L", "Subject\0 hold\0")
        bytes += MilterClient.packet("E")
        try expectSame(service, ["O", "y 550 5.7.1 no|", "q header or body check|", "c"]) { [bytes] _ in bytes }
        try await service.stop()
    }

    @Test func packetsSplitAnywhereWithALedger() async throws {
        let service = try await MilterService(Self.limits, header: Self.rules)
        try expectSame(service, ["O", "c", "y 554 5.7.1 over|", "c"]) { cut in
            var bytes = MilterClient.negotiation()
            bytes += MilterClient.connection()
            bytes += MilterClient.packet("D", "Mi\u{0}4ABC\u{0}{auth_authen}\u{0}login\(1000 + cut)\u{0}")
            bytes += MilterClient.packet("M", "<a@example.org>\0")
            bytes += MilterClient.packet("R", "<b@example.com>\0")
            bytes += MilterClient.packet("R", "<c@example.com>\0")
            bytes += MilterClient.packet("L", "Subject\0 x\0")
            bytes += MilterClient.packet("E")
            return bytes
        }
        try await service.stop()
    }

    /// {tls_sni} of Postfix 3.12 is the attribute `tls_sni`: each name that clients ask for may have one recipient.
    @Test func serverNameIsAnAttribute() async throws {
        let service = try await MilterService(
            "limits: [ { name: sni, key: tls_sni, rates: [ 1/1h ], over: \"REJECT 5.7.1 over\" } ]", header: Self.rules)
        for (name, replies) in [
            ("mx1.example.org", ["O", "c", "y 554 5.7.1 over|"]), ("mx2.example.org", ["O", "c"]),
        ] {
            let client = try MilterClient("\(service.directory.path)/milter")
            var bytes = MilterClient.negotiation()
            bytes += MilterClient.connection()
            bytes += MilterClient.packet("D", "H{tls_version}\0TLSv1.3\0{tls_sni}\0\(name)\0")
            bytes += MilterClient.packet("M", "<a@example.org>\0")
            for number in 1..<replies.count { bytes += MilterClient.packet("R", "<b\(number)@example.com>\0") }
            client.send(bytes)
            let received = client.replies(replies.count)
            #expect(received.first?.contains("{tls_sni}") == true)
            #expect(received.map { $0.hasPrefix("O") ? "O" : $0 } == replies)
        }
        try await service.stop()
    }

    @Test func abortAndQuitAtEachStage() async throws {
        let service = try await MilterService(
            "limits: [ { name: sender, key: sender, rates: [ 1M/1h ] } ]", header: Self.rules)
        let steps: [(MilterClient) -> Void] = [
            { $0.send(MilterClient.connection()) },
            {
                $0.mail(); _ = $0.reply()
            },
            { $0.send("L", "Subject\0 x\0") },
            { $0.send("B", "text\r\n") },
        ]
        for count in 0...steps.count {
            let client = try service.connect()
            for step in steps[..<count] { step(client) }
            client.send("A")
            client.mail()
            #expect(client.reply() == "c")
            #expect(client.content(["Subject: reject"]).replies == ["y 550 5.7.1 no|"])
            client.send("K")
            for step in steps[..<count] { step(client) }
            client.send("K")
            client.mail()
            #expect(client.reply() == "c")
            #expect(client.content(["Subject: x"]).replies == ["c"])
            for step in steps[..<count].dropFirst() { step(client) }
            client.send("Q")
            #expect(client.reply() == nil)
        }
        #expect(!service.logged.contains("closed the milter connection"))
        try await service.stop()
    }

    /// Clients that disconnect before the ledger decides leave no question behind, and are not charged.
    @Test func disconnectedWhileTheLedgerIsAtWork() async throws {
        let service = try await MilterService(Self.limits)
        let gate = DispatchSemaphore(value: 0)
        service.host.loop.execute { gate.wait() }
        for _ in 1...100 {
            let client = try service.connect()
            client.send(MilterClient.connection())
            client.mail(login: "alice")
            client.disconnect()
        }
        #expect(service.host.milterBacklog == 0)
        gate.signal()
        let other = try service.connect()
        other.send(MilterClient.connection())
        other.mail("a@example.org", ["b@example.com", "c@example.com"], login: "alice")
        #expect(other.replies(2) == ["c", "y 554 5.7.1 over|"])
        other.send("A")
        other.mail(login: "bob")
        #expect(other.reply() == "c")
        #expect(other.content(["Subject: x"]).replies == ["c"])
        try await service.stop()
    }

    /// A client that disconnects after its question was handed over, but before it is decided, is not charged either.
    @Test func cancelledWithinTheTurnThatDecides() async throws {
        let service = try await MilterService(Self.limits)
        let attributes = Array("sasl_username=alice\nrecipient=b@example.com\n".utf8)
        let host = service.host
        @Sendable func question(_ instance: String) -> PolicyQuestion {
            PolicyQuestion(
                state: .recipient, attributes: attributes, sender: Array("a@example.org".utf8)[...],
                instance: Array(instance.utf8), transaction: nil, session: nil)
        }
        let (answers, report) = AsyncStream<PolicyAnswer>.makeStream()
        try await host.loop.submit {
            let cancelled = host.ask(question("1")) { report.yield($0) }
            // Runs in the same turn, after the question is prepared.
            host.loop.execute { host.cancel(cancelled) }
            _ = host.ask(question("2")) { report.yield($0) }
            _ = host.ask(question("3")) {
                report.yield($0)
                report.finish()
            }
        }
        var decided: [String] = []
        for await case .decision(let action, _) in answers { decided.append(action == nil ? "pass" : "refuse") }
        #expect(decided == ["pass", "refuse"])
        try await service.stop()
    }

    /// The spool space of a message is released once the disk work is done.
    @Test func disconnectDuringDiskWork() async throws {
        let service = try await MilterService("on_failure: defer", body: ["/^drop/ IGNORE"])
        let kept = Array(repeatElement(Array("keep this line of the body\r\n".utf8), count: 40_000).joined())
        let body = Array("drop\r\n".utf8) + kept
        for _ in 1...10 {
            let client = try service.connect()
            client.sendBody(body)
            client.disconnect()
        }
        // Each needs 1 MiB; the spool has 2 MiB.
        var conclusion: (replies: [String], body: [UInt8]) = ([], [])
        for _ in 1...100 where conclusion.replies != ["c"] {
            conclusion = try service.connect().content([], body)
        }
        #expect(conclusion.replies == ["c"])
        #expect(conclusion.body == kept)
        try await service.stop()
    }

    @Test func mailFromSendmail() async throws {
        for (policy, expected) in [
            ("hold", ["q 5.7.1 over|", "c"]), ("defer", ["y 450 4.7.1 over|"]),
        ] {
            let service = try await MilterService(
                """
                milter: { local_over: \(policy) }
                limits: [ { name: sender, key: sender, rates: [ 1/1h ], over: "REJECT 5.7.1 over" } ]
                """)
            let client = try service.connect()
            client.send(MilterClient.connection("127.0.0.1", port: 0))
            client.mail("a@example.org", ["b@example.com", "c@example.com"])
            #expect(client.replies(2) == ["c", "c"])
            #expect(client.content(["Subject: x"]).replies == expected)
            #expect(service.logged.contains(policy == "hold" ? ": held: 554 5.7.1" : ": deferred: 450 4.7.1"))
            // What the message was charged is given back, so a message to its first recipient fits.
            client.mail()
            #expect(client.reply() == "c")
            #expect(client.content(["Subject: x"]).replies == ["c"])
            try await service.stop()
        }
    }

    @Test func anAlertPassesOnce() async throws {
        let service = try await MilterService(
            "limits: [ { name: sender, key: sender, rates: [ 1/1h ], over: DISCARD } ]", header: Self.rules)
        let mark = service.alerts.marks.make()
        let client = try service.connect()
        client.send(MilterClient.connection())
        for (header, expected) in [
            ("Subject: x", "c"), ("Subject: x", "d"), ("X-Weir-Alert: \(mark)", "c"), ("X-Weir-Alert: \(mark)", "d"),
        ] {
            client.mail()
            #expect(client.reply() == "c")
            #expect(client.content([header]).replies == [expected], "\(header)")
        }
        #expect(service.logged.contains("milter: 4ABC: from=<a@example.org>: passed: an alert"))
        try await service.stop()
    }

    @Test func aProbeIsDiscarded() async throws {
        let service = try await MilterService(header: Self.rules)
        let token = service.probes.begin(upTo: .milter, at: .now)
        let client = try service.connect()
        #expect(client.content(["X-Weir-Probe: \(token)"]).replies == ["d"])
        #expect(client.content(["Subject: x"]).replies == ["c"])
        #expect(service.probes.sightings(of: token).map(\.outcome) == ["passed"])
        try await service.stop()
    }

    /// A spooled body is sent piece by piece, also while the service stops.
    @Test func aStopDuringALargeNewBody() async throws {
        let service = try await MilterService(body: ["/^drop/ IGNORE"])
        let idle = try service.connect()
        let client = try service.connect()
        let kept = Array(repeatElement(Array("keep this line of the body\r\n".utf8), count: 40_000).joined())
        client.sendBody(Array("drop\r\n".utf8) + kept)
        client.send("E")
        let first = try #require(client.reply())
        #expect(first.hasPrefix("b "))
        async let stop: Void = service.stopContent()
        let (replies, rest) = client.conclusion()
        #expect(replies == ["c"])
        #expect(Array(first.utf8.dropFirst(2)) + rest == kept)
        #expect(client.reply() == nil)
        #expect(idle.reply() == nil)
        await stop
        try await service.stopLedger()
    }

    /// The service stops reading once the MTA has too many unread replies, and sends all of them when the MTA reads
    /// again.
    @Test func anMTAThatDoesNotRead() async throws {
        let text = String(repeating: "no ", count: 150)
        let service = try await MilterService(
            "limits: [ { name: sender, key: sender, rates: [ 1/1h ], over: \"REJECT \(text)\" } ]")
        let client = try service.connect()
        client.send(MilterClient.connection())
        client.mail()
        #expect(client.reply() == "c")
        let most = 20_000
        let packet = MilterClient.packet("R", "<\(String(repeating: "r", count: 1_000))@example.com>\0")
        var count = 0
        while count < most, client.sendIfRead(packet) { count += 1 }
        #expect(count < most)
        for _ in 0..<count { #expect(client.reply()?.first == "y") }
        #expect(client.content(["Subject: x"]).replies == ["c"])
        try await service.stop()
    }

    @Test func anEnvelopeThatIsTooLarge() async throws {
        let service = try await MilterService(header: ["/^X-To:/ REDIRECT other@example.com"])
        let client = try service.connect()
        client.mail()
        for _ in 1...30 { client.send("R", "<\(String(repeating: "r", count: 200_000))@example.com>\0") }
        #expect(client.reply() == nil)
        #expect(service.logged.contains("too many recipients for the memory of one message"))
        try await service.stop()
    }

    /// If the MTA does not grant the edits that a message needs, `on_failure` decides. Other messages are not affected.
    @Test func editsThatAreNotGranted() async throws {
        for (policy, expected) in [("dunno", "c"), ("defer", "t")] {
            let service = try await MilterService("on_failure: \(policy)", header: Self.rules)
            let client = try service.connect(actions: 0x1ff & ~0x20)
            #expect(client.content(["Subject: hold"]).replies == [expected])
            #expect(client.content(["Subject: x"]).replies == ["c"])
            #expect(service.logged.contains("does not grant the edits"))
            try await service.stop()
        }
    }
}
