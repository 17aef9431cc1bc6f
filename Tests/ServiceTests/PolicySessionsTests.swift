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

    /// A request of any length costs little; what is too long is not taken for the one before it either.
    @Test mutating func longOnesAreNotKept() throws {
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
}
