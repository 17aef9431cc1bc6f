// SPDX-License-Identifier: Apache-2.0
import Filter
import Glibc
import Rules
import Testing

@Suite struct DecodedHeaderTests {
    private static let message = """
        Received: from a by b\r
        Subject: =?utf-8?B?VmlhZ3Jh?= =?utf-8?q?_=C3=A4?=\r
        To: a@example.org\r
        MIME-Version: 1.0\r
        Content-Type: multipart/mixed; boundary=b\r
        \r
        --b\r
        Content-Disposition: attachment;\r
         filename*0*=utf-8''r%C3%A4; filename*1=t.exe\r
        \r
        x\r
        --b\r
        Content-Type: message/rfc822\r
        \r
        Subject: =?koi8-r?q?=C1?=\r
        \r
        y\r
        --b--\r

        """

    private static let header = #"Subject: =?utf-8?B?VmlhZ3Jh?= =?utf-8?q?_=C3=A4?="#

    private func rules(header: String = "", decoded: String) throws -> ContentRules {
        var template = Array("/tmp/weir-decoded-XXXXXX".utf8CString)
        let directory = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { system("rm -rf '\(directory)'") }
        var checks = ContentChecks()
        for (name, text) in [("header", header), ("decoded", decoded)] where !text.isEmpty {
            let file = try #require(fopen("\(directory)/\(name)", "w"))
            fputs(text, file)
            fclose(file)
        }
        if !header.isEmpty { checks.tables.header = ["pcre:\(directory)/header"] }
        checks.tables.decodedHeader = ["pcre:\(directory)/decoded"]
        return try ContentRules(checks)
    }

    private func judge(_ rules: ContentRules, inPieces size: Int = .max) -> (verdict: Verdict, text: String) {
        let filter = MessageFilter(rules, matcher: Matcher())
        let bytes = Array(Self.message.utf8)
        var start = 0
        while start < bytes.count {
            let end = min(start + min(size, bytes.count), bytes.count)
            filter.update(Array(bytes[start..<end]))
            start = end
        }
        let verdict = filter.finish()
        return (verdict, String(decoding: verdict.apply(to: bytes, lineEnd: .crlf), as: UTF8.self))
    }

    private func verdict(_ decoded: String, header: String = "") throws -> (verdict: Verdict, text: String) {
        let rules = try rules(header: header, decoded: decoded)
        let slow = judge(rules)
        rules.prepareFastPass()
        let (fast, pieces) = (judge(rules), judge(rules, inPieces: 7))
        #expect(slow.text == fast.text && pieces.text == fast.text)
        #expect(slow.verdict.matches.map(\.content) == fast.verdict.matches.map(\.content))
        return fast
    }

    @Test(arguments: [
        ("/^Subject: viagra Ä$/ REJECT no", "Subject: Viagra ä"),
        ("/filename=\"rät\\.exe\"/ REJECT no", "Content-Disposition: attachment; filename=\"rät.exe\""),
        ("/^Subject: А$/ REJECT no", "Subject: а"),
    ])
    func aRefusal(_ rule: String, _ content: String) throws {
        let verdict = try verdict(rule).verdict
        #expect(verdict.disposition == .refuse(Refusal(code: 550, text: Array("5.7.1 no".utf8))))
        #expect(verdict.matches.map(\.subject) == [.decodedHeader])
        #expect(verdict.matches.map { String(decoding: $0.content, as: UTF8.self) } == [content])
    }

    @Test(arguments: [
        ("/viagra/ IGNORE", ""), ("/viagra/ STRIP", ""), ("/viagra/ REPLACE Subject: -", "Subject: -\r\n"),
        ("/(viagra)/ PREPEND X-Was: $1", "X-Was: Viagra\r\n\(header)\r\n"),
        ("/viagra/ REPLACE Bcc: a@example.org", ""),
    ])
    func editsAreOfTheWholeHeader(_ rule: String, _ expected: String) throws {
        #expect(try verdict(rule).text == Self.message.replacing("\(Self.header)\r\n", with: expected))
    }

    @Test func editsOfHeadersOfParts() throws {
        let expected = Self.message.replacing("Subject: =?koi8-r?q?=C1?=\r\n", with: "")
        #expect(try verdict("/^Subject: а/ IGNORE").text == expected)
    }

    /// Raw checks come first, and a header that they take away or replace is gone.
    @Test(arguments: [
        ("/^Subject: =/ IGNORE", 0), ("/^Subject: =/ REPLACE Subject: Viagra", 0), ("/^Subject: =/ WARN", 1),
        ("/^Subject: =/ PREPEND X: y", 1), ("/^Received/ PASS", 0), ("/^Received/ REJECT", 0), ("/^To/ REJECT", 1),
        ("/^Subject: =/ DUNNO", 1),
    ])
    func rawChecksComeFirst(_ rule: String, _ count: Int) throws {
        let matches = try verdict("/viagra/ WARN", header: rule).verdict.matches
        #expect(matches.count { $0.subject == .decodedHeader } == count)
    }

    @Test func effects() throws {
        let rules = "/^To/ BCC b@example.org\n/viagra/ HOLD spam\n/filename/ DISCARD"
        let verdict = try verdict(rules).verdict
        #expect(verdict.disposition == .discard && verdict.isHeld)
        #expect(verdict.recipients == .envelope(copies: [Array("b@example.org".utf8)]))
    }

    @Test func theWholeMessageIsShown() {
        let headers = DecodedHeader.all(in: Array(Self.message.utf8), ContentChecks())
        #expect(
            headers.map { "\($0.place.rawValue) " + String(decoding: $0.text, as: UTF8.self) } == [
                "message Received: from a by b", "message Subject: Viagra ä", "message To: a@example.org",
                "message MIME-Version: 1.0", "message Content-Type: multipart/mixed; boundary=b",
                "part Content-Disposition: attachment; filename=\"rät.exe\"", "part Content-Type: message/rfc822",
                "attached Subject: а",
            ])
    }

    @Test func rulesContinueAfterAReload() throws {
        let (old, next) = (try rules(decoded: "/a/ WARN"), try rules(decoded: "/a/ WARN\n/b/ WARN"))
        let rules = ContentRules(next, continuing: old)
        #expect(rules.sets[0].decodedHeader.count == 2)
        #expect(
            rules.sets[0].classes.map(\.name) == ["header", "decoded_header", "decoded_body", "attachment", "body"])
    }
}
