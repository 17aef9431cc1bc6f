// SPDX-License-Identifier: Apache-2.0
import Messages
import NIOCore
import Settings
import Testing
import Wire

/// Whom the filter times out: a client only for what the client has to do, and the disk and the next hop each for their
/// own part. The tests say when time has passed.
@Suite("The timeouts of the filter", .serialized)
struct FilterTimeoutTests {
    private static let envelope = ["EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "DATA"]
    private static let begun = [220, 250, 250, 250, 354]
    private static let message = "Subject: x\r\n\r\nx\r\n.\r\n"

    @Test("A client waits while the disk writes the last piece")
    func diskWritesTheLastPiece() async throws {
        try await RunningFilter.run(
            memory: 0,
            timeouts: {
                $0.disk = .seconds(900)
                // The next hop may not have answered DATA yet.
                $0.reply = .seconds(900)
            }
        ) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope) == Self.begun)
            let disk = running.holdDisk()
            client.send(Self.message)
            for _ in 0..<4 { try await running.settle() }
            try await running.pass(.seconds(301))
            disk.release()
            #expect(client.reply() == "250 2.0.0 Ok: queued")
            #expect(running.hop.messages.count == 1)
        }
    }

    @Test("A disk that hangs defers the message", arguments: ["piece", "last piece", "read"])
    func diskHangs(at stage: String) async throws {
        try await RunningFilter.run(
            hop: [["DATA": .held("354 go")], [:]], memory: 0,
            timeouts: {
                $0.client = .hours(1)
                $0.disk = .seconds(900)
            }
        ) { running in
            let before = NIODeadline.now()
            let client = running.connect()
            #expect(client.converse(Self.envelope) == Self.begun)
            var disk = running.holdDisk()
            client.send(stage == "piece" ? String(repeating: "0123456789\r\n", count: 6_000) : Self.message)
            for _ in 0..<4 { try await running.settle() }
            if stage == "read" {
                disk.release()
                #expect(running.hop.waitForSilence())
                disk = running.holdDisk()
                running.hop.release()
                try await running.settle()
            }
            await running.filter.sweep(at: before + .seconds(900))
            #expect(client.isSilent)
            try await running.pass(.seconds(901))
            #expect(client.codes() == [421])
            disk.release()
            try await running.waitForDisk()
            #expect(running.hop.messages == [])
            if stage == "read" {
                #expect(running.connect().converse(Self.envelope + ["x\r\n."]) == Self.begun + [250])
            }
        }
    }

    @Test("The time for a client's next bytes begins when the disk is done")
    func clientAfterTheDisk() async throws {
        try await RunningFilter.run(memory: 0) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope) == Self.begun)
            let disk = running.holdDisk()
            // A write begins with the last of these bytes, so that nothing is left to be read after it.
            client.send(String(repeating: "0123456789\r\n", count: 5_461) + "abcd")
            for _ in 0..<4 { try await running.settle() }
            let released = NIODeadline.now()
            disk.release()
            try await running.waitForDisk()
            await running.filter.sweep(at: released + .seconds(300))
            client.send(Self.message)
            #expect(client.reply() == "250 2.0.0 Ok: queued")
        }
    }

    @Test("The time for all of a message's content does not include the disk's")
    func contentWithoutTheDisk() async throws {
        try await RunningFilter.run(memory: 0, timeouts: { $0.client = .hours(24) }) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope.dropLast()) == Self.begun.dropLast())
            let before = NIODeadline.now()
            #expect(client.go(["DATA"]) == [354])
            let after = NIODeadline.now()
            let disk = running.holdDisk()
            client.send(String(repeating: "0123456789\r\n", count: 6_000))
            for _ in 0..<4 { try await running.settle() }
            let atDisk = NIODeadline.now()
            // The disk takes longer than it is unclear when the content began.
            while NIODeadline.now() - atDisk <= after - before {}
            disk.release()
            try await running.waitForDisk()
            await running.filter.sweep(at: after + .seconds(3_600) + .nanoseconds(1))
            client.send(Self.message)
            #expect(client.reply() == "250 2.0.0 Ok: queued")
        }
    }

    @Test("Checks that take longer than a client's next bytes may take defer the message")
    func checksOfAPieceTakeLong() async throws {
        let heavy = "X-Heavy: \(String(repeating: "x", count: 60))qy\r\n"
        try await RunningFilter.run(header: #"/^X-Heavy: (x+x+)+(.)\2y$/ REJECT"#) { running in
            let before = NIODeadline.now()
            let client = running.connect()
            #expect(client.converse(Self.envelope) == Self.begun)
            // The same thread does lookups that take long.
            let lookups = running.holdDisk()
            client.send(heavy + "Subject: x\r\n\r\nbody\r\n")
            for _ in 0..<4 { try await running.settle() }
            await running.filter.sweep(at: before + .seconds(300))
            #expect(client.isSilent)
            try await running.pass(.seconds(301))
            #expect(!client.isSilent)
            #expect(client.reply() == "421 4.3.0 Error: the content checks take too long")
            #expect(running.logged("its checks take too long"))
            lookups.release()
            try await running.waitForDisk()
            #expect(running.hop.messages == [])
        }
    }

    @Test("A client waits while EHLO waits for the next hop", arguments: ["", "EHLO"])
    func capabilities(step: String) async throws {
        let reply = step == "" ? "220 hop.example.org" : "250 hop.example.org"
        try await RunningFilter.run(
            hop: [[step: .held(reply)]], timeouts: { ($0.client, $0.reply) = (.seconds(100), .hours(1)) }
        ) { running in
            let client = running.connect()
            #expect(client.reply()?.prefix(3) == "220")
            client.send("EHLO x\r\n")
            #expect(running.hop.waitForSilence())
            try await running.settle()
            try await running.pass(.seconds(200))
            running.hop.release()
            #expect(client.reply()?.prefix(3) == "250")
        }
    }

    @Test("The time for a client's next command begins when the next hop has answered", arguments: ["RCPT", "."])
    func clientAfterTheNextHop(step: String) async throws {
        try await RunningFilter.run(hop: [[step: .held("250 2.0.0 Ok: queued")]]) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope.dropLast(2)).last == 250)
            client.send(Self.envelope[2] + "\r\n")
            if step == "." {
                #expect(client.reply()?.prefix(3) == "250")
                #expect(client.go(["DATA"]) == [354])
                client.send(Self.message)
            }
            #expect(running.hop.waitForSilence())
            let released = NIODeadline.now()
            running.hop.release()
            #expect(client.reply() == "250 2.0.0 Ok: queued")
            await running.filter.sweep(at: released + .seconds(300))
            #expect(client.go(["NOOP"]) == [250])
        }
    }

    @Test("The next hop is not timed out while the disk reads the next piece")
    func nextHopWaitsForTheDisk() async throws {
        try await RunningFilter.run(
            header: "/^Subject:/ PREPEND X-Checked: yes", hop: [["DATA": .held("354 go")]], memory: 0,
            timeouts: { $0.disk = .seconds(900) }
        ) { running in
            let client = running.connect()
            #expect(client.converse(Self.envelope) == Self.begun)
            client.send("From: a@example.org\r\n" + Self.message)
            #expect(running.hop.waitForSilence())
            let first = running.holdDisk()
            running.hop.release()
            // The read of the first piece waits behind `first`, the read of the second behind `second`.
            try await running.settle()
            let second = running.holdDisk()
            first.release()
            second.waitUntilBegun()
            try await running.settle()
            try await running.pass(.seconds(301))
            second.release()
            #expect(client.reply() == "250 2.0.0 Ok: queued")
            #expect(
                running.hop.messages.map(\.content) == ["From: a@example.org\nX-Checked: yes\nSubject: x\n\nx\n"])
        }
    }

    // MARK: The deadline of the answer

    /// smtpd waits 100 s for the reply to its final dot (smtpd_proxy_timeout). If it gives up, the client sends the
    /// message again, although the next hop may have accepted it.
    @Test("Before the queue, the client has its answer before smtpd gives up", arguments: ["disk", "DATA", "."])
    func answerBeforeTheQueue(slow stage: String) async throws {
        let script: ScriptedNextHop.Script = stage == "." ? [".": .silence] : ["DATA": .held("354 go")]
        try await RunningFilter.run(hop: [script], mode: .beforeQueue, memory: stage == "disk" ? 0 : 1 << 20) {
            running in
            let client = running.connect()
            #expect(client.converse(Self.envelope) == Self.begun)
            let before = NIODeadline.now()
            client.send(Self.message)
            #expect(running.hop.waitForSilence())
            // The final dot has been read. All that follows shares one deadline, which began with it.
            let read = NIODeadline.now()
            let disk = stage == "disk" ? running.holdDisk() : nil
            if stage == "disk" { running.hop.release() }
            try await running.settle()
            if stage != "disk" { await running.filter.sweep(at: before + .seconds(70)) }
            #expect(client.isSilent)
            await running.filter.sweep(at: read + .seconds(70) + .nanoseconds(1))
            #expect(client.reply()?.prefix(3) == (stage == "disk" ? "421" : "451"))
            disk?.release()
            if stage == "DATA" { running.hop.release() }
            #expect(running.hop.messages == [])
        }
    }

    @Test("Each reply to an LMTP client begins the time for the next one")
    func answerForEachRecipient() async throws {
        let hop: ScriptedNextHop.Script = [".1": .held("250 2.1.5 Ok"), ".2": .held("250 2.1.5 Ok")]
        try await RunningFilter.run(
            hop: [hop], client: .lmtp, nextHop: .lmtp, timeouts: { $0.finalReply = .hours(1) }
        ) { running in
            let client = running.connect()
            let recipients = ["RCPT TO:<b@example.com>", "RCPT TO:<c@example.com>"]
            #expect(client.converse(["LHLO x", Self.envelope[1]] + recipients + ["DATA"]).last == 354)
            client.send(Self.message)
            #expect(running.hop.waitForSilence())
            let read = NIODeadline.now()
            running.hop.release()
            #expect(client.reply() == "250 2.1.5 Ok")
            #expect(running.hop.waitForSilence())
            await running.filter.sweep(at: read + .seconds(1_400))
            #expect(client.isSilent)
            running.hop.release()
            #expect(client.reply() == "250 2.1.5 Ok")
        }
    }

    /// smtpd never shuts down one side only: it has given up, and its client sends the message again.
    @Test("Before the queue, a client that leaves takes its message along", arguments: ["DATA", "."])
    func clientGivesUp(at stage: String) async throws {
        try await RunningFilter.run(
            hop: [[stage: .held(stage == "." ? "250 2.0.0 Ok" : "354 go")]], mode: .beforeQueue
        ) { running in
            do {
                let client = running.connect()
                #expect(client.converse(Self.envelope) == Self.begun)
                client.send(Self.message)
                #expect(running.hop.waitForSilence())
                client.shutDown()
                #expect(client.reply() == nil)
            }
            running.hop.release()
            try await running.settle()
            #expect(running.logged("the message may arrive twice") == (stage == "."))
            let next = running.connect()
            #expect(next.converse(Self.envelope) == Self.begun)
            next.send(Self.message)
            #expect(running.hop.waitForSilence())
            running.hop.release()
            #expect(next.reply()?.prefix(3) == "250")
            #expect(running.hop.messages.count == (stage == "." ? 2 : 1))
        }
    }
}
