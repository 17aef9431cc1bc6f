// SPDX-License-Identifier: Apache-2.0
import LoadGenerator
import Testing

@Suite struct PolicyReplyTests {
    private func action(in reply: String) throws -> String? {
        let bytes = Array(reply.utf8)
        return try PolicyReply.action(in: bytes.span).map { String(decoding: bytes[$0], as: UTF8.self) }
    }

    @Test(arguments: [
        ("action=DUNNO\n\n", "DUNNO"),
        ("action=DEFER_IF_PERMIT 4.7.1 try later\n\n", "DEFER_IF_PERMIT 4.7.1 try later"),
        ("action=450 4.7.1 a=b\n\n", "450 4.7.1 a=b"),
        ("other=x\naction=OK\n\n", "OK"),
        ("action=PREPEND X-A: b\n\n", "PREPEND X-A: b"),
    ])
    func `finds the action`(reply: String, action: String) throws {
        #expect(try self.action(in: reply) == action)
    }

    @Test(arguments: ["action=DEFER 4.7.1 text\n\n", "a=b\naction=DUNNO\n\n"])
    func `waits for a reply cut at any byte`(reply: String) throws {
        for length in 0..<reply.utf8.count {
            #expect(try action(in: String(reply.prefix(length))) == nil)
        }
    }

    @Test(arguments: [
        ("\n", "no action"),
        ("status=DUNNO\n\n", "no action"),
        ("Action=DUNNO\n\n", "no action"),
        ("action=\n\n", "an empty action"),
        ("action=450\n\n", "a reply code without a text"),
        ("action\n\n", "a line without ="),
        ("action=DUNNO\n\naction=DUNNO\n\n", "more than one reply to one request"),
        ("action=DUNNO\n\n\n", "more than one reply to one request"),
    ])
    func `refuses what Postfix takes for trouble`(reply: String, reason: String) {
        #expect(throws: MalformedReply(reason: reason)) { try action(in: reply) }
    }

    @Test func `rejects an endless reply`() throws {
        let limit = PolicyReply.maximumLength
        #expect(try action(in: String(repeating: "x", count: limit)) == nil)
        #expect(throws: MalformedReply(reason: "longer than 65536 bytes")) {
            try action(in: String(repeating: "x", count: limit + 1))
        }
    }
}
