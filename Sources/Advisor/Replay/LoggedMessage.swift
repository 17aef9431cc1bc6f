// SPDX-License-Identifier: Apache-2.0

/// A message that Postfix accepted over SMTP, from its log.
struct LoggedMessage {
    var moment: LogMoment
    var queueID: [UInt8]
    var clientName: [UInt8]
    var clientAddress: [UInt8]
    var saslMethod: [UInt8]
    var saslUsername: [UInt8]
    /// `submission` for `postfix/submission/smtpd`.
    var service: [UInt8]
    var sender: [UInt8]
    /// Bytes in the queue, including headers that Postfix added.
    var size: Int
    var recipients: Int
}

/// What smtpd knew of a message that a filter before the queue has returned: that filter does not pass on the login.
struct LoggedOrigin {
    let queueID: [UInt8]
    let saslUsername: [UInt8]
    let service: [UInt8]

    /// - Parameters:
    ///   - text: `END-OF-MESSAGE: 250 2.0.0 Ok: queued as 4Cc1111111z2; from=<a@example.org> to=<b@example.com>
    ///     proto=ESMTP helo=<h> sasl_username=<alice>`, of a line that begins with `proxy-accept: `
    ///   - service: `submission` for `postfix/submission`.
    init?(proxyAccept text: UnsafeRawBufferPointer, service: [UInt8]) {
        guard let found = text.lastRange(of: "queued as "),
            let end = text[found.upperBound...].firstIndex(of: UInt8(ascii: ";"))
        else { return nil }
        queueID = Array(text[found.upperBound..<end])
        let login = text.lastRange(of: " sasl_username=<").map { text[$0.upperBound...] } ?? text[..<0]
        saslUsername = login.last == UInt8(ascii: ">") ? Array(login.dropLast()) : []
        self.service = service
    }
}

extension LoggedMessage {
    mutating func apply(_ origin: LoggedOrigin) {
        saslUsername = origin.saslUsername
        service = origin.service
    }
}

/// How much of the logs was counted, and why the rest was not.
package struct LogFigures: Codable, Sendable, Equatable {
    package internal(set) var lines = 0
    /// Lines that are not Postfix's, or not about clients, senders and recipients.
    package internal(set) var otherLines = 0
    /// Lines without a readable time: truncated, in another language, in an unknown form, or not from a log.
    package internal(set) var linesWithoutTime = 0
    /// Lines with an earlier time than a previous line. They count at the time of that line.
    package internal(set) var linesOutOfOrder = 0
    package internal(set) var messages = 0
    package internal(set) var recipients = 0
    /// Policy requests of a capture.
    package internal(set) var requests = 0
    /// Messages of sendmail(1), for which Postfix sends no policy requests.
    package internal(set) var localMessages = 0
    /// Messages returned by a content filter.
    package internal(set) var reinjectedMessages = 0
    /// Messages whose client line is missing, for example because the log starts later.
    package internal(set) var messagesWithoutClient = 0
    /// The time of the first line, and the latest time of all lines, in milliseconds since 1970. If the log has no
    /// zones, they are in its own time.
    package internal(set) var first: Int64?
    package internal(set) var last: Int64?
    /// The zones of these times in minutes east of UTC; nil if the log has none.
    package internal(set) var firstZone: Int?
    package internal(set) var lastZone: Int?
    /// What could not be read: the rest of a file after an error, a file without a line in a known form, lines that
    /// are too long, missing parts of the log.
    package internal(set) var faults: [String] = []
}
