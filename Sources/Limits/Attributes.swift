// SPDX-License-Identifier: Apache-2.0

/// The names of the attributes that the ledger, keys and conditions use. The position of a name is its index in
/// `Attributes`.
///
/// The list starts with the attributes that the ledger itself uses, in the order of the properties below. Other names
/// get an index when a limit uses them.
package struct AttributeNames: Equatable, Sendable {
    package private(set) var names: [String] = [
        "request", "protocol_state", "instance", "sender", "recipient", "recipient_count", "size", "sasl_username",
        "client_address", "client_name", "client_port", "queue_id", "helo_name", "uid",
    ]

    package init() {}

    package mutating func index(of name: String) -> Int {
        if let known = names.firstIndex(of: name) { return known }
        names.append(name)
        return names.count - 1
    }
}

/// The values of one request, by the indexes of `AttributeNames`: a view that is valid as long as the request's bytes.
///
/// A missing attribute has an empty value. Postfix also sends an empty value for what it does not know.
package struct Attributes {
    package let bytes: UnsafeRawBufferPointer
    package let ranges: UnsafeBufferPointer<Range<Int>>

    package init(bytes: UnsafeRawBufferPointer, ranges: UnsafeBufferPointer<Range<Int>>) {
        self.bytes = bytes
        self.ranges = ranges
    }

    package subscript(index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[ranges[index]])
    }

    package var protocolState: UnsafeRawBufferPointer { self[1] }
    package var instance: UnsafeRawBufferPointer { self[2] }
    package var sender: UnsafeRawBufferPointer { self[3] }
    package var recipient: UnsafeRawBufferPointer { self[4] }
    package var recipientCount: UInt64 { Self.number(self[5]) }
    package var size: UInt64 { Self.number(self[6]) }
    package var saslUsername: UnsafeRawBufferPointer { self[7] }
    package var clientAddress: UnsafeRawBufferPointer { self[8] }
    package var clientName: UnsafeRawBufferPointer { self[9] }
    package var clientPort: UnsafeRawBufferPointer { self[10] }
    package var queueID: UnsafeRawBufferPointer { self[11] }
    /// The user who ran sendmail(1). Only the milter's requests have it.
    package var userID: UnsafeRawBufferPointer { self[13] }

    /// A decimal number, at most `SlidingWindows.largestAmount`; 0 for any other text.
    private static func number(_ text: UnsafeRawBufferPointer) -> UInt64 {
        var value: UInt64 = 0
        for byte in text {
            let digit = byte &- UInt8(ascii: "0")
            guard digit < 10 else { return 0 }
            value = min(value &* 10 &+ UInt64(digit), SlidingWindows.largestAmount)
        }
        return value
    }
}

/// `protocol_state` of the policy delegation protocol.
package enum ProtocolState: UInt8, Sendable {
    case connect, helo, mail, rcpt, data, endOfMessage, vrfy, etrn, other

    /// Whether requests in this state belong to a mail transaction, which `instance` identifies.
    var isMail: Bool { self == .rcpt || self == .data || self == .endOfMessage }

    package init(_ name: UnsafeRawBufferPointer) {
        self =
            switch name.count {
            // RCPT is the most frequent state: compare its four letters at once.
            case 4 where name.loadUnaligned(as: UInt32.self).littleEndian == 0x5450_4352: .rcpt
            case 4 where name.elementsEqual("DATA".utf8): .data
            case 14 where name.elementsEqual("END-OF-MESSAGE".utf8): .endOfMessage
            case 7 where name.elementsEqual("CONNECT".utf8): .connect
            case 4 where name.elementsEqual("MAIL".utf8): .mail
            case 4 where name.elementsEqual("HELO".utf8) || name.elementsEqual("EHLO".utf8): .helo
            case 4 where name.elementsEqual("VRFY".utf8): .vrfy
            case 4 where name.elementsEqual("ETRN".utf8): .etrn
            default: .other
            }
    }
}
