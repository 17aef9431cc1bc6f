// SPDX-License-Identifier: Apache-2.0
import Filter
import Glibc
import Rules
import Testing

/// What the log says of edits that a DKIM signature covers.
@Suite struct SignatureTests {
    private static let signature = "DKIM-Signature: v=1; d=example.org; h=from:from : Subject:\r\n To; bh=x; b=y\r\n"
    private static let rest = "From: a@example.org\r\nSubject: x\r\nX-Other: y\r\n\r\nbody\r\nmore\r\n"

    private func notes(_ table: String, body: Bool = false, isSigned: Bool = true) throws -> [String] {
        let rules = try rules(table, body: body)
        let filter = MessageFilter(rules, matcher: Matcher())
        filter.update(Array(((isSigned ? Self.signature : "") + Self.rest).utf8))
        return filter.finish().notes.map { "\($0)" }
    }

    private func rules(_ table: String, body: Bool = false) throws -> ContentRules {
        var template = Array("/tmp/weir-signature-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        defer { unlink(path) }
        #expect(write(descriptor, table, table.utf8.count) == table.utf8.count)
        close(descriptor)
        var checks = ContentChecks()
        if body { checks.tables.body = ["pcre:\(path)"] } else { checks.tables.header = ["pcre:\(path)"] }
        return try ContentRules(checks)
    }

    private static func note(_ what: String) -> [String] {
        ["a DKIM-Signature covers what was changed (\(what)) and will not verify"]
    }

    @Test(arguments: [
        ("/^Subject:/ REPLACE Subject: y", "subject"), ("/^Subject:/ IGNORE", "subject"),
        ("/^X-Other:/ PREPEND From: b@example.org", "from"), ("/^From:/ STRIP\n/^Subject/ IGNORE", "from, subject"),
    ]) func ofHeaders(_ table: String, _ names: String) throws {
        #expect(try notes(table) == Self.note(names))
        #expect(try notes(table, isSigned: false).isEmpty)
    }

    @Test(arguments: [
        "/^X-Other:/ IGNORE", "/^Subject:/ PREPEND X-New: y", "/^Subject:/ PREPEND Subject: y", "/^Subject:/ WARN",
        "/^Subject:/ IGNORE\n/^X-Other:/ REJECT",
    ]) func ofNothing(_ table: String) throws {
        #expect(try notes(table).isEmpty)
    }

    @Test func ofTheBody() throws {
        #expect(try notes("/^more/ REPLACE less", body: true) == Self.note("the body"))
    }

    @Test func requireTLS() throws {
        func warnings(_ table: String) throws -> [String] {
            try rules(table).lint().map(\.message).filter { $0.contains("Require-TLS-ESMTP") }
        }
        #expect(try warnings("/^Require-/ IGNORE").count == 1)
        #expect(try warnings("/^X-/ WARN\n!/^(From|To):/ STRIP").count == 1)
        #expect(try warnings("/^Require-TLS-ESMTP:/ DUNNO\n/^Require-/ IGNORE").isEmpty)
        #expect(try warnings("/^X-/ IGNORE").isEmpty)
    }
}
