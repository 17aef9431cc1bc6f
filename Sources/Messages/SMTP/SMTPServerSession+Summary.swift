// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import MailSyntax
internal import NIOCore
internal import Wire

extension SMTPServerSession {
    /// `4ZkTx12345: from=<a@example.org> client=mail.example.org[192.0.2.1]`, for logs. The queue ID and the client are
    /// those of XFORWARD, and are left out where it does not name them.
    var summary: String {
        let command = String(decoding: mail.readableBytesView.dropFirst("MAIL FROM:".count), as: UTF8.self)
        let queueID = forwarded(.ident).map { String(decoding: $0, as: UTF8.self) + ": " } ?? ""
        let reversePath = "from=\(command.prefix { $0 != " " && !$0.isNewline })"
        guard let address = forwardedAddress else { return queueID + reversePath }
        let name = forwarded(.name).map { String(decoding: $0, as: UTF8.self) } ?? "unknown"
        return "\(queueID)\(reversePath) client=\(name)[\(String(decoding: address, as: UTF8.self))]"
    }

    /// What is known of the message, for conditions of sets of checks. The client is that of XFORWARD. Without it, it
    /// is unknown, because the client of this session is a Postfix.
    var attributes: MessageAttributes {
        var known = MessageAttributes()
        known["sender"] = Self.address(in: mail)
        known["client_address"] = forwardedAddress ?? []
        known["client_name"] = forwarded(.name) ?? []
        known["helo_name"] = forwarded(.helo) ?? []
        return known
    }

    /// The address of a MAIL or RCPT command, in its internal form.
    static func address(in command: ByteBuffer) -> [UInt8] { argument(of: command).address }

    /// The address of a MAIL or RCPT command, in its internal form, and its parameters, separated by spaces.
    static func argument(of command: ByteBuffer) -> (address: [UInt8], parameters: [UInt8]) {
        let line = command.readableBytesView
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { return ([], []) }
        let argument = line[(colon + 1)...].drop { $0 == UInt8(ascii: " ") }
        var (isQuoted, isEscaped) = (false, false)
        let path = argument.prefix { byte in
            defer { isEscaped = byte == UInt8(ascii: "\\") && !isEscaped }
            if byte == UInt8(ascii: "\""), !isEscaped { isQuoted.toggle() }
            return isQuoted || byte > 0x20
        }
        let parameters = argument[path.endIndex...].split { $0 <= 0x20 }.joined(separator: [0x20])
        return (Array(EnvelopeAddress.internalForm(of: Array(path))), Array(parameters))
    }

    private var forwardedAddress: [UInt8]? {
        guard let address = forwarded(.addr) else { return nil }
        return address.starts(with: "IPV6:".utf8) ? Array(address.dropFirst(5)) : address
    }

    /// Tells the filter what smtp(8) says of the queue file that the message comes from. It names neither queue ID nor
    /// client for mail from sendmail(1).
    func describeQueueFile(to filter: MessageFilter) {
        let isLocal = forwarded(.source)?.elementsEqual("LOCAL".utf8) == true
        if let queueID = forwarded(.ident) {
            filter.wasQueued(as: queueID)
        } else if isLocal {
            filter.wasSubmittedLocally()
        }
        if isLocal, forwarded(.addr) == nil { filter.cameWithoutSMTP() }
    }
}
