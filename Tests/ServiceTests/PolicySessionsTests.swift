// SPDX-License-Identifier: Apache-2.0
import Limits
import Policy
import Testing
import Wire

@Suite struct PolicySessionsTests {
    private var sessions = PolicySessions()

    private mutating func note(instance: String, sender: String, port: String = "40000") throws {
        var parser = PolicyRequestParser(names: AttributeNames().names)
        let request = Array(
            """
            request=smtpd_access_policy
            client_address=192.0.2.1
            client_port=\(port)
            instance=\(instance)
            sender=\(sender)


            """.utf8)
        var (searched, ranges) = (0, [Range<Int>]())
        _ = try request.withUnsafeBytes { try parser.parse($0, searched: &searched, ranges: &ranges) }
        request.withUnsafeBytes { bytes in
            ranges.withUnsafeBufferPointer { sessions.note(Attributes(bytes: bytes, ranges: $0)) }
        }
    }

    private func isKnown(_ sender: String, port: String = "40000") -> Bool {
        let key = PolicySessions.key(address: "192.0.2.1".utf8, port: port.utf8)
        return sessions.transaction(key, sender: Array(sender.utf8)[...]) != nil
    }

    /// Overlong values are not stored, and replace the session's earlier transaction.
    @Test mutating func overlongValuesAreNotKept() throws {
        try note(instance: "1", sender: "a@example.org")
        #expect(isKnown("a@example.org"))
        try note(instance: String(repeating: "2", count: 2000), sender: "a@example.org")
        #expect(!isKnown("a@example.org"))
        let long = String(repeating: "a", count: 2000) + "@example.org"
        try note(instance: "3", sender: long)
        #expect(!isKnown(long))
        try note(instance: "4", sender: "a@example.org", port: String(repeating: "1", count: 2000))
        #expect(!isKnown("a@example.org", port: String(repeating: "1", count: 2000)))
        try note(instance: "5", sender: "b@example.org")
        #expect(isKnown("b@example.org"))
    }

    /// Only the last transaction of a session is known. `forget` drops it; the next one is known again.
    @Test mutating func onlyTheLastTransactionIsKnown() throws {
        try note(instance: "1", sender: "a@example.org")
        try note(instance: "2", sender: "b@example.org")
        #expect(!isKnown("a@example.org"))
        #expect(isKnown("b@example.org"))
        sessions.forget(PolicySessions.key(address: "192.0.2.1".utf8, port: "40000".utf8))
        #expect(!isKnown("b@example.org"))
        try note(instance: "3", sender: "b@example.org")
        #expect(isKnown("b@example.org"))
    }

    /// The table keeps two generations of 32,768 transactions; a third one replaces the oldest.
    @Test mutating func theOldestAreForgotten() throws {
        for number in 0..<32_768 { try note(instance: "i\(number)", sender: "a@example.org", port: "\(number)") }
        #expect(isKnown("a@example.org", port: "0"))
        for number in 32_768..<65_536 { try note(instance: "i\(number)", sender: "a@example.org", port: "\(number)") }
        #expect(isKnown("a@example.org", port: "0"))
        #expect(isKnown("a@example.org", port: "32768"))
        try note(instance: "last", sender: "a@example.org", port: "last")
        #expect(!isKnown("a@example.org", port: "0"))
        #expect(isKnown("a@example.org", port: "32768"))
        #expect(isKnown("a@example.org", port: "last"))
    }
}
