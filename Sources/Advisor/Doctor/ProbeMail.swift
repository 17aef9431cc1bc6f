// SPDX-License-Identifier: Apache-2.0
import Glibc
package import NIOCore

/// Sends the probe message to an smtpd, and records its replies.
package struct ProbeMail {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    package struct Reply: Codable, Sendable {
        package let command: String
        package let text: String
        /// Since the start of the connect.
        package let milliseconds: Double

        package var isPositive: Bool { text.first == "2" || text.first == "3" }
    }

    package let sender: String
    package let recipient: String
    package let token: String
    package private(set) var replies: [Reply] = []
    private let socket: Int32
    private let begun = ContinuousClock.now
    private var input: [UInt8] = []

    private static let timeout = 60
    private static let longestReply = 65_536

    /// Connects and reads the greeting.
    package init(to address: SocketAddress, sender: String, recipient: String, token: String) throws {
        self.sender = sender
        self.recipient = recipient
        self.token = token
        socket = Glibc.socket(address.protocol == .inet6 ? AF_INET6 : AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard socket >= 0 else { throw Self.failure("can't create a socket") }
        var limit = timeval(tv_sec: Self.timeout, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(socket, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        guard address.withSockAddr({ pointer, size in connect(socket, pointer, socklen_t(size)) }) == 0 else {
            let failure = Self.failure("can't connect to \(address)")
            close(socket)
            throw failure
        }
        try expect("connect")
    }

    /// Sends the envelope and, if `sendsContent`, the content; then QUIT.
    package mutating func send(content sendsContent: Bool) throws {
        defer { close(socket) }
        try command("EHLO localhost")
        try command("MAIL FROM:<\(sender)>")
        try command("RCPT TO:<\(recipient)>")
        if sendsContent {
            try command("DATA")
            try command(
                "X-Weir-Probe: \(token)\r\nFrom: \(sender)\r\nTo: \(recipient)\r\nSubject: probe of weir doctor\r\n"
                    + "Auto-Submitted: auto-generated\r\n\r\n"
                    + "This message tests the path from Postfix to Weir, which discards it.\r\n.",
                named: "content")
        }
        try command("QUIT")
    }

    private mutating func command(_ text: String, named name: String? = nil) throws {
        guard replies.allSatisfy(\.isPositive) || text == "QUIT" else { return }
        var rest = Array((text + "\r\n").utf8)[...]
        while !rest.isEmpty {
            let sent = rest.withUnsafeBytes { Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard sent > 0 else { throw Self.failure("can't send \(name ?? text)") }
            rest = rest.dropFirst(sent)
        }
        try expect(name ?? text)
    }

    private mutating func expect(_ command: String) throws {
        while true {
            var lines = input.split(separator: 0x0a, omittingEmptySubsequences: false)
            lines.removeLast()
            if let last = lines.firstIndex(where: { $0.count < 4 || $0[$0.startIndex + 3] != UInt8(ascii: "-") }) {
                let text = String(decoding: lines[last], as: UTF8.self).filter { $0 != "\r" }
                input.removeFirst(lines[...last].reduce(0) { $0 + $1.count + 1 })
                let time = ContinuousClock.now - begun
                let milliseconds = Double(time.components.seconds) * 1000 + Double(time.components.attoseconds) / 1e15
                return replies.append(Reply(command: command, text: text, milliseconds: milliseconds))
            }
            var chunk = [UInt8](repeating: 0, count: 4096)
            let count = recv(socket, &chunk, chunk.count, 0)
            guard count > 0, input.count < Self.longestReply else {
                throw count == 0
                    ? Failure(description: "smtpd closed the connection after \(command)")
                    : Self.failure("no reply to \(command)")
            }
            input += chunk[..<count]
        }
    }

    private static func failure(_ text: String) -> Failure {
        Failure(description: "\(text): \(String(cString: strerror(errno)))")
    }
}
