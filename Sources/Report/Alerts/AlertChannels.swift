// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Settings

/// Why a channel did not deliver a notice.
struct AlertFailure: Error, CustomStringConvertible {
    let description: String
    /// The channel works, and refuses this notice.
    var isPermanent = false
}

/// Posts the notice as JSON with curl(1).
struct Webhook: AlertChannel {
    /// Security: often contains a secret, so it is neither logged nor passed as an argument.
    let url: String
    let starter: ProgramStarter

    var name: String { "alerts.webhook" }
    var success: String { "the server answered with a status 2xx" }

    private static let seconds = 10
    /// Exit statuses of curl(1).
    private static let reasons: [Int32: String] = [
        6: "can't resolve the host name", 7: "can't connect: nothing listens there, or a firewall is between",
        28: "no response within \(seconds) s",
        35: "the TLS handshake failed", 52: "the server closed the connection without a response",
        56: "the connection was lost", 60: "the server's certificate is not trusted",
    ]

    func send(_ notice: AlertNotice) async throws {
        let options = [
            ("url", url), ("data-binary", String(decoding: try notice.json, as: UTF8.self)),
            ("header", "Content-Type: application/json"),
            ("user-agent", "weir/\(WeirVersion.current)"), ("max-time", "\(Self.seconds)"), ("proto", "=http,https"),
            ("output", "/dev/null"),
            ("write-out", "%{http_code}"),
        ]
        let lines = options.map { name, value in
            "\(name) = \"\(value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\""))\"\n"
        }
        let output: [UInt8]
        do {
            output = try await starter.output(
                of: [Configuration.Alerts.webhookProgram, "--silent", "--globoff", "--config", "-"],
                input: Array(lines.joined().utf8))
        } catch let exit as ProgramStarter.BadExit {
            throw AlertFailure(description: Self.reasons[exit.status] ?? exit.description)
        }
        let status = String(decoding: output, as: UTF8.self)
        let answer = "the server answered with status \(status)"
        switch (status.first, status) {
        case ("2", _): break
        case ("3", _):
            throw AlertFailure(description: "\(answer), a redirect, which is not followed", isPermanent: true)
        // Timeout, and too many requests.
        case ("4", let status) where status != "408" && status != "429":
            throw AlertFailure(description: answer, isPermanent: true)
        default: throw AlertFailure(description: answer)
        }
    }
}

/// Runs a program with the notice as JSON on standard input.
struct AlertCommand: AlertChannel {
    let path: String
    let starter: ProgramStarter

    var name: String { "alerts.command" }
    var success: String { "\(path) exited with status 0" }

    func send(_ notice: AlertNotice) async throws {
        try await starter.run([path], input: Array(notice.json) + [0x0a])
    }
}

/// Mails the notice with sendmail(1).
struct AlertMail: AlertChannel {
    let sendmail: String
    let recipients: [String]
    let marks: AlertMarks
    let starter: ProgramStarter

    var name: String { "alerts.mail" }
    var success: String { "\(sendmail) took the mail to \(recipients.joined(separator: ", "))" }

    func send(_ notice: AlertNotice) async throws {
        // Data from a peer must not end the header, nor need encoding (RFC 2047).
        let subject = String(
            notice.subject.unicodeScalars.map { (0x20...0x7e).contains($0.value) ? Character($0) : "?" }.prefix(200))
        var lines = [
            "Subject: \(subject)", "To: \(recipients.joined(separator: ", "))", "Auto-Submitted: auto-generated",
            "\(AlertMarks.header): \(marks.make())",
            "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "",
        ]
        for alert in notice.alerts {
            lines.append("\(EventLog.time(alert.time)) \(EventLog.escaped(alert.description))")
            let hints = [alert.client.map { "client \($0)" }] + alert.commands + [alert.page]
            lines += hints.compactMap(\.self).map { "    \(EventLog.escaped($0))" }
        }
        if notice.leftOut > 0 { lines.append("and \(notice.leftOut) more; see the log") }
        lines += ["", "The page is at \(notice.page) while this runs on your machine:", "    \(notice.tunnel)"]
        try await starter.run(
            [sendmail, "-i", "--"] + recipients, input: Array((lines.joined(separator: "\n") + "\n").utf8))
    }
}

extension AlertNotice {
    var json: Data {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return try encoder.encode(self)
        }
    }
}
