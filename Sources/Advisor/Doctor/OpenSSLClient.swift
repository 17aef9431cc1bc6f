// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc

/// A connection to an smtpd in TLS, made by openssl(1).
///
/// Security: openssl(1) verifies the chain and the dates of the certificate, not the name. A certificate that fails is
/// reported, and the session continues: the caller connects to addresses of this machine only.
struct OpenSSLClient {
    /// The plain text side. `close` closes it.
    let socket: Int32
    private let process = Process()
    private let errors = Pipe()

    private static let program = "/usr/bin/openssl"

    /// Connects and sends STARTTLS. A failure to do so ends the stream, and `end` says why.
    ///
    /// - Parameter address: with a port; an IPv6 address in brackets.
    init(startTLSAt address: String) throws(ProbeMail.Failure) {
        var pair: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
            throw ProbeMail.failure("can't create a socket")
        }
        socket = pair[0]
        let other = FileHandle(fileDescriptor: pair[1], closeOnDealloc: true)
        process.executableURL = URL(fileURLWithPath: Self.program)
        // With -quiet, lines that begin with R or Q are no commands to it, and it prints nothing but the session.
        process.arguments = ["s_client", "-quiet", "-starttls", "smtp", "-name", "localhost", "-connect", address]
        process.standardInput = other
        process.standardOutput = other
        process.standardError = errors
        do { try process.run() } catch {
            Glibc.close(socket)
            throw ProbeMail.Failure(
                description: "can't run \(Self.program), which STARTTLS needs: \(error.localizedDescription)")
        }
        try? other.close()
    }

    /// Ends the session and openssl(1), and returns what that printed about them.
    func close() -> Transcript {
        // It continues to read from smtpd after the end of its input.
        process.terminate()
        Glibc.close(socket)
        process.waitUntilExit()
        let text = (try? errors.fileHandleForReading.readToEnd()) ?? Data()
        return Transcript(text: String(decoding: text, as: UTF8.self))
    }

    /// What `openssl s_client -quiet` prints on standard error.
    struct Transcript {
        private let lines: [Substring]

        init(text: String) { lines = text.split(separator: "\n") }

        /// The certificate of smtpd; nil without one.
        var certificate: ProbeMail.Certificate? {
            guard let subject = lines.compactMap({ $0.wholeMatch(of: /depth=0 (.*)/)?.1 }).last else { return nil }
            var faults: [String] = []
            for line in lines {
                guard let text = line.wholeMatch(of: /verify error:num=[0-9]+:(.*)/)?.1.lowercased() else { continue }
                if !faults.contains(text) { faults.append(text) }
            }
            return ProbeMail.Certificate(subject: String(subject), faults: faults)
        }

        /// Why the session has ended: the first error, else the last line.
        var reason: String {
            guard let error = lines.first(where: { $0.contains(":error:") }) else {
                return lines.last.map(String.init) ?? "openssl gave no reason"
            }
            // Thread, "error", code, library, function, reason, file, line.
            let fields = error.split(separator: ":", omittingEmptySubsequences: false)
            return fields.count > 5 ? String(fields[5]) : String(error)
        }
    }
}
