// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc

/// A connection to an smtpd in TLS, made by openssl(1).
///
/// Security: it does not verify the certificate. It is for smtpd processes on loopback addresses of this machine.
struct OpenSSLClient {
    /// The plain text side. The owner closes it.
    let socket: Int32
    private let process = Process()
    private let errors = Pipe()

    /// Connects and sends STARTTLS. A failure to do so ends the stream, and `reason` says why.
    ///
    /// - Parameter address: with a port; an IPv6 address in brackets.
    init(startTLSAt address: String) throws(ProbeMail.Failure) {
        var pair: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
            throw ProbeMail.failure("can't create a socket")
        }
        socket = pair[0]
        let other = FileHandle(fileDescriptor: pair[1], closeOnDealloc: true)
        process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        // With -quiet, lines that begin with R or Q are no commands to it.
        process.arguments = [
            "s_client", "-quiet", "-starttls", "smtp", "-name", "localhost", "-connect", address,
        ]
        process.standardInput = other
        process.standardOutput = other
        process.standardError = errors
        do { try process.run() } catch {
            close(socket)
            throw ProbeMail.Failure(
                description: "can't run /usr/bin/openssl, which STARTTLS needs: \(error.localizedDescription)")
        }
        try? other.close()
    }

    /// Why the stream has ended: the first error of OpenSSL, else the last line that it printed.
    var reason: String {
        process.waitUntilExit()
        let text = String(decoding: (try? errors.fileHandleForReading.readToEnd()) ?? Data(), as: UTF8.self)
        let lines = text.split(separator: "\n").map(String.init)
        return lines.first { $0.contains(":error:") } ?? lines.last
            ?? "openssl exited with status \(process.terminationStatus)"
    }
}
