// SPDX-License-Identifier: Apache-2.0
import Filter
import Rules
import Testing

@Suite("What a way in shows of a message")
struct WayInTests {
    private static let message = """
        Return-Path: <a@example.org>
        Received: from one
        \tby two
        received: from zero
        BCC : b@example.org
        Bcc-Not: x
        Content-length: 1

        Bcc: in the body

        """

    private func shown(_ message: String, as way: WayIn) -> String {
        String(decoding: way.view(of: Array(message.utf8)).content, as: UTF8.self)
    }

    private func removing(_ lines: String...) -> String {
        lines.reduce(Self.message) { $0.replacing($1 + "\n", with: "") }
    }

    @Test("Headers that Postfix removes first, or adds itself")
    func headers() {
        let dropped = removing("Return-Path: <a@example.org>", "BCC : b@example.org", "Content-length: 1")
        #expect(shown(Self.message, as: .proxy) == Self.message)
        #expect(shown(Self.message, as: .filter) == dropped)
        #expect(shown(Self.message, as: .pipe) == dropped)
        #expect(shown(Self.message, as: .milter) == dropped.replacing("Received: from one\n\tby two\n", with: ""))
    }

    @Test(
        "CRLF, and messages without headers, body or end",
        arguments: ["", "x", "\n", "body\n", "\nBcc: x\n", " Bcc: x\n"])
    func edges(_ message: String) {
        for way in WayIn.allCases {
            #expect(shown(message, as: way) == message)
            #expect(shown("Bcc: x\r\nA: b\r\n" + message, as: way).hasSuffix("A: b\r\n" + message))
        }
        #expect(shown("A: b\r\nBcc: x\r\n\ty\r\n\r\n" + message, as: .milter) == "A: b\r\n\r\n" + message)
        #expect(shown("A: b\nBcc: x", as: .milter) == "A: b\n")
    }

    @Test("A milter gets 60,000 bytes of a header", arguments: [59_999, 60_000, 60_001])
    func longHeader(_ length: Int) throws {
        let header = "X-Long: " + String(repeating: "y", count: length - 9) + "\n"
        let view = WayIn.milter.view(of: Array((header + "A: b\n\n").utf8))
        #expect(view.unseen.map(\.seen) == (length > 60_000 ? [60_000] : []))
        let text = String(decoding: view.content, as: UTF8.self)
        #expect(text == (length > 60_000 ? header.prefix(60_000) + "\nA: b\n\n" : header + "A: b\n\n"))
    }

    @Test("A verdict has the offsets of the message")
    func offsets() throws {
        let rules = try ContentRules(ContentChecks())
        let filter = MessageFilter(rules, matcher: Matcher())
        let text = "Received: one\nX-A: b\nBcc: x\nTo: undisclosed-recipients:;\nX-Weir-Verdict: HOLD\n\nbody\n"
        let view = WayIn.milter.view(of: Array(text.utf8))
        filter.update(view.content)
        let verdict = view.inMessage(filter.finish())
        let result = String(decoding: verdict.apply(to: Array(text.utf8), lineEnd: .lf), as: UTF8.self)
        #expect(result == "Received: one\nX-A: b\nBcc: x\n\nbody\n")
        #expect(verdict.notes == [.undisclosedRecipients(offset: text.utf8.count - 56)])
    }
}
