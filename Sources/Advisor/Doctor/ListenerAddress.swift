// SPDX-License-Identifier: Apache-2.0
import Glibc
import Limits
import Settings
import Wire

/// A listener's address in canonical form, for comparing addresses in the notations of Weir and Postfix.
enum ListenerAddress: Equatable {
    /// The host is in lower case; empty for all interfaces.
    case inet(host: String, port: Int)
    case unix(path: String)

    init(_ endpoint: Endpoint) {
        switch endpoint {
        case .inet(let host, let port): self = .inet(host: Self.canonical(host), port: port)
        case .unix(let path, _, _): self = .unix(path: path)
        }
    }

    /// Parses a server as written in Postfix parameters: `inet:host:port`, `inet:port`, `host:port`, `[host]:port`,
    /// `unix:path`.
    ///
    /// - Parameter queue: the queue directory, to which relative paths refer.
    init?(_ text: String, queue: String) {
        if text.hasPrefix("unix:") || text.hasPrefix("local:") {
            let path = text.drop { $0 != ":" }.dropFirst()
            self = .unix(path: path.hasPrefix("/") ? String(path) : "\(queue)/\(path)")
            return
        }
        let endpoint =
            text.hasPrefix("inet:") ? text.dropFirst(5) : text.hasPrefix("inet6:") ? text.dropFirst(6) : text[...]
        // Sendmail's notation for milters: port@host.
        if let at = endpoint.firstIndex(of: "@"), let port = Self.port(endpoint[..<at]) {
            self = .inet(host: Self.canonical(String(endpoint[endpoint.index(after: at)...])), port: port)
            return
        }
        if text.hasPrefix("inet:"), let port = Self.port(endpoint) {
            self = .inet(host: Self.localhost, port: port)
            return
        }
        guard let colon = endpoint.lastIndex(of: ":"), let port = Self.port(endpoint[endpoint.index(after: colon)...])
        else { return nil }
        self = .inet(host: Self.canonical(String(endpoint[..<colon])), port: port)
    }

    /// Parses the name of an inet service in master.cf: `smtp`, `10026`, `127.0.0.1:10026`, `[::1]:10026`.
    init?(service name: String) {
        if let port = Self.port(name[...]) {
            self = .inet(host: "", port: port)
        } else {
            self.init(name, queue: "")
        }
    }

    /// Whether a connection to `other` reaches this listener. A name of a host counts as one of this machine.
    func answers(_ other: ListenerAddress) -> Bool {
        guard case .inet(let host, let port) = self, case .inet(let otherHost, let otherPort) = other else {
            return self == other
        }
        return port == otherPort
            && (host == otherHost || isOfAllInterfaces || Self.isName(otherHost)
                || [host, otherHost].contains(Self.localhost) && isLoopback && other.isLoopback)
    }

    /// Postfix tries both addresses that this name has.
    private static let localhost = "localhost"

    /// Whether this is a port of 127.0.0.1, possibly by its name.
    func isLocal(port wanted: Int) -> Bool {
        guard case .inet(let host, wanted) = self else { return false }
        return ["127.0.0.1", Self.localhost].contains(host)
    }

    var isOfAllInterfaces: Bool {
        guard case .inet(let host, _) = self else { return false }
        return ["", "0.0.0.0", "::"].contains(host)
    }

    var isLoopback: Bool {
        guard case .inet(let host, _) = self else { return true }
        return host.hasPrefix("127.") || host == "::1" || host == Self.localhost
    }

    /// Whether this is the port of smtp, submission or submissions.
    var isForNewMail: Bool {
        guard case .inet(_, let port) = self else { return false }
        return [25, 465, 587].contains(port)
    }

    private static func isName(_ host: String) -> Bool {
        host != localhost && !host.isEmpty && IPAddress(Array(host.utf8)) == nil
    }

    private static func canonical(_ host: String) -> String {
        (host.first == "[" ? String(host.dropFirst().dropLast()) : host).lowercased()
    }

    private static func port(_ text: Substring) -> Int? {
        if let number = Int(text) { return number }
        guard !text.isEmpty, text.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "-" }) else { return nil }
        return getservbyname(String(text), "tcp").map { Int(UInt16(truncatingIfNeeded: $0.pointee.s_port).byteSwapped) }
    }
}
