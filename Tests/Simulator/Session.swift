// SPDX-License-Identifier: Apache-2.0
import Glibc

/// An SMTP client and the smtpd process that serves it.
struct Session {
    /// Counts the connections of all clients: determines addresses and ports.
    var connection: Int
    var generation: Int
    /// The policy connection of the smtpd, and its number; -1 without one.
    var descriptor: Int32 = -1
    var policyConnection = 0
    /// The number of the connection's messages so far.
    var messages = 0
    var isInMessage = false
    /// Whether DATA has been accepted: no recipient can follow.
    var hasData = false
    var messageBegan: Int64 = 0
    var accepted: [String] = []
    /// The request that was sent last, and when.
    var last: Request?
    var lastAsked: Int64 = 0
    var began: Int64 = 0
    var isWaiting = false
    /// Whether the recipient of the request in flight will be rejected by Postfix.
    var rejects = false

    init(connection: Int, generation: Int) {
        self.connection = connection
        self.generation = generation
    }

    private func key(_ attribute: KeyAttribute, _ choice: Int) -> String {
        Population.key(attribute, generation * Population.perGeneration + choice % Population.perGeneration)
    }

    /// A request of this client.
    mutating func request(_ ask: Ask) -> Request? {
        var request = Request(
            state: .helo, instance: "", sender: key(.sender, connection / 2),
            user: connection % 4 == 3 ? "" : key(.user, connection), client: key(.client, connection / 3),
            port: 1024 + connection, context: Self.contexts[connection % 3])
        switch ask {
        case .helo: return isInMessage ? nil : request
        case .again: return last
        case .elsewhere:
            guard var request = last, request.state.isOfMessage else { return nil }
            request.context = request.context == "a" ? "b" : "a"
            return request
        case .recipient(let number, let isRejected):
            if !isInMessage {
                (isInMessage, hasData, accepted) = (true, false, [])
                messages += 1
            }
            if hasData { return nil }
            rejects = isRejected
            request.state = .rcpt
            request.recipient = key(.recipient, number)
            // Every second message declares its size.
            request.size = messages % 2 == 0 ? size - 100 : 0
        case .data, .end:
            guard isInMessage, !accepted.isEmpty else { return nil }
            request.state = ask == .data ? .data : .end
            request.recipient = accepted.count == 1 ? accepted[0] : ""
            request.recipientCount = accepted.count
            request.size = ask == .end ? size : messages % 2 == 0 ? size - 100 : 0
        }
        request.instance = "c\(connection).m.\(messages - 1)"
        return request
    }

    private static let contexts = ["", "a", "b"]

    private var size: Int { 300 + (connection * 37 + messages * 411) % 1700 }

    /// The answer to the last request has arrived.
    mutating func note(_ action: String) {
        isWaiting = false
        guard let last else { return }
        let passes = action == "DUNNO" || action.hasPrefix("WARN")
        switch last.state {
        case .helo: break
        case .rcpt:
            if !passes {
                accepted.removeAll { $0 == last.recipient }
            } else if !rejects, isInMessage, !accepted.contains(last.recipient) {
                accepted.append(last.recipient)
            }
        case .data: if passes { hasData = true } else { isInMessage = false }
        case .end: isInMessage = false
        }
    }

    /// The client of another connection.
    mutating func renew(connection: Int, generation: Int) {
        let (descriptor, policyConnection) = (descriptor, policyConnection)
        self = Session(connection: connection, generation: generation)
        (self.descriptor, self.policyConnection) = (descriptor, policyConnection)
    }
}

/// The socket of a policy client.
enum PolicySocket {
    static func connect(to path: String) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        precondition(descriptor >= 0 && code == 0, "can't connect to \(path)")
        return descriptor
    }

    static func close(_ descriptor: Int32) { Glibc.close(descriptor) }

    static func send(_ text: String, to descriptor: Int32) {
        let bytes = Array(text.utf8)
        _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// The action of a reply that has arrived; nil if there is none.
    static func receive(from descriptor: Int32) -> String? {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        guard count > 0 else { return nil }
        let text = String(decoding: bytes[..<count], as: UTF8.self)
        return text.hasPrefix("action=") && text.hasSuffix("\n\n") ? String(text.dropFirst(7).dropLast(2)) : text
    }
}
