// SPDX-License-Identifier: Apache-2.0

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

    package func write(to bytes: inout [UInt8]) {
        bytes.append(hexadecimal: processID)
        bytes.append(".")
        bytes.append(hexadecimal: time / 1_000_000)
        bytes.append(".")
        bytes.append(hexadecimal: time % 1_000_000)
        bytes.append(".0")
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
    package var isTrojan: Bool
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

    package init(
        instance: PolicyInstance, sender: Int, client: Int, isTrojan: Bool = false, clientPort: Int, recipient: Int?,
        size: Int
    ) {
        self.instance = instance
        self.sender = sender
        self.client = client
        self.isTrojan = isTrojan
        self.clientPort = clientPort
        self.recipient = recipient
        self.size = size
    }

    package func write(to bytes: inout [UInt8]) {
        bytes.append("request=smtpd_access_policy\nprotocol_state=")
        switch state {
        case .rcpt: bytes.append("RCPT")
        case .data: bytes.append("DATA")
        case .endOfMessage: bytes.append("END-OF-MESSAGE")
        }
        bytes.append("\nprotocol_name=ESMTP\nclient_address=")
        writeClientAddress(to: &bytes)
        bytes.append("\nclient_name=")
        writeClientName(to: &bytes)
        bytes.append("\nclient_port=")
        bytes.append(decimal: UInt64(clientPort))
        bytes.append("\nreverse_client_name=")
        writeClientName(to: &bytes)
        bytes.append("\nserver_address=127.0.0.1\nserver_port=587\nhelo_name=[")
        writeClientAddress(to: &bytes)
        bytes.append("]\nsender=")
        writeSender(to: &bytes)
        bytes.append("\nrecipient=")
        if let recipient {
            bytes.append("recipient")
            bytes.append(decimal: UInt64(recipient))
            bytes.append("@example.org")
        }
        bytes.append("\nrecipient_count=")
        bytes.append(decimal: UInt64(recipientCount))
        bytes.append("\nqueue_id=")
        if let queueID { bytes.append(hexadecimal: queueID, ten: UInt8(ascii: "A")) }
        bytes.append("\ninstance=")
        instance.write(to: &bytes)
        bytes.append("\nsize=")
        bytes.append(decimal: UInt64(size))
        bytes.append("\netrn_domain=\nstress=\nsasl_method=PLAIN\nsasl_username=")
        writeSender(to: &bytes)
        bytes.append(
            """
            \nsasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\
            \nencryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\
            \npolicy_context=\n\n
            """)
    }

    package func writeSender(to bytes: inout [UInt8]) {
        Self.write(sender: sender, to: &bytes)
    }

    static func write(sender: Int, to bytes: inout [UInt8]) {
        bytes.append("user")
        bytes.append(decimal: UInt64(sender))
        bytes.append("@customer")
        bytes.append(decimal: UInt64(sender % 997))
        bytes.append(".example")
    }

    private func writeClientAddress(to bytes: inout [UInt8]) {
        bytes.append("198.")
        bytes.append(decimal: UInt64(18 + client >> 16))
        bytes.append(".")
        bytes.append(decimal: UInt64(client >> 8 & 0xFF))
        bytes.append(".")
        bytes.append(decimal: UInt64(client & 0xFF))
    }

    private func writeClientName(to bytes: inout [UInt8]) {
        bytes.append("host")
        bytes.append(decimal: UInt64(client))
        bytes.append(".isp.example")
    }
}
