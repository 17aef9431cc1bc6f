// SPDX-License-Identifier: Apache-2.0
internal import AsyncHTTPClient
internal import Foundation
internal import NIOCore
internal import NIOHTTP1

/// Why a channel did not take a notice.
struct AlertFailure: Error, CustomStringConvertible {
    let description: String
}

/// Posts the notice as JSON.
struct Webhook: AlertChannel {
    /// Never logged: it often holds a secret.
    let url: String

    var name: String { "alerts.webhook" }

    private static let timeout: TimeAmount = .seconds(10)

    func send(_ notice: AlertNotice) async throws {
        var request = HTTPClientRequest(url: url)
        request.method = .POST
        request.headers.add(name: "Content-Type", value: "application/json")
        request.headers.add(name: "User-Agent", value: "weir/\(WeirVersion.current)")
        request.body = .bytes(ByteBuffer(bytes: try notice.json))
        let response = try await HTTPClient.shared.execute(request, timeout: Self.timeout)
        guard (200..<300).contains(response.status.code) else {
            throw AlertFailure(description: "it answers \(response.status.code)")
        }
    }
}

/// Runs a program with the notice as JSON on its standard input.
struct AlertCommand: AlertChannel {
    let path: String

    var name: String { "alerts.command" }

    func send(_ notice: AlertNotice) async throws {
        try await ChildProcess.run([path], input: Array(notice.json) + [0x0a])
    }
}

/// Mails the notice through sendmail(1).
struct AlertMail: AlertChannel {
    let sendmail: String
    let recipients: [String]

    var name: String { "alerts.mail" }

    func send(_ notice: AlertNotice) async throws {
        // What a peer has sent must neither end the header nor need encoding there.
        let subject = String(notice.text.unicodeScalars.map { (0x20...0x7e).contains($0.value) ? Character($0) : "?" }.prefix(200))
        var lines = [
            "Subject: \(subject)", "To: \(recipients.joined(separator: ", "))", "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "",
        ]
        for alert in notice.alerts {
            lines.append("\(EventLog.time(alert.time)) \(EventLog.escaped(alert.description))")
        }
        if notice.leftOut > 0 { lines.append("and \(notice.leftOut) more, which are in the log") }
        try await ChildProcess.run(
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
