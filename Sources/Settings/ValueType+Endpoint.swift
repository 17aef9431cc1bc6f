// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import MailSyntax
internal import Wire

/// The rules for the address of a kind of listener.
package struct EndpointType: Sendable {
    /// Default permissions of a UNIX socket.
    var mode: UInt16
    /// Whether an address that other machines can reach is a warning (`remark`), or a fault.
    var isOpenToNetwork: Bool
    /// The text of the warning or fault; none if empty.
    var remark: String

    /// Without a remark: `networks` says who may connect.
    package static let filter = EndpointType(mode: 0o660, isOpenToNetwork: true, remark: "")
    package static let policy = EndpointType(
        mode: 0o666, isOpenToNetwork: true,
        remark: "is reachable from other machines, and clients that reach it can use up all limits; "
            + "allow only the Postfix hosts in the packet filter")
    package static let milter = EndpointType(
        mode: 0o666, isOpenToNetwork: true,
        remark: "is reachable from other machines, and clients that reach it can use up all limits; "
            + "allow only the MTAs in the packet filter")
    package static let admin = EndpointType(
        mode: 0o660, isOpenToNetwork: false,
        remark: "is reachable from other machines; expected 127.0.0.1, [::1] or a UNIX socket")

    static let expected = "inet:address:port, unix:/path, or { unix: /path, mode: \"0660\", group: name }"

    var type: ValueType<Endpoint> {
        ValueType(expected: Self.expected, write: write) { node, key, reading in
            let endpoint: Endpoint?
            if case .map = node.value {
                endpoint = socket(node, key, &reading)
            } else {
                endpoint = ValueType.text(Self.expected, write: { _ in nil }, parse: parse).read(node, key, &reading)
            }
            if !remark.isEmpty, case .inet(let host, _)? = endpoint, !Self.isLoopback(host) {
                let message = "'\(host)' \(remark)"
                if isOpenToNetwork { reading.warn(node, key, message) } else { reading.fault(node, key, message) }
            }
            return endpoint
        }
    }

    /// An address to connect to, with `lmtp:` in front for LMTP: `lmtp:unix:/path`, and as in Postfix
    /// `lmtp:inet:address:port` or `lmtp:address:port`.
    static let nextHop = ValueType<Configuration.FilterListener.NextHop>(
        expected: "inet:address:port, unix:/path, or one of them with lmtp: in front",
        write: { hop in hop.variant == .lmtp ? "\"\(hop)\"" : filter.write(hop.endpoint) }
    ) { node, key, reading in
        guard case .scalar(let text) = node.value, text.hasPrefix("lmtp:") else {
            return filter.type.read(node, key, &reading).map { .init($0) }
        }
        let rest = String(text.dropFirst("lmtp:".count))
        let hasKind = rest.hasPrefix("inet:") || rest.hasPrefix("unix:")
        let type = ValueType<Endpoint>.text(expected, write: { _ in nil }) { _ in
            filter.parse(hasKind ? rest : "inet:\(rest)")
        }
        return type.read(node, key, &reading).map { .init($0, .lmtp) }
    }

    private func write(_ endpoint: Endpoint) -> String? {
        if case .unix(let path, let mode, let group) = endpoint, mode != self.mode || group != nil {
            let group = group.map { ", group: \($0)" } ?? ""
            return "{ unix: \(path), mode: \"0\(String(mode, radix: 8))\"\(group) }"
        }
        return "\"\(endpoint)\""
    }

    private func parse(_ text: String) -> Parsed<Endpoint> {
        if text.hasPrefix("unix:") {
            return Self.socketPath(text.dropFirst("unix:".count)).map { .unix(path: $0, mode: mode, group: nil) }
        }
        guard text.hasPrefix("inet:"), let colon = text.lastIndex(of: ":") else { return .isNot("an endpoint") }
        let portText = text[text.index(after: colon)...]
        let hostText = text[..<colon].dropFirst("inet:".count)
        guard !hostText.isEmpty else {
            let isPort = portText.allSatisfy { $0.isASCII && $0.isNumber }
            return .fault(
                isPort
                    ? "\(Spelling.quoted(text)) has no address; expected inet:address:\(portText)"
                    : "\(Spelling.quoted(text)) has no port; expected inet:\(portText):port")
        }
        guard let port = Int(portText), portText.first != "+", (1...65535).contains(port) else {
            return .fault("\(Spelling.quoted(String(portText))) is not a port; expected a number from 1 to 65535")
        }
        let isBracketed = hostText.first == "[" && hostText.last == "]"
        let host = isBracketed ? String(hostText.dropFirst().dropLast()) : String(hostText)
        guard host == "localhost" || IPAddress(host) != nil, isBracketed == host.contains(":") else {
            return .fault("\(Spelling.quoted(String(hostText))) \(fault(ofHost: host, isBracketed: isBracketed))")
        }
        return .value(.inet(host: host, port: port))
    }

    private func fault(ofHost host: String, isBracketed: Bool) -> String {
        if !isBracketed, IPAddress(host) != nil { return "needs brackets; expected [\(host)]" }
        let isName =
            host.contains(where: \.isLetter) && host.utf8.allSatisfy { $0.isAlphanumeric || ".-_".utf8.contains($0) }
        return "is \(isName ? "a name" : "not an address"); expected localhost or an IP address, such as 127.0.0.1 or "
            + "[::1]"
    }

    /// The path and its NUL must fit into `sun_path`, which has 108 bytes (unix(7)).
    private static func socketPath(_ text: some StringProtocol) -> Parsed<String> {
        guard let path = absolutePath(text) else {
            return .fault("\(Spelling.quoted(String(text))) is not an absolute path of a file")
        }
        guard path.utf8.count < 108 else {
            return .fault("the path has \(path.utf8.count) bytes; expected at most 107")
        }
        return .value(path)
    }

    package static func isLoopback(_ host: String) -> Bool {
        host == "localhost"
            || IPAddress(host).map { address in Network.loopback.contains { $0.contains(address) } } ?? false
    }

    // MARK: A socket as a map

    /// A UNIX socket while it is read.
    package struct Socket: Sendable {
        var path = ""
        var mode: UInt16
        var group: String?

        init(mode: UInt16) { self.mode = mode }
    }

    /// The keys of a socket that is written as a map.
    package var socketKeys: [ConfigurationKey<Socket>] {
        [
            .init(
                "unix", \.path, .text("an absolute path", write: { $0 }, parse: Self.socketPath),
                .isFault(example: "/run/weir/policy"), "Path of the socket."),
            .init(
                "mode", \.mode, Self.modeType, in: Socket(mode: mode),
                "Permissions of the socket file in octal digits; only users with write permission can connect."),
            .init(
                "group", \.group, Self.groupType, .isNothing(example: "weir"),
                "Group of the socket file; by default the group of the service."),
        ]
    }

    private func socket(
        _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading
    ) -> Endpoint? {
        var socket = Socket(mode: mode)
        _ = reading.read(node, at: key, rows: socketKeys, into: &socket)
        return .unix(path: socket.path, mode: socket.mode, group: socket.group)
    }

    private static let modeType = ValueType<UInt16>.text(
        "three octal digits, such as \"0660\"", write: { "\"0\(String($0, radix: 8))\"" }
    ) { text in
        guard (3...4).contains(text.utf8.count), text.utf8.count == 3 || text.first == "0",
            let mode = UInt16(text, radix: 8)
        else { return .isNot("a mode") }
        return .value(mode)
    }

    private static let groupType = ValueType<String?>.text("a group of this machine", write: { $0 }) { text in
        let isName = !text.isEmpty && !text.utf8.contains { $0 <= 0x20 || $0 == UInt8(ascii: ":") || $0 == 0x7f }
        return isName ? .value(text) : .isNot("the name of a group")
    }
}

extension Parsed {
    func map<Other>(_ transform: (Value) -> Other) -> Parsed<Other> {
        switch self {
        case .value(let value): .value(transform(value))
        case .fault(let message): .fault(message)
        case .isNot(let noun): .isNot(noun)
        }
    }
}
