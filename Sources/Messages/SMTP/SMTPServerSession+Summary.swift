// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOCore
internal import Wire

extension SMTPServerSession {
    /// `4ZkTx12345: from=<a@example.org> client=mail.example.org[192.0.2.1]`, for logs. The queue ID and the client are
    /// those of XFORWARD, and are left out where it does not name them.
    var summary: String {
        let command = String(decoding: mail.readableBytesView.dropFirst("MAIL FROM:".count), as: UTF8.self)
        let queueID = forwarded(.ident).map { String(decoding: $0, as: UTF8.self) + ": " } ?? ""
        let reversePath = "from=\(command.prefix { $0 != " " && !$0.isNewline })"
        guard let address = forwarded(.addr) else { return queueID + reversePath }
        let name = forwarded(.name).map { String(decoding: $0, as: UTF8.self) } ?? "unknown"
        let bare = address.starts(with: "IPV6:".utf8) ? Array(address.dropFirst(5)) : address
        return "\(queueID)\(reversePath) client=\(name)[\(String(decoding: bare, as: UTF8.self))]"
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
