// SPDX-License-Identifier: Apache-2.0
import Filter
import Glibc
import Rules
import Testing

/// Rules from text, through files as the operator has them.
func rules(
    header: String = "", body: String = "", keep: Bool = false, set: (inout ContentChecks) -> Void = { _ in }
) throws -> ContentRules {
    var template = Array("/tmp/weir-filter-XXXXXX".utf8CString)
    let directory = try #require(mkdtemp(&template).map { String(cString: $0) })
    defer { system("rm -rf '\(directory)'") }
    var checks = ContentChecks()
    checks.undisclosedRecipients = keep ? .keep : .strip
    set(&checks)
    for (name, text) in [("header", header), ("body", body)] where !text.isEmpty {
        let path = "\(directory)/\(name)"
        let file = try #require(fopen(path, "w"))
        fputs(text, file)
        fclose(file)
        if name == "header" { checks.tables.header = ["pcre:\(path)"] } else { checks.tables.body = ["pcre:\(path)"] }
    }
    let rules = try ContentRules(checks)
    rules.prepareFastPass()
    return rules
}

private func judge(_ message: String, _ rules: ContentRules) -> Verdict {
    let filter = MessageFilter(rules, matcher: Matcher())
    filter.update(Array(message.utf8))
    return filter.finish()
}

private func result(_ message: String, _ rules: ContentRules) -> String {
    let verdict = judge(message, rules)
    return String(decoding: verdict.apply(to: Array(message.utf8), lineEnd: .crlf), as: UTF8.self)
}

@Suite struct MessageFilterTests {
    private static let message = "Subject: hi\r\nTo: a@example.org\r\n\r\nfoo\r\nbar\r\n"

    /// Header and body checks read the same table.
    @Test func warningsOfATableAreReportedOnce() throws {
        let path = "/tmp/weir-warnings-\(getpid())"
        let file = try #require(fopen(path, "w"))
        fputs("x\nx\n", file)
        fclose(file)
        defer { unlink(path) }
        var checks = ContentChecks()
        (checks.tables.header, checks.tables.body) = (["pcre:\(path)"], ["pcre:\(path)"])
        #expect(try ContentRules(checks).warnings.map(\.line) == [1, 2])
    }

    /// The Postfix behind Weir obeys this header, so neither a message nor a rule may add it.
    @Test(arguments: ["X-Weir-Verdict: HOLD", "x-weir-verdict : HOLD", "X-WEIR-VERDICT:\r\n HOLD"])
    func verdictHeadersAreRemoved(_ header: String) throws {
        #expect(result("A: b\r\n\(header)\r\n\(Self.message)", try rules()) == "A: b\r\n" + Self.message)
        let copying = try rules(header: "/^A: (.*)/ PREPEND $1\n/^B: (.*)/ REPLACE $1")
        let message = "A: X-Weir-Verdict: HOLD\r\nB: X-Weir-Verdict: HOLD\r\n" + Self.message
        #expect(result(message, copying) == message)
    }

    @Test(arguments: [
        ("/^Subject/ PREPEND X-A: b", "", "X-A: b\r\nSubject: hi\r\nTo: a@example.org\r\n\r\nfoo\r\nbar\r\n"),
        ("/^Subject: (.*)/ REPLACE Subject: [$1]", "", "Subject: [hi]\r\nTo: a@example.org\r\n\r\nfoo\r\nbar\r\n"),
        ("/^To/ IGNORE", "/foo/ REPLACE baz", "Subject: hi\r\n\r\nbaz\r\nbar\r\n"),
        ("", "/foo/ STRIP\n/bar/ PREPEND x", "Subject: hi\r\nTo: a@example.org\r\n\r\nx\r\nbar\r\n"),
        ("/^Subject/ PASS", "/foo/ STRIP", message),
        ("", "/foo/ REDIRECT nowhere", message),
    ])
    func edits(header: String, body: String, expected: String) throws {
        #expect(result(Self.message, try rules(header: header, body: body)) == expected)
    }

