// SPDX-License-Identifier: Apache-2.0
/// A reply that violates the protocol.
package struct MalformedReply: Error, Equatable {
    package let reason: String

    package init(reason: String) {
        self.reason = reason
    }
}

/// Finds the action in the bytes of a policy reply.
package enum PolicyReply {
    /// Bytes; more than any server sends.
    package static let maximumLength = 65536

    private static let attribute = Array("action".utf8)

    /// The offsets of the action (the text after `action=`) within `bytes`, or nil while the reply is incomplete.
    ///
    /// Throws for what Postfix treats as an error (smtpd_check.c, attr_scan_plain.c): a missing or empty action, an
    /// action of digits only, a line without `=`, bytes after the empty line.
    package static func action(in bytes: Span<UInt8>) throws(MalformedReply) -> Range<Int>? {
        let count = bytes.count
        guard count <= maximumLength else { throw MalformedReply(reason: "longer than \(maximumLength) bytes") }
        var action: Range<Int>?
        var start = 0
        while start < count {
            var end = start
            var equals: Int?
            while end < count, bytes[end] != UInt8(ascii: "\n") {
                if equals == nil, bytes[end] == UInt8(ascii: "=") { equals = end }
                end += 1
            }
            guard end < count else { return nil }
            if end == start {
                guard end + 1 == count else { throw MalformedReply(reason: "more than one reply to one request") }
                guard let action else { throw MalformedReply(reason: "no action") }
                try check(action, in: bytes)
                return action
            }
            guard let equals else { throw MalformedReply(reason: "a line without =") }
            if action == nil, bytes.extracting(start..<equals).isEqual(to: attribute) { action = equals + 1..<end }
            start = end + 1
        }
        return nil
    }

    private static func check(_ action: Range<Int>, in bytes: Span<UInt8>) throws(MalformedReply) {
        guard !action.isEmpty else { throw MalformedReply(reason: "an empty action") }
        let isNumber = action.allSatisfy { UInt8(ascii: "0")...UInt8(ascii: "9") ~= bytes[$0] }
        guard !isNumber else { throw MalformedReply(reason: "a reply code without a text") }
    }
}

extension Span<UInt8> {
    func isEqual(to other: [UInt8]) -> Bool {
        guard count == other.count else { return false }
        for index in indices where self[index] != other[index] { return false }
        return true
    }
}
