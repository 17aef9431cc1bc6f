// SPDX-License-Identifier: Apache-2.0

/// The protocol states of a load (SMTPD_POLICY_README), in the order of a mail transaction.
package enum ProtocolState: String, CaseIterable, Sendable {
    case rcpt = "RCPT"
    case data = "DATA"
    case endOfMessage = "END-OF-MESSAGE"
}

/// The `instance` of a mail transaction: hexadecimal pid.seconds.microseconds.sequence, as smtpd writes it.
package struct PolicyInstance: Sendable, Equatable {
    package var processID: UInt64
    /// Microseconds since 1970, unique within this process.
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

/// A policy request of a submission service: the 29 attributes of Postfix 3.7, in smtpd's order.
package struct PolicyRequest: Sendable {
    package var state = ProtocolState.rcpt
    package var instance: PolicyInstance
    /// Number of the envelope sender and SASL login.
    package var sender: Int
    /// Number of the client address in 198.18.0.0/15, which RFC 2544 reserves for benchmarks.
    package var client: Int
    package var isTrojan: Bool
    package var clientPort: Int
    /// Nil at DATA and END-OF-MESSAGE if more than one recipient was accepted.
    package var recipient: Int?
    /// Zero at RCPT.
    package var recipientCount = 0
    /// Nil until a recipient was accepted.
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