    @Test(arguments: [
        ("REJECT", 550, "5.7.1 message content rejected"), ("REJECT no", 550, "5.7.1 no"),
        ("REJECT 4.7.0 later", 451, "4.7.0 later"), ("REJECT 2.0.0 odd", 451, "4.0.0 odd"),
        ("", 451, "4.3.0 content check without an action, try again later"),
    ])
    func refusals(action: String, code: Int, text: String) throws {
        let verdict = judge(Self.message, try rules(body: "/foo/ \(action)\n/bar/ DISCARD"))
        #expect(verdict.disposition == .refuse(Refusal(code: code, text: Array(text.utf8))))
        #expect(verdict.matches.count == 1)
    }

    @Test func otherActionsAddUp() throws {
        let verdict = judge(
            Self.message,
            try rules(
                header: "/^Subject/ FILTER a:b\n/^To/ FILTER c:d",
                body: "/foo/ HOLD\n/bar/ BCC x@example.org"))
        #expect(verdict.effects == [.hold([]), .filter(Array("c:d".utf8)), .bcc(Array("x@example.org".utf8))])
        #expect(verdict.edits.isEmpty && verdict.disposition == .accept)
    }

    @Test func redirectOverridesFilter() throws {
        var verdict = judge(
            Self.message,
            try rules(
                header: "/^Subject/ FILTER a:b\n/^To/ BCC x@example.org", body: "/foo/ REDIRECT y@example.org"))
        let (redirect, copy) = (Array("y@example.org".utf8), Array("x@example.org".utf8))
        #expect(verdict.effects == [.redirect(redirect), .bcc(copy)])
        verdict.add(.filter(Array("c:d".utf8)))
        #expect(verdict.effects == [.redirect(redirect), .bcc(copy)])
        #expect(verdict.recipients == .redirect(redirect))
    }

    @Test(arguments: [
        "undisclosed-recipients:;", " Undisclosed Recipients: ;", "\r\n undisclosed-recipients:;",
        "undisclosed-recipients:; (no To header on input)", "\"Undisclosed recipients\":;",
        "(x) undisclosed_recipient : , ;", "undisclosed-recipients:;, undisclosed-recipients:;",
        "unlisted-recipients:; (no To-header on input)", "'undisclosed-recipients':;", "undisclosed.recipients:;",
        "=?utf-8?Q?undisclosed-recipients?=:;", "=?US-ASCII?q?undisclosed_recipients=3A=3B?=",
        "=?UTF-8?B?dW5kaXNjbG9zZWQtcmVjaXBpZW50cw==?=:;", "=?utf-8?Q?undisclosed?= =?utf-8?Q?-recipients?=:;",
    ])
    func emptyGroupIsStripped(value: String) throws {
        let rules = try rules()
        #expect(result("A: b\r\nTo:\(value)\r\n\r\nx\r\n", rules) == "A: b\r\n\r\nx\r\n")
    }

    @Test(arguments: [
        "a@example.org", "undisclosed-recipients: a@example.org;", "undisclosed-recipients:;, a@example.org",
        "friends:;", "undisclosed-recipients", "=?utf-8?Q?undisclosed-recipients?= <a@example.org>",
        "=?utf-8?Q?undisclosed-recipients:;(?=a@example.org)", "unlisted:;",
        "undisclosed-recipients:",
        "\"undisclosed-recipients:;\" <a@example.org>",
        "undisclosed-recipients:(;", "", "un\"disclosed recipients:;", "\"undisclosed (x) recipients\":;",
    ])
    func anyMailboxKeepsTheHeader(value: String) throws {
        #expect(judge("To: \(value)\r\n\r\nx\r\n", try rules()).edits.isEmpty)
    }

