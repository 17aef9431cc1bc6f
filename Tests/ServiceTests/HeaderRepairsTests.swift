// SPDX-License-Identifier: Apache-2.0
import Filter
import Glibc
import MailSyntax
import Rules
import Settings
import Testing

/// `canonicalise: headers`.
@Suite struct HeaderRepairsTests {
    private func rules(_ header: String = "", canonicalise: String) throws -> ContentRules {
        let directory = try TemporaryDirectory()
        try directory.write([header], to: "header.pcre")
        let path = "\(directory.path)/header.pcre"
        return try read("canonicalise: \(canonicalise)\nchecks: { header: \"pcre:\(path)\" }\n").get().rules
    }

    private func judge(_ message: String, _ rules: ContentRules) -> Verdict {
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks))
        filter.update(Array(message.utf8))
        return filter.finish()
    }

    private func apply(_ verdict: Verdict, _ message: String) -> String {
        String(decoding: verdict.apply(to: Array(message.utf8), lineEnd: .lf), as: UTF8.self)
    }

    private let message =
        "From: A <a@EXAMPLE.org>\nSubject: a@EXAMPLE.org\nTo : b@EXAMPLE.org.\nCC: c@example.org\n\nx@X.\n"

    @Test func repairsAreReported() throws {
        let verdict = judge(message, try rules(canonicalise: "headers"))
        #expect(
            apply(verdict, message)
                == "From: A <a@example.org>\nSubject: a@EXAMPLE.org\nTo: b@example.org\nCC: c@example.org\n\nx@X.\n")
        #expect(
            verdict.notes.map(\.description) == [
                "From: <a@EXAMPLE.org> becomes <a@example.org>: header_domain_case",
                "To: b@EXAMPLE.org. becomes b@example.org: header_trailing_dot, header_domain_case",
            ])
        #expect(verdict.repairs.map(\.description) == ["domain_case", "trailing_dot, domain_case"])
        #expect(judge(message, try rules(canonicalise: "envelope")).repairs.isEmpty)
    }

    /// Wherever the signature is. What Weir changes in any case, it changes all the same.
    @Test(arguments: [true, false]) func signedMessagesStay(first: Bool) throws {
        let signature = "DKIM-Signature: v=1; h=subject\n"
        let signed = first ? signature + message : message.replacing("\n\n", with: "\n\(signature)\n")
        let verdict = judge(signed, try rules("/^CC: (.*)/ REPLACE Cc: C@EXAMPLE.org\n", canonicalise: "headers"))
        #expect(
            apply(verdict, signed)
                == signed.replacing("To : ", with: "To: ").replacing("CC: c@example.org", with: "Cc: C@EXAMPLE.org"))
        let kept = "addresses in headers not repaired (3): the message has a DKIM-Signature"
        #expect(verdict.notes.map(\.description) == [kept])
        #expect(verdict.repairs.isEmpty)
        let asked = judge(signed, try rules(canonicalise: "[headers, signed_headers]"))
        #expect(asked.repairs.count == 2)
        #expect(apply(asked, signed).contains("From: A <a@example.org>\n"))
    }

    @Test func afterTheRules() throws {
        let table = "/^X-From: (.*)/ REPLACE From: $1\n/^To/ IGNORE\n/^Sender/ PASS\n/^Cc/ REJECT\n"
        let all = try rules(table, canonicalise: "headers")
        let message = "X-From: a@EXAMPLE.org\nTo: b@EXAMPLE.org\nSender: c@EXAMPLE.org\nReply-To: d@EXAMPLE.org\n\n"
        #expect(
            apply(judge(message, all), message)
                == "From: a@example.org\nSender: c@example.org\nReply-To: d@example.org\n\n")
        #expect(judge("From: a@EXAMPLE.org\nCc: b\n\n", all).notes.isEmpty)
    }

    @Test func longListsAreLoggedInPart() throws {
        let message = "To: " + (0..<150).map { "a\($0)@EXAMPLE.org" }.joined(separator: ",\n\t") + "\n\n"
        let verdict = judge(message, try rules(canonicalise: "headers"))
        #expect(apply(verdict, message) == message.replacing("EXAMPLE", with: "example"))
        #expect(verdict.repairs.count == 150)
        #expect(verdict.notes.count == 101)
        #expect(verdict.notes.last?.description == "and 50 more addresses in headers repaired")
    }

    @Test func oneRepair() throws {
        let verdict = judge(message, try rules(canonicalise: "[header_trailing_dot, domain_case]"))
        #expect(apply(verdict, message).contains("From: A <a@EXAMPLE.org>\n"))
        #expect(apply(verdict, message).contains("To: b@EXAMPLE.org\n"))
    }
}
