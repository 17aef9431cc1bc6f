// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
package import NIOCore
import Wire

/// Sends the probe message to an smtpd, and records its replies.
package struct ProbeMail {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    /// An account of the mail server.
    package struct Login: Sendable {
        package let user: String
        package let password: [UInt8]

        package init(user: String, password: [UInt8]) {
            self.user = user
            self.password = password
        }
    }

    /// The certificate that smtpd has shown.
    package struct Certificate: Codable, Equatable, Sendable {
        /// The subject, as openssl(1) prints it.
        package let subject: String
        /// What a client on this machine would object to, in OpenSSL's words: `self-signed certificate`.
        package let faults: [String]

        /// Clients that trust its issuer refuse it, too.
        package var isOutOfDate: Bool { faults.contains { $0.contains("expired") || $0.contains("not yet valid") } }
    }

    package struct Reply: Codable, Sendable {
        package let command: String
        package let text: String
        /// Since the start of the probe.
        package let milliseconds: Double

        package var isPositive: Bool { text.first == "2" || text.first == "3" }
    }

    package let sender: String
    package let recipient: String
    package let token: String
    package private(set) var replies: [Reply] = []
    /// nil until a session in TLS has ended.
    package private(set) var certificate: Certificate?
    private let address: SocketAddress
    private var socket: Int32
    /// Owns the other end of `socket` while the session is in TLS.
    private var tls: OpenSSLClient?
    /// The EHLO keywords with their parameters, in capitals.
    private var capabilities: [String] = []
    private let begun: ContinuousClock.Instant
    private var input: [UInt8] = []

    private static let timeout = 60
    private static let longestReply = 65_536

    /// Connects and reads the greeting.
    ///
    /// - Parameter begun: the start of the probe, from which the times of the replies count.
    package init(
        to address: SocketAddress, sender: String, recipient: String, token: String, begun: ContinuousClock.Instant
    ) throws {
        self.begun = begun
        self.sender = sender
        self.recipient = recipient
        self.token = token
        self.address = address
        socket = Glibc.socket(address.protocol == .inet6 ? AF_INET6 : AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard socket >= 0 else { throw Self.failure("can't create a socket") }
        limitTime()
        guard address.withSockAddr({ pointer, size in connect(socket, pointer, socklen_t(size)) }) == 0 else {
            let failure = Self.failure("can't connect to smtpd at \(address.text)")
            close(socket)
            throw Failure(description: "\(failure); --smtp names another address")
        }
        try expect("connect")
    }

    private func limitTime() {
        var limit = timeval(tv_sec: Self.timeout, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(socket, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    /// Says EHLO, and logs in if there is a login. A login uses TLS wherever smtpd offers it.
    ///
    /// - Throws: `Failure`, also if smtpd does not offer what is asked for. The connection is closed then.
    package mutating func open(requiresTLS: Bool, login: Login?) throws {
        do {
            try command("EHLO localhost")
            guard replies.allSatisfy(\.isPositive) else { return }
            let offersTLS = capabilities.contains("STARTTLS")
            guard offersTLS || !requiresTLS else { throw Failure(description: "smtpd does not offer STARTTLS") }
            if offersTLS, requiresTLS || login != nil { try startTLS() }
            if let login { try logIn(login) }
        } catch {
            disconnect()
            throw error
        }
    }

    /// Ends the session, and begins one in TLS.
    private mutating func startTLS() throws {
        try command("QUIT")
        disconnect()
        let client = try OpenSSLClient(startTLSAt: address.text)
        tls = client
        socket = client.socket
        limitTime()
        do { try command("EHLO localhost", named: "EHLO in TLS") } catch {
            let reason = client.close().reason
            (tls, socket) = (nil, -1)
            // openssl(1) ignores the answer to STARTTLS.
            if let refusal = try? Self.refusalOfTLS(at: address) {
                throw Failure(description: "smtpd refuses STARTTLS: \(refusal)")
            }
            throw Failure(description: "the TLS session has failed: \(reason)")
        }
    }

    /// The reply of smtpd to STARTTLS; nil if it agrees.
    private static func refusalOfTLS(at address: SocketAddress) throws -> String? {
        var mail = try ProbeMail(to: address, sender: "", recipient: "", token: "", begun: .now)
        defer { mail.disconnect() }
        try mail.command("EHLO localhost")
        try mail.command("STARTTLS")
        return mail.replies.last.flatMap { $0.isPositive ? nil : $0.text }
    }

    private mutating func disconnect() {
        if let tls {
            certificate = tls.close().certificate
        } else if socket >= 0 {
            close(socket)
        }
        (tls, socket, input) = (nil, -1, [])
    }

    /// RFC 4616, or the older LOGIN. The replies have no secrets.
    private mutating func logIn(_ login: Login) throws {
        let offered = capabilities.filter { $0.hasPrefix("AUTH ") || $0.hasPrefix("AUTH=") }
            .flatMap { $0.dropFirst(5).split(separator: " ").map(String.init) }
        let user = Array(login.user.utf8)
        if offered.contains("PLAIN") {
            let response = Data([0] + user + [0] + login.password).base64EncodedString()
            try command("AUTH PLAIN \(response)", named: "AUTH PLAIN")
        } else if offered.contains("LOGIN") {
            try command("AUTH LOGIN")
            try command(Data(user).base64EncodedString(), named: "user name")
            try command(Data(login.password).base64EncodedString(), named: "password")
        } else {
            let list = offered.isEmpty ? "it offers no login at all" : "only \(offered.joined(separator: ", "))"
            let place = tls == nil ? "" : " in TLS"
            throw Failure(description: "smtpd offers neither AUTH PLAIN nor AUTH LOGIN\(place); \(list)")
        }
    }

    /// After `open`, sends the envelope and, if `sendsContent`, the content; then QUIT.
    package mutating func send(content sendsContent: Bool) throws {
        defer { disconnect() }
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
                let text = Self.text(lines[last])
                if command.hasPrefix("EHLO") { capabilities = lines[...last].map { Self.capability(Self.text($0)) } }
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

    private static func text(_ line: some Collection<UInt8>) -> String {
        String(decoding: line, as: UTF8.self).filter { $0 != "\r" }
    }

    /// `250-AUTH PLAIN LOGIN` without the code.
    private static func capability(_ line: String) -> String { line.dropFirst(4).uppercased() }

    static func failure(_ text: String) -> Failure {
        Failure(description: "\(text): \(String(cString: strerror(errno)))")
    }
}
