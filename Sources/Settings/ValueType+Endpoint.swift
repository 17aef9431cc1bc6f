// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Wire

/// Where a listener may be reached, and what holds for its socket's file where nothing is said.
package struct EndpointType: Sendable {
    var mode: UInt16
    /// Others than this machine may reach it; the operator is told all the same.
    var isOpenToNetwork: Bool
    /// What is said where they do; empty: nothing is.
    var remark: String

    /// Whom a filter lets in is said by its networks.
    package static let filter = EndpointType(mode: 0o660, isOpenToNetwork: true, remark: "")
    package static let policy = EndpointType(
        mode: 0o666, isOpenToNetwork: true,
        remark: "can be reached from other machines, and whoever reaches it can use up any sender's limit; "
            + "let a packet filter admit the Postfix hosts only")
    package static let milter = EndpointType(
        mode: 0o666, isOpenToNetwork: true,
        remark: "can be reached from other machines, and whoever reaches it can use up any sender's limit; "
            + "let a packet filter admit the MTAs only")
    package static let admin = EndpointType(
        mode: 0o660, isOpenToNetwork: false,
        remark: "can be reached from other machines; the admin listener takes 127.0.0.1, [::1] or a UNIX socket only")

    static let expected = "inet:address:port, unix:/path, or { unix: /path, mode: \"0660\", group: name }"

    var type: ValueType<Configuration.Endpoint> {
        ValueType(expected: Self.expected, write: write) { node, key, reading in
            let endpoint: Configuration.Endpoint?
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

    private func write(_ endpoint: Configuration.Endpoint) -> String? {
        if case .unix(let path, let mode, let group) = endpoint, mode != self.mode || group != nil {
            let group = group.map { ", group: \($0)" } ?? ""
            return "{ unix: \(path), mode: \"0\(String(mode, radix: 8))\"\(group) }"
        }
        return "\"\(endpoint)\""
    }

    private func parse(_ text: String) -> Parsed<Configuration.Endpoint> {
        if text.hasPrefix("unix:") {
            return Self.socketPath(text.dropFirst("unix:".count)).map { .unix(path: $0, mode: mode, group: nil) }
        }
        guard text.hasPrefix("inet:"), let colon = text.lastIndex(of: ":") else { return .no("endpoint") }
        let portText = text[text.index(after: colon)...]
        let hostText = text[..<colon].dropFirst("inet:".count)
        guard !hostText.isEmpty else {
            let isPort = portText.allSatisfy { $0.isASCII && $0.isNumber }
            return .fault(
                isPort
                    ? "\(Spelling.quoted(text)) names no address; write inet:127.0.0.1:\(portText)"
                    : "\(Spelling.quoted(text)) names no port; write inet:\(portText):10040")
        }
        guard let port = Int(portText), portText.first != "+", (1...65535).contains(port) else {
            return .fault("\(Spelling.quoted(String(portText))) is no port; expected a number from 1 to 65535")
        }
        let isBracketed = hostText.first == "[" && hostText.last == "]"
        let host = isBracketed ? String(hostText.dropFirst().dropLast()) : String(hostText)
        guard host == "localhost" || IPAddress(host) != nil, isBracketed == host.contains(":") else {
            return .fault(
                "\(Spelling.quoted(String(hostText))) is no address to listen on; expected 127.0.0.1, [::1], 0.0.0.0, [::] or one of this machine's own"
            )
        }
        return .value(.inet(host: host, port: port))
    }

    /// `sun_path` of Linux holds 108 bytes with the NUL.
    private static func socketPath(_ text: some StringProtocol) -> Parsed<String> {
        guard let path = absolutePath(text) else {
            return .fault("\(Spelling.quoted(String(text))) is no absolute path of a socket")
        }
        guard path.utf8.count < 108 else { return .fault("the path of a UNIX socket can't be longer than 107 bytes") }
        return .value(path)
    }

    package static func isLoopback(_ host: String) -> Bool {
        host == "localhost"
            || IPAddress(host).map { address in Network.loopback.contains { $0.contains(address) } } ?? false
    }

    // MARK: A socket as a map

    /// A UNIX socket as it is being read.
    package struct Socket: Sendable {
        var path = ""
        var mode: UInt16
        var group: String?

        init(mode: UInt16) { self.mode = mode }
    }

    /// The keys of a socket's map.
    package var socketKeys: [ConfigurationKey<Socket>] {
        [
            .init(
                "unix", \.path, .text("an absolute path", write: { $0 }, parse: Self.socketPath),
                .isFault(example: "/run/weir/policy"), "Where the socket's file is made."),
            .init(
                "mode", \.mode, Self.modeType, in: Socket(mode: mode),
                "Who may connect: the mode of the file, in octal digits."),
            .init(
                "group", \.group, Self.groupType, .isNothing(example: "weir"),
                "The group that the file is given to; without it, the service's own."),
        ]
    }

    private func socket(
        _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading
    ) -> Configuration.Endpoint? {
        var socket = Socket(mode: mode)
        _ = reading.read(node, at: key, rows: socketKeys, into: &socket)
        return .unix(path: socket.path, mode: socket.mode, group: socket.group)
    }

    private static let modeType = ValueType<UInt16>.text(
        "three octal digits, such as \"0660\"", write: { "\"0\(String($0, radix: 8))\"" }
    ) { text in
        guard (3...4).contains(text.utf8.count), text.utf8.count == 3 || text.first == "0",
            let mode = UInt16(text, radix: 8)
        else { return .no("mode") }
        return .value(mode)
    }

    private static let groupType = ValueType<String?>.text("a group of this machine", write: { $0 }) { text in
        let isName = !text.isEmpty && !text.utf8.contains { $0 <= 0x20 || $0 == UInt8(ascii: ":") || $0 == 0x7f }
        return isName ? .value(text) : .no("group")
    }
}

extension Parsed {
    func map<Other>(_ transform: (Value) -> Other) -> Parsed<Other> {
        switch self {
        case .value(let value): .value(transform(value))
        case .fault(let message): .fault(message)
        case .no(let noun): .no(noun)
        }
    }
}
