// SPDX-License-Identifier: Apache-2.0
import Messages
import NIOCore
import Testing
import Wire

/// Copies for an LMTP server go first, on a connection of their own. Whatever fails, nobody loses the message or gets
/// it twice: neither the client's recipients, nor the copies.
@Suite("Copies to a next hop that speaks LMTP", .serialized)
struct FilterCopiesTests {
    private static let rules = "/^Subject:/ BCC y@example.com\n/^X-More:/ BCC z@example.com"

    /// - Returns: the codes of the replies to the final dot, one for each recipient.
    private func deliver(
        _ content: String = "Subject: x\r\nX-More: x\r\n\r\nx\r\n", to recipients: String..., client: Peer
    )
        -> [Int]
    {
        let envelope = ["MAIL FROM:<a@example.org>"] + recipients.map { "RCPT TO:<\($0)@example.com>" }
        #expect(client.go(envelope + ["DATA"]).last == 354)
        client.send(content + ".\r\n")
        return recipients.compactMap { _ in client.reply().flatMap { Int($0.prefix(3)) } }
    }

    private func run(
        _ scripts: [ScriptedNextHop.Script], memory: Int = 1 << 20, _ body: (RunningFilter, Peer) async throws -> Void
    ) async throws {
        try await RunningFilter.run(
            header: Self.rules, hop: scripts, client: .lmtp, nextHop: .lmtp, memory: memory
        ) { running in
            let client = running.connect()
            #expect(client.converse(["LHLO x"]) == [220, 250])
            try await body(running, client)
        }
    }

    /// The first letters of the recipients that have the message, in the order of its deliveries.
    private func arrivals(_ running: RunningFilter) -> String {
        running.hop.messages.map { $0.envelope[1].dropFirst("RCPT TO:<".count).prefix(1) }.joined()
    }

    @Test("A deferred copy defers the message before a recipient has it; an accepted copy is not repeated")
    func copyIsDeferred() async throws {
        try await run([[:], [".z@example.com": .text("452 4.2.2 full")], [:]]) { running, client in
            #expect(deliver(to: "b", "c", client: client) == [451, 451])
            #expect(arrivals(running) == "y")
            #expect(running.logged("a BCC is deferred, and the message with it: the next hop answered 452 4.2.2 full"))
            #expect(deliver(to: "b", "c", client: client) == [250, 250])
            #expect(arrivals(running) == "yzbc")
        }
    }

    @Test("A deferred recipient gets the message later, without the copies")
    func recipientIsDeferred() async throws {
        try await run([[".c@example.com": .text("452 4.2.2 full")], [:]]) { running, client in
            #expect(deliver(to: "b", "c", client: client) == [250, 452])
            #expect(deliver(to: "c", client: client) == [452])
            #expect(deliver(to: "d", client: client) == [250])
            #expect(arrivals(running) == "yzbd")
            // That was the end of this message. The same content once more is another message.
            #expect(deliver(to: "b", client: client) == [250])
            #expect(arrivals(running) == "yzbdyzb")
            // Another sender or other content makes another message, too.
            #expect(deliver("Subject: x\r\nX-More: x\r\n\r\nX\r\n", to: "b", client: client) == [250])
            #expect(arrivals(running) == "yzbdyzbyzb")
        }
    }

    /// However the content is cut into pieces, it is the same message.
    @Test("A spooled message comes again without its copies, whole")
    func spooled() async throws {
        let content = "Subject: x\r\n\r\n" + String(repeating: "0123456789\r\n", count: 20_000)
        try await run([[".c@example.com": .text("452 4.2.2 full")], [:]], memory: 0) { running, client in
            #expect(deliver(content, to: "b", "c", client: client) == [250, 452])
            #expect(client.go(["MAIL FROM:<a@example.org>", "RCPT TO:<d@example.com>", "DATA"]).last == 354)
            for cut in stride(from: 0, to: content.utf8.count, by: 60_001) {
                client.send(String(decoding: Array(content.utf8).dropFirst(cut).prefix(60_001), as: UTF8.self))
                try await running.settle()
            }
            client.send(".\r\n")
            #expect(client.reply()?.prefix(3) == "250")
            #expect(arrivals(running) == "ybd")
            let whole = content.replacing("\r\n", with: "\n")
            #expect(running.hop.messages.allSatisfy { $0.content == whole })
        }
    }

    @Test("A copy that is refused for good is left out", arguments: ["RCPT", "DATA", "."])
    func copyIsRefused(at stage: String) async throws {
        let key = stage == "RCPT" ? "RCPT TO:<z@example.com>" : stage == "." ? ".z@example.com" : stage
        try await run([[:], [key: .text("550 5.1.1 no")]]) { running, client in
            #expect(deliver(to: "b", client: client) == [250])
            #expect(arrivals(running) == (stage == "DATA" ? "b" : "yb"))
            #expect(running.logged("omitted a BCC: the next hop answered 550 5.1.1 no"))
        }
    }

    @Test(
        "A copy that can't be handed on defers the message", arguments: ["", "LHLO", "MAIL", "RCPT", "DATA", "content"])
    func copyIsLost(at stage: String) async throws {
        try await run([[:], [stage: .close], [:]]) { running, client in
            #expect(deliver(to: "b", "c", client: client) == [451, 451])
            #expect(arrivals(running) == "")
            #expect(deliver(to: "b", "c", client: client) == [250, 250])
            #expect(arrivals(running) == "yzbc")
        }
    }

    @Test("A copy with its reply is not repeated if the server goes away before the next one's")
    func copiesAreLost() async throws {
        try await run([[:], [".2": .close], [:]]) { running, client in
            #expect(deliver(to: "b", client: client) == [451])
            #expect(running.logged("the message may arrive twice"))
            #expect(deliver(to: "b", client: client) == [250])
            #expect(arrivals(running) == "yzb")
        }
    }

    @Test(
        "If the recipients' connection is lost, they get the message later, without the copies",
        arguments: [true, false])
    func recipientsAreLost(duringCopies: Bool) async throws {
        let scripts: [ScriptedNextHop.Script] =
            duringCopies ? [[:], ["DATA": .held("354 go")]] : [["DATA": .close], [:]]
        try await run(scripts + [[:]]) { running, client in
            #expect(client.go(["MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "DATA"]).last == 354)
            client.send("Subject: x\r\n\r\nx\r\n.\r\n")
            if duringCopies {
                #expect(running.hop.waitForSilence())
                running.hop.drop(connection: 0)
                try await running.settle()
                #expect(client.isSilent)
                running.hop.release()
            }
            #expect(client.reply()?.prefix(3) == "451")
            #expect(arrivals(running) == "y")
        }
    }

    @Test("A client that disconnects while the copies are under way takes the message along")
    func clientDisconnects() async throws {
        try await run([[:], ["DATA": .held("354 go")], [:]]) { running, client in
            do {
                let client = running.connect()
                #expect(client.converse(["LHLO x", "MAIL FROM:<>", "RCPT TO:<b@example.com>", "DATA"]).last == 354)
                client.send("Subject: x\r\n\r\nx\r\n.\r\n")
                #expect(running.hop.waitForSilence())
            }
            try await running.settle()
            running.hop.release()
            #expect(deliver("Subject: x\r\n\r\nx\r\n", to: "c", client: client) == [250])
            #expect(arrivals(running) == "yc")
        }
    }
}
