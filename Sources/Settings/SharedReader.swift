// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Limits
internal import MailSyntax
package import Sharing

extension Configuration {
    /// Limits that several hosts hold together, through an engine (Valkey or Redis).
    package struct Shared: Equatable, Sendable {
        /// What a host does while it can't reach the engine.
        package enum OnCutOff: String, CaseIterable, Sendable {
            /// It admits its share.
            case share
            /// It admits all of a limit, as without `shared`.
            case open
        }

        /// nil: no limit is shared.
        package var engine: EngineAddress?
        package var name: String?
        package var hosts: [String] = []
        package var user: String?
        package var password: String?
        package var passwordFile: String?
        package var sentinelPassword: String?
        package var sentinelPasswordFile: String?
        /// The part of each limit that is divided among the hosts, in percent.
        package var share: Int64 = 10
        /// How long a request waits for the engine, in milliseconds.
        package var timeout: Int64 = 50
        package var onCutOff = OnCutOff.share

        package init() {}

        package var login: EngineLogin {
            EngineLogin(user: user, password: password, sentinelPassword: sentinelPassword)
        }
    }
}

extension ValueType where Value == EngineAddress {
    private static let form =
        "redis://ADDRESS:PORT/DATABASE, redis-sentinel://ADDRESS:PORT,.../GROUP or unix:/PATH?db=DATABASE, with IP "
        + "addresses"

    static let engine = ValueType.text(form, write: { "\"\($0)\"" }) { text in
        if text.contains("@") {
            return .fault(
                "a password does not belong in the address (not shown); use shared.user and shared.password_file")
        }
        if text.hasPrefix("rediss://") {
            return .fault("Weir does not speak TLS to the engine; expected \(form), for example that of stunnel")
        }
        guard let address = EngineAddress(text) else { return .isNot("the address of an engine") }
        let servers: [EngineAddress.Server] =
            switch address.place {
            case .inet(let server): [server]
            case .unix: []
            case .sentinel(let servers, _, _): servers
            }
        // The ledger's thread must not wait for a resolver.
        if let name = servers.map(\.host).first(where: { !isIPAddress($0) }) {
            return .fault("\(Spelling.quoted(name)) is not an IP address; expected \(form)")
        }
        return .value(address)
    }

    private static func isIPAddress(_ host: String) -> Bool {
        var address = in6_addr()
        return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1
    }
}

extension ValueType where Value == String {
    static let sharedHost = ValueType.text(
        "a host name of 1 to 64 letters, digits, '-' and '.'", write: { $0 }
    ) { text in
        let isName = text.utf8.allSatisfy { $0.isAlphanumeric || "-.".utf8.contains($0) }
        return isName && (1...64).contains(text.utf8.count) ? .value(text) : .isNot("the name of a host")
    }

    /// Messages never quote it.
    static let secret = ValueType.text("a text", write: { _ in nil }) { .value($0) }
}

/// Checks `shared` as a whole.
enum SharedReader {
    private static let mostHosts = 32

    static func finish(
        _ configuration: inout Configuration, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) {
        let shared = configuration.shared
        guard found["shared.engine"] != nil || shared.name != nil || !shared.hosts.isEmpty,
            let first = ["engine", "name", "hosts"].lazy.compactMap({ found["shared.\($0)"] }).first
        else { return }
        for (key, expected) in [
            ("engine", "an address such as redis://127.0.0.1:6379/0"), ("name", "this host's name in shared.hosts"),
            ("hosts", "the names of all hosts"),
        ] where found["shared.\(key)"] == nil {
            reading.fault(first, "shared", "'\(key)' is missing; expected \(expected)")
        }
        checkHosts(configuration.shared, found, &reading)
        if let node = found["ledger.durability"], configuration.ledger.durability == .relaxed {
            reading.fault(
                node, "ledger.durability",
                "'relaxed' can lose what other hosts rely on; with shared, expected commit or power")
        }
        readPasswords(&configuration.shared, found, &reading)
        if !configuration.limits.isEmpty, !configuration.limits.contains(where: \.isShared) {
            reading.warn(first, "shared", "no limit is shared: all of them have 'shared: false'")
        }
    }

    private static func checkHosts(
        _ shared: Configuration.Shared, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) {
        guard let node = found["shared.hosts"], !shared.hosts.isEmpty else { return }
        for (index, host) in shared.hosts.enumerated() where shared.hosts[..<index].contains(host) {
            reading.fault(node, "shared.hosts", "\(Spelling.quoted(host)) is named twice; each host has its own name")
        }
        if shared.hosts.count > mostHosts {
            reading.fault(node, "shared.hosts", "has \(shared.hosts.count) hosts; expected at most \(mostHosts)")
        }
        if let name = shared.name, let node = found["shared.name"], !shared.hosts.contains(name) {
            reading.fault(
                node, "shared.name",
                "\(Spelling.quoted(name)) is not one of shared.hosts; expected \(shared.hosts.joined(separator: ", "))")
        }
    }

    private static func readPasswords(
        _ shared: inout Configuration.Shared, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) {
        if let path = shared.passwordFile, let node = found["shared.password_file"] {
            if found["shared.password"] != nil {
                reading.fault(node, "shared.password_file", "shared.password is set, too; expected only one of them")
            }
            shared.password = readPassword(path, node, "shared.password_file", &reading)
        }
        if let path = shared.sentinelPasswordFile, let node = found["shared.sentinel_password_file"] {
            if case .sentinel = shared.engine?.place {
                shared.sentinelPassword = readPassword(path, node, "shared.sentinel_password_file", &reading)
            } else {
                reading.fault(
                    node, "shared.sentinel_password_file", "it is only for a shared.engine of redis-sentinel://")
            }
        }
        if let node = found["shared.user"], shared.password == nil {
            reading.fault(node, "shared.user", "a user needs shared.password or shared.password_file")
        }
    }

    private static func readPassword(
        _ path: String, _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading
    ) -> String? {
        reading.tablePaths.append(path)
        switch BoundedFile.read(path, upTo: 1 << 20) {
        case .failure(let failure):
            reading.fault(node, key, "\(path) can't be read: \(failure.description)")
            return nil
        case .success(let bytes):
            let line = bytes.prefix { $0 != UInt8(ascii: "\n") && $0 != UInt8(ascii: "\r") }
            if line.isEmpty { reading.fault(node, key, "the first line of \(path) is empty") }
            return String(decoding: line, as: UTF8.self)
        }
    }
}
