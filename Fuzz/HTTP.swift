// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import HummingbirdCore
internal import NIOCore
internal import NIOEmbedded
internal import NIOHTTP1
internal import Settings

extension Target {
    /// Requests to the admin listener. It is reached only under a name of this machine and with the token. What
    /// `weir limits` asks for is what the listener understands.
    ///
    /// The first byte is the size of the pieces in which the rest arrives.
    static let http = Target(name: "http") { input in
        var choices = Choices(input)
        let size = choices.size()
        let channel = EmbeddedChannel()
        defer { _ = try? channel.finish() }
        let decoder = ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes))
        precondition((try? channel.pipeline.syncOperations.addHandler(decoder)) != nil)
        for piece in pieces(choices.rest, of: size) {
            guard (try? channel.writeInbound(ByteBuffer(bytes: piece))) != nil else { break }
            while let part = try? channel.readInbound(as: HTTPServerRequestPart.self) {
                if case .head(let head) = part { check(head) }
            }
        }
        checkQuery(String(decoding: choices.rest, as: UTF8.self))
    }
}

private let token = "0123456789abcdef0123456789abcdef"

private func check(_ head: HTTPRequestHead) {
    let host = head.headers.first(name: "Host") ?? ""
    if AdminOrigin.isOwn(host: host) {
        // No other site can have such a name.
        let name = host.hasPrefix("[") ? host.dropFirst().prefix { $0 != "]" } : host.prefix { $0 != ":" }
        precondition(
            ["", "weir", "localhost"].contains(name.lowercased()) || name.contains { $0.isHexDigit },
            "\(host) is taken for this machine")
        precondition(!name.utf8.contains { $0 == 0x2f || $0 == 0x40 || $0 == 0x20 }, host)
    }
    let (origin, site) = (head.headers.first(name: "Origin"), head.headers.first(name: "Sec-Fetch-Site"))
    if AdminOrigin.isOwn(origin: origin, fetchSite: site, host: host) {
        precondition(origin.map { $0.utf8.elementsEqual("http://\(host)".utf8) } ?? true)
        precondition(site != "cross-site" && site != "same-site")
    }
    let given = head.headers.first(name: "Authorization") ?? ""
    precondition(AdminToken.isToken(token, in: given) == given.utf8.elementsEqual("Bearer \(token)".utf8))
    let uri = URI(head.uri)
    _ = uri.path
    let parameters = uri.queryParameters
    for name in ["key", "limit", "match", "state", "text", "token"] {
        if let text = parameters[name[...]] { checkQuery(String(text)) }
    }
}

/// The listener must read what `AdminClient` writes.
private func checkQuery(_ text: String) {
    let uri = AdminClient.uri("/limits/key", ["key": text, "limit": nil])
    precondition(uri.utf8.allSatisfy { 0x21...0x7e ~= $0 }, uri)
    let read = URI(uri)
    precondition(read.path == "/limits/key")
    precondition(read.queryParameters["key"].map { $0.utf8.elementsEqual(text.utf8) } ?? false, uri)
    precondition(read.queryParameters["limit"] == nil)
}
