// SPDX-License-Identifier: Apache-2.0
package import Limits
internal import MailSyntax

/// The mail transactions that Postfix has asked the policy server about, by the client's connection. The milter gets
/// the same messages a moment later, and must not charge them again.
///
/// Every policy request is noted here, so noting one allocates no memory. Two generations share the work: when the
/// recent one is full, it becomes the older one, and what the older one held is forgotten.
package struct PolicySessions {
    package struct Transaction: Equatable, Sendable {
        let instance: [UInt8]
        let sender: [UInt8]

        /// Whether the last request was DATA or END-OF-MESSAGE. A recipient after that is of another message.
        let isComplete: Bool

        package init(instance: [UInt8], sender: [UInt8], isComplete: Bool = false) {
            self.instance = instance
            self.sender = sender
            self.isComplete = isComplete
        }
    }

    private var recent = Generation()
    private var older = Generation()
    private let hashKey = SipHash.Key(low: .random(in: 0 ... .max), high: .random(in: 0 ... .max))

    /// Bytes of key, instance and sender together. A longer transaction is not kept, so the milter charges it again.
    private static let longest = 1024

    package init() {}

    /// Notes the transaction of a request; does nothing if the request lacks the instance or the client's address or
    /// port.
    package mutating func note(_ request: Attributes) {
        let (address, port, instance) = (request.clientAddress, request.clientPort, request.instance)
        guard !instance.isEmpty, !port.isEmpty, !address.isEmpty else { return }
        // The same bytes as `key(address:port:)`.
        withUnsafeTemporaryAllocation(byteCount: Self.longest, alignment: 1) { room in
            let length = address.count + 1 + port.count
            guard length <= Self.longest else { return }
            room.copyMemory(from: address)
            room[address.count] = 0
            UnsafeMutableRawBufferPointer(rebasing: room[(address.count + 1)...]).copyMemory(from: port)
            let state = ProtocolState(request.protocolState)
            note(
                UnsafeRawBufferPointer(rebasing: room[..<length]), instance, request.sender,
                isComplete: state == .data || state == .endOfMessage)
        }
    }

    private mutating func note(
        _ key: UnsafeRawBufferPointer, _ instance: UnsafeRawBufferPointer, _ sender: UnsafeRawBufferPointer,
        isComplete: Bool
    ) {
        let hash = hash(key)
        guard key.count + instance.count + sender.count <= Self.longest else { return forget(key, hash) }
        if recent.holds(key, hash, instance, isComplete: isComplete) { return }
        if recent.isFull {
            swap(&recent, &older)
            recent.removeAll()
        }
        recent.insert(key, hash, instance, sender, isComplete: isComplete)
    }

    /// The connection's transaction, if the policy server knows one with this sender.
    ///
    /// - Parameter sender: the internal form, as Postfix names it to the policy server, in any case: for its own
    ///   `address_verify_sender`, Postfix uses the case of main.cf there.
    package func transaction(_ key: [UInt8], sender: ArraySlice<UInt8>) -> Transaction? {
        let known = key.withUnsafeBytes { key in
            let hash = hash(key)
            return recent.transaction(key, hash) ?? older.transaction(key, hash)
        }
        guard let known, EnvelopeAddress.isSame(known.sender[...], sender) else { return nil }
        return known
    }

    /// The message has ended.
    package mutating func forget(_ key: [UInt8]) {
        key.withUnsafeBytes { forget($0, hash($0)) }
    }

    private mutating func forget(_ key: UnsafeRawBufferPointer, _ hash: UInt64) {
        recent.forget(key, hash)
        older.forget(key, hash)
    }

    @inlinable package static func key(address: some Sequence<UInt8>, port: some Sequence<UInt8>) -> [UInt8] {
        Array(address) + [0] + Array(port)
    }

    private func hash(_ key: UnsafeRawBufferPointer) -> UInt64 {
        var hash = SipHash(key: hashKey)
        hash.combine(key)
        return hash.finalize()
    }
}

