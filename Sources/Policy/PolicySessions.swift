// SPDX-License-Identifier: Apache-2.0
package import Limits

/// The mail transactions that Postfix has asked the policy server about, by the client's connection. The milter gets
/// the same messages a moment later, and must not charge them again.
package struct PolicySessions {
    package struct Transaction: Equatable, Sendable {
        let instance: [UInt8]
        let sender: [UInt8]

        package init(instance: [UInt8], sender: [UInt8]) {
            self.instance = instance
            self.sender = sender
        }
    }

    private var recent: [[UInt8]: Transaction] = [:]
    private var older: [[UInt8]: Transaction] = [:]

    /// Twice as many connections are kept at most; beyond, the oldest are forgotten.
    private static let most = 32_768
    /// Bytes of key, instance and sender together. A longer transaction is not kept, so the milter charges it again.
    private static let longest = 1024

    package init() {}

    /// Notes the transaction of a request; does nothing if the request lacks the instance or the client's address or
    /// port.
    package mutating func note(_ request: Attributes) {
        guard !request.instance.isEmpty, !request.clientPort.isEmpty, !request.clientAddress.isEmpty else { return }
        let key = Self.key(address: request.clientAddress, port: request.clientPort)
        guard key.count + request.instance.count + request.sender.count <= Self.longest else { return forget(key) }
        if let known = recent[key], known.instance.elementsEqual(request.instance) { return }
        if recent.count >= Self.most {
            older = recent
            recent = [:]
        }
        recent[key] = Transaction(instance: Array(request.instance), sender: Array(request.sender))
    }

    /// The connection's transaction, if the policy server knows one with this sender.
    ///
    /// - Parameter sender: the internal form, as Postfix names it to the policy server.
    package func transaction(_ key: [UInt8], sender: ArraySlice<UInt8>) -> Transaction? {
        guard let known = recent[key] ?? older[key], known.sender[...] == sender else { return nil }
        return known
    }

    /// The message has ended.
    mutating func forget(_ key: [UInt8]) {
        recent[key] = nil
        older[key] = nil
    }

    @inlinable package static func key(address: some Sequence<UInt8>, port: some Sequence<UInt8>) -> [UInt8] {
        Array(address) + [0] + Array(port)
    }
}
