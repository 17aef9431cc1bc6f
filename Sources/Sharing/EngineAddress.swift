// SPDX-License-Identifier: Apache-2.0

/// Where the engine is: `redis://127.0.0.1:6379/0` or `unix:/run/redis/redis.sock?db=0`.
package struct EngineAddress: Equatable, Sendable, CustomStringConvertible {
    package enum Place: Equatable, Sendable {
        /// An IP address, without brackets.
        case inet(host: String, port: Int)
        case unix(path: String)
    }

    package let place: Place
    package let database: Int

    package init(_ place: Place, database: Int = 0) {
        self.place = place
        self.database = database
    }

    package var description: String {
        switch place {
        case .inet(let host, let port):
            "redis://\(host.contains(":") ? "[\(host)]" : host):\(port)/\(database)"
        case .unix(let path): database == 0 ? "unix:\(path)" : "unix:\(path)?db=\(database)"
        }
    }

    /// nil if `text` is not an address in one of the two notations. The host is not checked.
    package init?(_ text: String) {
        if text.hasPrefix("unix:/") {
            let parts = text.dropFirst("unix:".count).split(separator: "?", maxSplits: 1)
            guard let path = parts.first else { return nil }
            let database = parts.count < 2 ? 0 : parts[1].hasPrefix("db=") ? Int(parts[1].dropFirst(3)) : nil
            guard let database, 0...65_535 ~= database else { return nil }
            self.init(.unix(path: String(path)), database: database)
            return
        }
        guard text.hasPrefix("redis://"), !text.contains("@") else { return nil }
        let parts = text.dropFirst("redis://".count).split(
            separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        let database = parts.count < 2 || parts[1].isEmpty ? 0 : Int(parts[1])
        guard let database, 0...65_535 ~= database else { return nil }
        var host = parts[0]
        var port = 6379
        let afterHost = host.lastIndex(of: "]") ?? host.startIndex
        if let colon = host[afterHost...].lastIndex(of: ":") {
            guard let number = Int(host[host.index(after: colon)...]), 1...65_535 ~= number else { return nil }
            port = number
            host = host[..<colon]
        }
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty else { return nil }
        self.init(.inet(host: String(host), port: port), database: database)
    }
}