/// Sessions with their last transactions: records in one buffer, and a hash table of their places (open addressing). A
/// newer record of a session replaces its place in the table; the old bytes stay until the generation is cleared.
private struct Generation {
    /// One session: its key, instance and sender follow each other from `start` in `bytes`.
    private struct Record {
        let hash: UInt64
        let start: Int
        let keyLength: UInt16
        let instanceLength: UInt16
        let senderLength: UInt16
        /// All recipients of the message are known: the last request was DATA or END-OF-MESSAGE.
        var isComplete: Bool
        /// The message has ended.
        var isForgotten = false

        var key: Range<Int> { start..<start + Int(keyLength) }
        var instance: Range<Int> { key.upperBound..<key.upperBound + Int(instanceLength) }
        var sender: Range<Int> { instance.upperBound..<instance.upperBound + Int(senderLength) }
    }

    private var records: [Record] = []
    private var bytes: [UInt8] = []
    /// For each slot the index of a record, plus 1; 0 if the slot is free.
    private var slots: [UInt16] = []

    private static let mostRecords = 32_768
    private static let mostBytes = 8 << 20
    private static let slotCount = 65_536

    var isFull: Bool { records.count >= Self.mostRecords || bytes.count >= Self.mostBytes }

    mutating func removeAll() {
        records.removeAll(keepingCapacity: true)
        bytes.removeAll(keepingCapacity: true)
        for slot in slots.indices { slots[slot] = 0 }
    }

    /// Whether this instance is the session's last transaction; notes whether it is complete now.
    mutating func holds(
        _ key: UnsafeRawBufferPointer, _ hash: UInt64, _ instance: UnsafeRawBufferPointer, isComplete: Bool
    ) -> Bool {
        guard !slots.isEmpty else { return false }
        let index = Int(slots[slot(of: key, hash)]) - 1
        guard index >= 0, !records[index].isForgotten, bytes[records[index].instance].elementsEqual(instance)
        else { return false }
        records[index].isComplete = isComplete
        return true
    }

    func transaction(_ key: UnsafeRawBufferPointer, _ hash: UInt64) -> PolicySessions.Transaction? {
        guard let record = record(key, hash), !record.isForgotten else { return nil }
        return PolicySessions.Transaction(
            instance: Array(bytes[record.instance]), sender: Array(bytes[record.sender]),
            isComplete: record.isComplete)
    }

    mutating func insert(
        _ key: UnsafeRawBufferPointer, _ hash: UInt64, _ instance: UnsafeRawBufferPointer,
        _ sender: UnsafeRawBufferPointer, isComplete: Bool
    ) {
        if slots.isEmpty { slots = Array(repeating: 0, count: Self.slotCount) }
        let slot = slot(of: key, hash)
        records.append(
            Record(
                hash: hash, start: bytes.count, keyLength: UInt16(key.count), instanceLength: UInt16(instance.count),
                senderLength: UInt16(sender.count), isComplete: isComplete))
        bytes.append(contentsOf: key)
        bytes.append(contentsOf: instance)
        bytes.append(contentsOf: sender)
        slots[slot] = UInt16(records.count)
    }

    mutating func forget(_ key: UnsafeRawBufferPointer, _ hash: UInt64) {
        guard !slots.isEmpty else { return }
        let index = Int(slots[slot(of: key, hash)])
        if index > 0 { records[index - 1].isForgotten = true }
    }

    private func record(_ key: UnsafeRawBufferPointer, _ hash: UInt64) -> Record? {
        guard !slots.isEmpty else { return nil }
        let index = Int(slots[slot(of: key, hash)])
        return index > 0 ? records[index - 1] : nil
    }

    /// The slot of a session, or the free slot where it belongs. At most half of the slots are in use.
    private func slot(of key: UnsafeRawBufferPointer, _ hash: UInt64) -> Int {
        var slot = Int(truncatingIfNeeded: hash) & (Self.slotCount - 1)
        while slots[slot] != 0 {
            let record = records[Int(slots[slot]) - 1]
            if record.hash == hash, bytes[record.key].elementsEqual(key) { break }
            slot = (slot + 1) & (Self.slotCount - 1)
        }
        return slot
    }
}
