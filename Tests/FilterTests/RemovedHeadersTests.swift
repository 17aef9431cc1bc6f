// SPDX-License-Identifier: Apache-2.0
import Filter
import Glibc
import Rules
import Testing

/// Headers that rules take away, and that cleanup(8) would add again.
@Suite struct RemovedHeadersTests {
    private func rules(_ header: String) throws -> ContentRules {
        var checks = ContentChecks()
        var template = Array("/tmp/weir-headers-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        defer { unlink(path) }
        _ = header.withCString { write(descriptor, $0, strlen($0)) }
        close(descriptor)
        checks.tables.header = ["pcre:\(path)"]
        return try ContentRules(checks)
    }

    private func judge(_ message: String, _ rules: ContentRules, queueID: String = "") -> Verdict {
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks))
        filter.wasQueued(as: Array(queueID.utf8))
        filter.update(Array(message.utf8))
        return filter.finish()
    }

    private func apply(_ verdict: Verdict, _ message: String) -> String {
        String(decoding: verdict.apply(to: Array(message.utf8), lineEnd: .lf), as: UTF8.self)
    }

    private static let all = "Message-Id: <1@example.org>\nDate: x\nFrom: a@example.org\n"

    @Test(arguments: [
        ("/^Message-Id:/ IGNORE\n", all, "[Message-Id]"), ("/^Date/ STRIP\n/^From/ IGNORE\n", all, "[Date, From]"),
        ("/^Date: (.*)/ REPLACE X-Date: $1\n", all, "[Date]"), ("/^Date: (.*)/ REPLACE date : y\n", all, ""),
        ("/^Date: (.*)/ PREPEND X: y\n", all, ""), ("/: x/ IGNORE\n", all, "[Date]"),
        ("!/^From/ IGNORE\n", all, "[Message-Id, Date]"),
        ("/^(Date|X):/ IGNORE\n", "Date: x\nDate: y\n", "[Date]"), ("/^Date: x/ IGNORE\n", "Date: x\nDate: y\n", ""),
        ("/^X:|^Date/ IGNORE\n", all, "[Date]"), ("/^X-*Date:/ IGNORE\n", all, ""),
        ("/^Date:/ IGNORE\n", "From: a\n", ""), ("/^Y: (.*)/ REPLACE Date: $1\n/^Date/ IGNORE\n", all + "Y: z\n", ""),
        ("/^Date:/ IGNORE\n", all + "Resent-From: b\n", ""),
        ("/^Resent-Date:/ IGNORE\n", all + "Resent-From: b\nResent-Date: y\n", "Resent-[Date]"),
        ("/^Date: (.*)/ $1\n", "Date: IGNORE\n", "[Date]"),
    ])
    func removed(table: String, headers: String, expected: String) throws {
        let removed = judge(headers + "\nbody\n", try rules(table)).removed
        let names = removed?.fields.map { field in
            switch field {
            case .messageID: "Message-Id"
            case .date: "Date"
            case .from: "From"
            }
        }
        let found = names.map { (removed!.isResent ? "Resent-" : "") + "[\($0.joined(separator: ", "))]" }
        #expect(found ?? "" == expected)
        #expect(removed?.isClientLocal != true)
    }

    @Test(arguments: [
        ("/^X:/ IGNORE\n", false), ("/^Subject: date/ REPLACE Subject: x\n", false), ("/^Date:/ WARN\n", false),
        ("/^Date: x/ IGNORE\n", true), ("/date/ IGNORE\n", true), ("/^X:*/ IGNORE\n", true), ("!/^X:/ IGNORE\n", true),
        ("/^X: (.*)/ $1\n", false), ("/^X:|y/ IGNORE\n", true), ("/^X/ IGNORE\n", true),
    ])
    func onlyRulesThatMayTakeAway(table: String, expected: Bool) throws {
        #expect(try rules(table).mayRemoveAddedHeaders == expected)
    }

    @Test func anAddedHeaderProvesALocalClient() throws {
        let message = "Date: x\nMessage-Id: <20261128180112.4AB1@mx.example.org>\nFrom: a@example.org\n\n"
        let verdict = judge(message, try rules("/^(Date|Message-Id|From):/ IGNORE\n"), queueID: "4AB1")
        #expect(verdict.removed?.isClientLocal == true)
        #expect(verdict.removed?.fields == [.date])
    }

    @Test func newHeaders() throws {
        setenv("TZ", "UTC", 1)
        let message = Self.all + "Subject: x\n\nbody\n"
        var verdict = judge(message, try rules("/^(Date|Message-Id|From):/ IGNORE\n"))
        let removed = try #require(verdict.removed)
        func new(_ queueID: String, _ sender: String) -> [NewHeader] {
            let host = Array("mx.example.org".utf8)
            return LocalClient(queueID: Array(queueID.utf8), hostName: host, sender: Array(sender.utf8))
                .replacements(of: removed, at: 1_796_000_000)
        }
        func headers(_ queueID: String, _ sender: String) -> [String] {
            new(queueID, sender)
                .map { String(decoding: $0.name, as: UTF8.self) + ": " + String(decoding: $0.value, as: UTF8.self) }
        }
        #expect(
            headers("4AB1F", "a@example.org") == [
                "Message-Id: <20261130005320.4AB1F@mx.example.org>", "Date: Mon, 30 Nov 2026 00:53:20 +0000 (UTC)",
                "From: a@example.org",
            ])
        #expect(headers("4ZkTx12345zABC", "").first == "Message-Id: <4ZkTx12345zABC@mx.example.org>")
        #expect(headers("4ZkTx12345zABC", "").last == "From: MAILER-DAEMON")
        #expect(headers("", "").count == 2)
        verdict.append(new("", "a@example.org"))
        let date = "Date: Mon, 30 Nov 2026 00:53:20 +0000 (UTC)\n"
        #expect(apply(verdict, message) == "Subject: x\n\(date)From: a@example.org\n\nbody\n")
    }

    @Test(arguments: [
        ("Received: by mx.example (Postfix, from userid 1000)\n\tid 4AB1; Sat, 28 Nov 2026\n", "mx.example", false),
        (
            "Received: from c (localhost [127.0.0.1])\n\tby mx.example (Postfix) with ESMTP id 4AB1\n\tfor <b>; x\n",
            "mx.example", false
        ),
        (
            "X: y\nReceived: from c (localhost [IPv6:::1])\n\tby mx.example (Postfix) with ESMTP id 4AB1;\n\tx\n",
            "mx.example", false
        ),
        ("Received: from c ([127.0.0.1]) (x [192.0.2.1])\n\tby mx.example (Postfix) with ESMTP id 4AB1\n", nil, false),
        ("Received: from c (localhost [127.0.0.1])\n\tby mx.example (Postfix) with ESMTP id 4AB2\n", nil, false),
        ("Received: x\nReceived: by mx.example (Postfix, from userid 1000)\n\tid 4AB1; x\n", nil, false),
        ("X: y\n\nReceived: by mx.example (Postfix, from userid 1000)\n\tid 4AB1; x\n", nil, false),
        ("", nil, true),
        ("Received: from c (x [192.0.2.1])\n\tby mx.example (Postfix) with ESMTP id 4AB1\n", "mx.example", true),
    ])
    func clientOfTheReceivedHeader(headers: String, host: String?, isKnownLocal: Bool) {
        let client = LocalClient(
            ofReceivedIn: Array((headers + "Y: z\n\n").utf8), queueID: Array("4AB1".utf8),
            sender: Array("a b@c".utf8), isKnownLocal: isKnownLocal)
        #expect(client.map { String(decoding: $0.hostName, as: UTF8.self) } == host)
        if let client { #expect(String(decoding: client.sender, as: UTF8.self) == "\"a b\"@c") }
    }
}
