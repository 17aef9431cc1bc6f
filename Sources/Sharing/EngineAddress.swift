// SPDX-License-Identifier: Apache-2.0

/// Where the engine is: `redis://192.0.2.1:6379/0`, `unix:/run/redis/redis.sock?db=0`, or what Sentinel says of a group
/// of servers: `redis-sentinel://192.0.2.1:26379,192.0.2.2:26379/NAME?port=6379&db=0`.
package struct EngineAddress: Equatable, Sendable, CustomStringConvertible {
    package struct Server: Equatable, Sendable, CustomStringConvertible {
        /// An IP address, without brackets.
        package let host: String
        package let port: Int

        package init(host: String, port: Int) {
            self.host = host
            self.port = port
        }

        package var description: String { "\(host.contains(":") ? "[\(host)]" : host):\(port)" }
    }

    package enum Place: Equatable, Sendable {
        case inet(Server)
        case unix(path: String)
        /// The primary of the group that Sentinel knows as `name`. All servers of the group listen on `port`: Weir's
        /// sandbox lets it connect to no other.
        case sentinel([Server], name: String, port: Int)
    }

    private static let serverPort = 6379
    private static let sentinelPort = 26_379

    package let place: Place
    package let database: Int

    package init(_ place: Place, database: Int = 0) {
        self.place = place
        self.database = database
    }

    package var description: String {
        switch place {
        case .inet(let server): "redis://\(server)/\(database)"
        case .unix(let path): database == 0 ? "unix:\(path)" : "unix:\(path)?db=\(database)"
        case .sentinel(let servers, let name, let port):
            "redis-sentinel://\(servers.map(\.description).joined(separator: ","))/\(name)"
                + (port == Self.serverPort ? "" : "?port=\(port)")
                + (database == 0 ? "" : "\(port == Self.serverPort ? "?" : "&")db=\(database)")
        }
    }

    /// With the server of Sentinel that is to be asked at an attempt, if Sentinel is.
    package func asking(attempt: Int) -> EngineAddress {
        guard case .sentinel(let servers, let name, let port) = place else { return self }
        return EngineAddress(.sentinel([servers[attempt % servers.count]], name: name, port: port), database: database)
    }

    /// nil if `text` is not an address in one of the three notations. Hosts are not checked.
    package init?(_ text: String) {
        guard !text.contains("@") else { return nil }
        if text.hasPrefix("unix:/") {
            self.init(unix: text.dropFirst("unix:".count))
        } else if text.hasPrefix("redis-sentinel://") {
            self.init(sentinel: text.dropFirst("redis-sentinel://".count))
        } else if text.hasPrefix("redis://") {
            self.init(inet: text.dropFirst("redis://".count))
        } else {
            return nil
        }
    }

    private init?(unix text: Substring) {
        guard let (path, options) = Self.options(of: text, names: ["db"]), !path.isEmpty else { return nil }
        self.init(.unix(path: String(path)), database: options["db"] ?? 0)
    }

    private init?(sentinel text: Substring) {
        guard let (rest, options) = Self.options(of: text, names: ["db", "port"]) else { return nil }
        let port = options["port"] ?? Self.serverPort
        let parts = rest.split(separator: "/", omittingEmptySubsequences: false)
        let servers = parts[0].split(separator: ",", omittingEmptySubsequences: false).map {
            Self.server($0, port: Self.sentinelPort)
        }
        let found = servers.compactMap { $0 }
        guard parts.count == 2, !parts[1].isEmpty, found.count == servers.count, port > 0 else { return nil }
        self.init(.sentinel(found, name: String(parts[1]), port: port), database: options["db"] ?? 0)
    }

    private init?(inet text: Substring) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        let database = parts.count < 2 || parts[1].isEmpty ? 0 : Self.number(parts[1])
        guard let database, let server = Self.server(parts[0], port: Self.serverPort) else { return nil }
        self.init(.inet(server), database: database)
    }

    /// What comes after a question mark: numbers.
    private static func options(of text: Substring, names: [Substring]) -> (Substring, [Substring: Int])? {
        let parts = text.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        var options: [Substring: Int] = [:]
        for part in parts.count < 2 ? [] : parts[1].split(separator: "&", omittingEmptySubsequences: false) {
            let words = part.split(separator: "=", maxSplits: 1)
            guard words.count == 2, names.contains(words[0]), options[words[0]] == nil, let value = number(words[1])
            else { return nil }
            options[words[0]] = value
        }
        return (parts[0], options)
    }

    private static func number(_ text: Substring) -> Int? {
        guard let number = Int(text), 0...65_535 ~= number else { return nil }
        return number
    }

    private static func server(_ text: Substring, port: Int) -> Server? {
        var host = text
        var port = port
        let afterHost = host.lastIndex(of: "]") ?? host.startIndex
        if let colon = host[afterHost...].lastIndex(of: ":") {
            guard let number = number(host[host.index(after: colon)...]), number > 0 else { return nil }
            port = number
            host = host[..<colon]
        }
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        return host.isEmpty ? nil : Server(host: String(host), port: port)
    }
}

/// How Weir logs in.
package struct EngineLogin: Equatable, Sendable {
    private let user: String?
    private let password: String?
    private let sentinelPassword: String?

    package init(user: String?, password: String?, sentinelPassword: String?) {
        self.user = user
        self.password = password
        self.sentinelPassword = sentinelPassword
    }

    /// Asks Sentinel as Weir does, and the engine as a stranger.
    package var asStranger: EngineLogin {
        EngineLogin(user: nil, password: nil, sentinelPassword: sentinelPassword)
    }

    /// AUTH; nil without a password.
    package var command: [String]? {
        guard let password else { return nil }
        return ["AUTH"] + (user.map { [$0] } ?? []) + [password]
    }

    package var sentinelCommand: [String]? { sentinelPassword.map { ["AUTH", $0] } }
}
