// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Wire

extension SMTPServerSession {
    /// `from=<a@example.org>`, for logs.
    var summary: String {
        let command = String(decoding: mail.readableBytesView.dropFirst("MAIL FROM:".count), as: UTF8.self)
        return "from=\(command.prefix { $0 != " " && !$0.isNewline })"
    }
}
