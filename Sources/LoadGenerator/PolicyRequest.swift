// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The states a load can send (SMTPD_POLICY_README, protocol_state), in the order of a mail transaction.
package enum ProtocolState: String, CaseIterable, Sendable {
    case rcpt = "RCPT"
    case data = "DATA"
    case endOfMessage = "END-OF-MESSAGE"
}

/// One mail transaction's `instance`: hexadecimal pid.seconds.microseconds.sequence, as smtpd writes it.
package struct PolicyInstance: Sendable, Equatable {
    package var processID: UInt64
    /// Microseconds since 1970, which no other transaction of this process has.
    package var time: UInt64

    package init(processID: UInt64, time: UInt64) {
        self.processID = processID
        self.time = time
    }

    package func write(into buffer: inout ByteBuffer) {
        buffer.writeDigits(of: processID, radix: .hexadecimal)
        buffer.writeStaticString(".")
        buffer.writeDigits(of: time / 1_000_000, radix: .hexadecimal)
        buffer.writeStaticString(".")
        buffer.writeDigits(of: time % 1_000_000, radix: .hexadecimal)
        buffer.writeStaticString(".0")
    }
}

/// A policy request as smtpd of Postfix 3.7 sends it from a submission service: 29 attributes, in its order.
package struct PolicyRequest: Sendable {
    package var state = ProtocolState.rcpt
    package var instance: PolicyInstance
    /// Names the envelope sender and the SASL login.
    package var sender: Int
    /// Names the client: its place in 198.18.0.0/15, which RFC 2544 sets aside for benchmarks.
    package var client: Int
    package var clientPort: Int
    /// Absent at DATA and END-OF-MESSAGE when more than one recipient was accepted.
    package var recipient: Int?
    /// Zero at RCPT.
    package var recipientCount = 0
    /// Absent until the first recipient was accepted.
    package var queueID: UInt64?
    /// Bytes.
    package var size: Int

    package static let clients = 1 << 17

    package init(instance: PolicyInstance, sender: Int, client: Int, clientPort: Int, recipient: Int?, size: Int) {
        self.instance = instance
        self.sender = sender
        self.client = client
        self.clientPort = clientPort
        self.recipient = recipient
        self.size = size
    }

    package func write(into buffer: inout ByteBuffer) {
        buffer.writeStaticString("request=smtpd_access_policy\nprotocol_state=")
        switch state {
        case .rcpt: buffer.writeStaticString("RCPT")
        case .data: buffer.writeStaticString("DATA")
        case .endOfMessage: buffer.writeStaticString("END-OF-MESSAGE")
        }
        buffer.writeStaticString("\nprotocol_name=ESMTP\nclient_address=")
        writeClientAddress(into: &buffer)
        buffer.writeStaticString("\nclient_name=")
        writeClientName(into: &buffer)
        buffer.writeStaticString("\nclient_port=")
        buffer.writeDigits(of: UInt64(clientPort))
        buffer.writeStaticString("\nreverse_client_name=")
        writeClientName(into: &buffer)
        buffer.writeStaticString("\nserver_address=127.0.0.1\nserver_port=587\nhelo_name=[")
        writeClientAddress(into: &buffer)
        buffer.writeStaticString("]\nsender=")
        writeSender(into: &buffer)
        buffer.writeStaticString("\nrecipient=")
        if let recipient {
            buffer.writeStaticString("recipient")
            buffer.writeDigits(of: UInt64(recipient))
            buffer.writeStaticString("@example.org")
        }
        buffer.writeStaticString("\nrecipient_count=")
        buffer.writeDigits(of: UInt64(recipientCount))
        buffer.writeStaticString("\nqueue_id=")
        if let queueID { buffer.writeDigits(of: queueID, radix: .hexadecimalUppercase) }
        buffer.writeStaticString("\ninstance=")
        instance.write(into: &buffer)
        buffer.writeStaticString("\nsize=")
        buffer.writeDigits(of: UInt64(size))
        buffer.writeStaticString("\netrn_domain=\nstress=\nsasl_method=PLAIN\nsasl_username=")
        writeSender(into: &buffer)
        buffer.writeStaticString(
            """
            \nsasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\
            \nencryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\
            \npolicy_context=\n\n
            """)
    }

    package func writeSender(into buffer: inout ByteBuffer) {
        buffer.writeStaticString("user")
        buffer.writeDigits(of: UInt64(sender))
        buffer.writeStaticString("@customer")
        buffer.writeDigits(of: UInt64(sender % 997))
        buffer.writeStaticString(".example")
    }

    private func writeClientAddress(into buffer: inout ByteBuffer) {
        buffer.writeStaticString("198.")
        buffer.writeDigits(of: UInt64(18 + client >> 16))
        buffer.writeStaticString(".")
        buffer.writeDigits(of: UInt64(client >> 8 & 0xFF))
        buffer.writeStaticString(".")
        buffer.writeDigits(of: UInt64(client & 0xFF))
    }

    private func writeClientName(into buffer: inout ByteBuffer) {
        buffer.writeStaticString("host")
        buffer.writeDigits(of: UInt64(client))
        buffer.writeStaticString(".isp.example")
    }
}