    @Test(arguments: [
        ("Friends:;", true), ("\"Alle \\\"Freunde\\\", neu\":;", true), ("Empf\u{e4}nger nicht bekannt:;", true),
        ("=?utf-8?Q?Empf=C3=A4nger?=:;, Others: (none);", true), ("undisclosed-recipients:;", true),
        ("Friends: a@example.org;", false), (":;", false), ("Friends:;, a@example.org", false), ("Friends", false),
        ("a@example.org:;", false), ("\"Friends:;", false), ("<Friends>:;", false),
    ])
    func anyEmptyGroupIsStrippedIfAskedFor(value: String, isStripped: Bool) throws {
        let rules = try rules { $0.undisclosedRecipients = .anyEmptyGroup }
        for name in ["To", "Cc", "Resent-To", "Resent-Cc"] {
            let message = "A: b\r\n\(name): \(value)\r\n\r\nx\r\n"
            #expect(result(message, rules) == (isStripped ? "A: b\r\n\r\nx\r\n" : message))
        }
    }

    /// Wherever the signature stands; a header that a rule has written breaks it anyway.
    @Test func aSignedHeaderStaysIfAskedFor() throws {
        let rules = try rules(header: "/^Cc: (.*)/ REPLACE Cc: undisclosed-recipients:;") { $0.keepsSigned = true }
        let message =
            "To : undisclosed-recipients:;\r\nResent-To: undisclosed-recipients:;\r\nCc: b@example.com\r\n"
            + "DKIM-Signature: v=1; h=To:Cc; b=x\r\n\r\nx\r\n"
        #expect(
            result(message, rules)
                == "To: undisclosed-recipients:;\r\nDKIM-Signature: v=1; h=To:Cc; b=x\r\n\r\nx\r\n")
        #expect(
            judge(message, rules).notes == [
                .signedHeaderKept(offset: 0, more: 0), .undisclosedRecipients(offset: 31, more: 1),
                .brokenSignature(header: "Cc"), .brokenSignatures(headers: [Array("cc".utf8)], body: false),
            ])
    }

    @Test func strippingThatBreaksASignatureIsReported() throws {
        let message = "DKIM-Signature: v=1; h=From:\r\n To; b=x\r\nTo: undisclosed-recipients:;\r\n\r\nx\r\n"
        #expect(
            judge(message, try rules()).notes == [
                .undisclosedRecipients(offset: 40), .brokenSignature(header: "To"),
            ])
        #expect(judge(message, try rules(keep: true)).edits.isEmpty)
        let resent = "DKIM-Signature: v=1; h=resent-to; b=x\r\nResent-To: undisclosed-recipients:;\r\n\r\nx\r\n"
        #expect(judge(resent, try rules()).notes.last == .brokenSignature(header: "Resent-To"))
    }

    @Test func floodsOfMatchesAreCounted() throws {
        let rules = try rules(header: "/^A:/ WARN\n/^B:/ IGNORE\n/^C:/ REJECT", keep: true)
        let (flood, ignored) = (
            String(repeating: "A: x\r\n", count: 3_000), String(repeating: "B: x\r\n", count: 3_000)
        )
        let verdict = judge(ignored + flood + "C: x\r\n\r\n", rules)
        #expect(verdict.matches.count { $0.isLogged } == 1_001 && verdict.moreMatches == 2_000)
        #expect(verdict.matches.count { !$0.isLogged } == 1_000)
        #expect(verdict.matches.last?.action == Array("REJECT".utf8))
        #expect(judge("A: x\r\n\r\n", rules).moreMatches == 0)
    }

    @Test func manyStrippedHeadersGiveOneNote() throws {
        let message =
            "DKIM-Signature: v=1; h=To; b=x\r\n" + String(repeating: "To: undisclosed-recipients:;\r\n", count: 5_000)
        let verdict = judge(message + "\r\n", try rules())
        #expect(verdict.notes == [.undisclosedRecipients(offset: 32, more: 4_999), .brokenSignature(header: "To")])
        #expect(verdict.edits.count == 5_000)
        #expect(
            verdict.notes.first?.description == "undisclosed-recipients header at offset 32 stripped, and 4999 more")
    }

    @Test func aRecipientIsAddedOnce() throws {
        let rules = try rules(body: "/^a/ BCC a@example.org\n/^b/ BCC b@example.org")
        let verdict = judge("\r\na\r\nb\r\na\r\na\r\nb\r\n", rules)
        #expect(verdict.effects == [.bcc(Array("a@example.org".utf8)), .bcc(Array("b@example.org".utf8))])
    }

    /// The Message-Id with the queue ID proves what follows it directly.
    @Test func headersOfCleanupAreNotJudged() throws {
        let rules = try rules(header: "/^(Message-Id|Date|From|To):/ PREPEND X-Saw: $1", keep: true)
        let own = "From: c@example.org\r\nDate: d\r\nSubject: x\r\n"
        let added =
            "Message-Id: <20261128180112.4ZkTx12345@mx.example.org>\r\nFrom: f\r\nTo: undisclosed-recipients:;\r\n"
        let later = "X-Late: y\r\nFrom: g\r\n\r\n"
        func offsets(_ tell: (MessageFilter) -> Void, _ message: String) -> [Int] {
            let filter = MessageFilter(rules, matcher: Matcher())
            tell(filter)
            filter.update(Array(message.utf8))
            return filter.finish().edits.map(\.range.lowerBound)
        }
        let last = own.utf8.count + added.utf8.count + "X-Late: y\r\n".utf8.count
        #expect(offsets({ $0.wasQueued(as: Array("4ZkTx12345".utf8)) }, own + added + later) == [0, 21, last])
        #expect(offsets({ $0.wasQueued(as: Array("4ZkTx12346".utf8)) }, own + added + later).count == 6)
        // cleanup adds none to a message that has one.
        let second = "message-id: <1@example.org>\r\n" + added + later
        #expect(offsets({ $0.wasQueued(as: Array("4ZkTx12345".utf8)) }, second).count == 5)
        #expect(offsets({ _ in }, own + added + later).count == 6)
        let received =
            "Received: by mx.example.org (Postfix, from userid 1000)\r\n\tid 4ZkTx12345; Sat, 28 Nov 2026\r\n"
        #expect(offsets({ $0.wasSubmittedLocally() }, received + added + later).count == 1)
        let long = added.replacing("20261128180112.", with: "")
        #expect(offsets({ $0.wasSubmittedLocally() }, received + long + later).count == 1)
        #expect(offsets({ $0.wasSubmittedLocally() }, "X: y\r\n" + received + added + later).count == 4)
    }

    /// Postfix inserts the empty line, or complains. Only text that looks like a part of the headers needs one of ours.
    @Test(arguments: [("no header\r\n", 0), ("no header: x\r\nb\r\n", 0), ("A: b\r\nno header\r\n", 0), (" x\r\n", 1)])
    func aBodyWithoutAnEmptyLine(_ message: String, _ edits: Int) throws {
        #expect(judge(message, try rules()).edits.count == edits)
        // A rule that changes the first line must not make the next one a header.
        let dropping = try rules(body: "/^no header/ STRIP")
        #expect(result("A: b\r\nno header\r\nX: y\r\n", dropping) == "A: b\r\n\r\nX: y\r\n")
    }

    /// The text of a message may choose the address, and how often.
    @Test func copiesAreBounded() throws {
        let rules = try rules(body: "/^(\\d+)/ BCC archive+$1@example.org")
        let lines = (1...101).map { "\($0)\r\n" }
        #expect(judge("\r\n" + lines[..<100].joined(), rules).effects.count == 100)
        let verdict = judge("\r\n" + lines.joined(), rules)
        #expect(
            verdict.disposition
                == .refuse(Refusal(code: 550, text: Array("5.6.0 message has too many copies to send".utf8))))
        #expect(verdict.matches.last?.fault == "more than 100 BCC addresses: message not accepted")
    }

    /// As Postfix reads them: one address, with whatever comes before the last `@` as its local part.
    @Test(arguments: [
        ("c@example.net", "c@example.net"), ("a@example.org, b@example.net", "\"a@example.org, b\"@example.net"),
        ("\"c d\"@example.net", "\"\\\"c d\\\"\"@example.net"), ("a..b@example.net", "\"a..b\"@example.net"),
        ("@relay.example.net:c@example.net", "@relay.example.net:c@example.net"),
        (".c@example.net", "\".c\"@example.net"),
        ("Name <c@example.net", "\"Name <c\"@example.net"),
    ])
    func addressesAreQuoted(_ address: String, _ quoted: String) throws {
        let verdict = judge(Self.message, try rules(header: "/^Subject/ REDIRECT \(address)"))
        #expect(verdict.recipients == .redirect(Array(quoted.utf8)))
    }

    /// A copy to nobody must not hold the message up; mail that is to go elsewhere must not go on.
    @Test(arguments: ["<c@example.net>", "c@example.net extra", "@", "c@", "c@example.net, d"])
    func addressesThatNameNobody(_ address: String) throws {
        let copied = judge(Self.message, try rules(header: "/^Subject/ BCC \(address)"))
        #expect(copied.disposition == .accept && copied.effects.isEmpty && copied.matches.first?.fault != nil)
        let redirected = judge(Self.message, try rules(header: "/^Subject/ REDIRECT \(address)"))
        guard case .refuse(let refusal) = redirected.disposition else {
            return #expect(Bool(false), "\(redirected.disposition)")
        }
        #expect(refusal.code == 451 && redirected.effects.isEmpty)
    }

    /// Postfix removes such headers, even if a rule has just written one.
    @Test func headersThatPostfixDrops() throws {
        let dropping = try rules(header: "/^Subject/ REPLACE Bcc: x@example.net\n/^To/ REPLACE Bccx: y")
        #expect(result(Self.message, dropping) == "Bccx: y\r\n\r\nfoo\r\nbar\r\n")
    }

    /// Each of these headers must be rewritten, and an edit needs many times the memory of its header.
    @Test func editsAreBounded() throws {
        let some = judge(String(repeating: "a :\r\n", count: 1_000) + Self.message, try rules())
        #expect(some.disposition == .accept && some.edits.count == 1_000)
        let many = judge(String(repeating: "a :\r\n", count: 500_000) + Self.message, try rules())
        guard case .refuse(let refusal) = many.disposition else { return #expect(Bool(false), "\(many.disposition)") }
        #expect(refusal.code == 550 && many.edits.isEmpty)
        #expect(many.notes.contains { if case .tooManyEdits = $0 { true } else { false } })
    }

    /// What is neither printable ASCII nor UTF-8 is a space in a reply, byte by byte.
    @Test(arguments: [(true, "5.7.1 no caf\u{e9}  b  "), (false, "5.7.1 no caf    b  ")])
    func refusalsArePrintable(smtpUTF8: Bool, text: String) throws {
        let rules = try rules(header: "/^Subject:(.*)/ REJECT no$1") { $0.smtpUTF8 = smtpUTF8 }
        let filter = MessageFilter(rules, matcher: Matcher())
        filter.update(Array("Subject: caf\u{e9}\r\n\tb\u{7f}".utf8) + [0xff, 0x0d, 0x0a])
        #expect(filter.finish().disposition == .refuse(Refusal(code: 550, text: Array(text.utf8))))
    }

    @Test(arguments: [("$1", 102_396), ("$1$1", 204_786)])
    func prependedHeadersAreNotCut(value: String, length: Int) throws {
        let rules = try rules(header: "/^Subject: (.*)/ PREPEND X-P: \(value)")
        let message = "Subject: " + String(repeating: "x", count: 102_390) + "\r\n\r\n"
        #expect(judge(message, rules).edits.map(\.replacement.count) == [length])
    }

    /// `header_size_limit` bounds what rules see. A longer header that no rule edits is passed on unchanged.
    @Test(arguments: [
        "X-A: ", "X-A : ", "X-A: \0", "To: undisclosed-recipients:;", "Content-Type: text/plain; x=", "Received: by x;",
    ])
    func longHeadersArePassedOnWhole(_ start: String) throws {
        let long = start + String(repeating: "\r\n " + String(repeating: "x", count: 900), count: 130) + "\r\n"
        let line = start + String(repeating: "x", count: 110_000) + "\r\n"
        for header in [long, line, long + "B: c\r\n" + line] {
            let message = "A: b\r\n" + header + Self.message
            for rules in [try rules(), try rules(header: "/^A:/ WARN\n/^X-A:.*xx$/ WARN")] {
                #expect(result(message, rules) == message)
                let notes = judge(message, rules).notes.map(\.description)
                let start = "headers longer than header_size_limit (102400), at offset 6"
                #expect(notes.count == 1 && notes[0].hasPrefix(start))
            }
        }
        let many = judge(String(repeating: line, count: 12), try rules()).notes.map(\.description)
        #expect(many.count == 1 && many[0].contains(" and 2 more: "))
    }

    /// The header has only spaces up to the limit, and a recipient after it.
    @Test func aRecipientBeyondTheLimitIsKept() throws {
        let blank = String(repeating: " ", count: 110_000)
        let message = "To: undisclosed-recipients:;\(blank), a@example.org\r\n\r\n"
        #expect(result(message, try rules()) == message)
    }

    @Test func aLongMailboxLineStaysAHeader() throws {
        let line = "From " + String(repeating: "x", count: 110_000) + "\r\n"
        let message = line + Self.message
        #expect(result(message, try rules()) == "X-Mailbox-Line: " + message)
        let shorter = "From a\r\n" + Self.message
        #expect(result(shorter, try rules()) == "X-Mailbox-Line: " + shorter)
    }

    @Test func aRuleEditsALongHeader() throws {
        let line = "X-A: " + String(repeating: "x", count: 110_000) + "\r\n"
        #expect(result(line + Self.message, try rules(header: "/^X-A:/ IGNORE")) == Self.message)
        let replacing = try rules(header: "/^X-A: (.)/ REPLACE X-B: $1")
        #expect(result(line + Self.message, replacing) == "X-B: x\r\n" + Self.message)
    }

    /// Like Postfix, refuses excessive nesting if any table for headers is set, even an empty one.
    @Test func nestingIsRefusedWithAnyTable() throws {
        let part = "Content-Type: multipart/mixed; boundary=b\n\n--b\n"
        let message = String(repeating: part, count: 103)
        #expect(judge(message, try rules()).disposition == .accept)
        let refusal = Refusal(code: 550, text: Array("5.6.0 MIME nesting exceeds safety limit".utf8))
        #expect(judge(message, try rules(header: "# none\n")).disposition == .refuse(refusal))
    }

    @Test func aFilterCanBeReused() throws {
        let rules = try rules(header: "/^Subject: bad/ REJECT")
        let filter = MessageFilter(rules, matcher: Matcher())
        for subject in ["bad", "good", "bad"] {
            filter.begin(rules)
            filter.update(Array("Subject: \(subject)\r\n\r\n".utf8))
            #expect((filter.finish().disposition == .accept) == (subject == "good"))
        }
    }

    @Test func headersFromAMilterMatchAlike() throws {
        let rules = try rules(header: "/^Subject: a\\n\\sb$/ REJECT yes")
        let filter = MessageFilter(rules, matcher: Matcher())
        Array("Subject".utf8).withUnsafeBytes { name in
            Array(" a\nb".utf8).withUnsafeBytes { filter.addHeader(name: name, value: $0) }
        }
        #expect(filter.finish().disposition == .refuse(Refusal(code: 550, text: Array("5.7.1 yes".utf8))))
    }

    @Test(arguments: [" a\n", " a\n\n", " a\r\n", "\n", ""])
    func aLineEndInAValueDoesNotEndTheHeaders(_ value: String) throws {
        let rules = try rules(header: "/^Subject: bad/ REJECT")
        let filter = MessageFilter(rules, matcher: Matcher())
        for (name, value) in [("X-A", value), ("Subject", " bad")] {
            Array(name.utf8).withUnsafeBytes { name in
                Array(value.utf8).withUnsafeBytes { filter.addHeader(name: name, value: $0) }
            }
        }
        #expect(filter.finish().disposition != .accept)
    }

    @Test func allUnusableTablesAreReported() {
        var checks = ContentChecks()
        checks.tables.header = ["pcre:/nonexistent/a", "hash:/b"]
        checks.tables.body = ["regexp:/"]
        let faults = #expect(throws: ContentRules.Faults.self) { try ContentRules(checks) }
        #expect(faults?.faults.count == 3)
    }
}
