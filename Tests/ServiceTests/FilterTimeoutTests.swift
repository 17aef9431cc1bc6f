// SPDX-License-Identifier: Apache-2.0
import Messages
import NIOCore
import Testing

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
            try await running.pass(.seconds(899))
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

    @Test("A client waits while EHLO waits for the next hop", arguments: ["", "EHLO"])
    func capabilities(step: String) async throws {
        let reply = step == "" ? "220 hop.example.org" : "250 hop.example.org"
        try await RunningFilter.run(hop: [[step: .held(reply)]], timeouts: { $0.client = .seconds(100) }) { running in
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
}
