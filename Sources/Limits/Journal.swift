// SPDX-License-Identifier: Apache-2.0

/// The kinds of journal entries. They are the effects of requests, not the requests: replay needs no limits' logic.
///
/// A batch is an anchor followed by entries to its end. Numbers are LEB128, signed ones zigzag-encoded.
enum JournalEntry: UInt8 {
    /// id, limit, key
    case account = 1
    /// id, request hash, `TransactionFlags`, [action], [recipient hash], then for each charge: account, amount, age in
    /// milliseconds; then 0
    case transaction = 2
    /// account, amount charged
    case refused = 3
    /// account, blocked until (0: not any more), 1 if by hand
    case blocked = 4
    /// Written by earlier versions: account, raised until, a count for each rate of the limit
    case raisedCounts = 5
    /// account
    case reset = 6
    /// account, raised until, rates
    case raised = 7
}

struct TransactionFlags: OptionSet {
    let rawValue: UInt64

    static let settled = TransactionFlags(rawValue: 1)
    /// An action follows.
    static let refused = TransactionFlags(rawValue: 2)
    /// A recipient hash follows.
    static let recipient = TransactionFlags(rawValue: 4)
    /// A connection replaces an earlier one with the same address and port.
    static let newConnection = TransactionFlags(rawValue: 8)
}

/// Appends numbers and bytes to a growing buffer.
///
/// `bytes` is valid for `capacity` bytes from init to deinit, and `count` of them are initialised. Only this value,
/// which can't be copied, has the pointer. An array would check for other owners at each byte.
struct JournalWriter: ~Copyable {
    private var bytes: UnsafeMutableRawPointer
    private var capacity = 1024
    private(set) var count = 0

    init() {
        bytes = .allocate(byteCount: capacity, alignment: 8)
    }

    deinit {
        bytes.deallocate()
    }

    var isEmpty: Bool { count == 0 }
    /// Valid until the next change.
    var content: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: bytes, count: count) }

    mutating func removeAll() {
        count = 0
    }

    mutating func write(_ entry: JournalEntry) {
        reserve(1)
        append(entry.rawValue)
    }

    mutating func write(_ value: UInt64) {
        reserve(10)
        var value = value
        while value >= 0x80 {
            append(UInt8(truncatingIfNeeded: value) | 0x80)
            value >>= 7
        }
        append(UInt8(truncatingIfNeeded: value))
    }

    mutating func write(signed value: Int64) {
        write(UInt64(bitPattern: value << 1 ^ value >> 63))
    }

    /// Eight bytes: LEB128 makes hashes longer.
    mutating func write(hash: UInt64) {
        reserve(8)
        bytes.storeBytes(of: hash.littleEndian, toByteOffset: count, as: UInt64.self)
        count &+= 8
    }

    mutating func write(_ field: [UInt8]) {
        write(UInt64(field.count))
        reserve(field.count)
        field.withUnsafeBytes {
            (bytes + count).copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(bytes), byteCount: $0.count)
        }
        count += field.count
    }

    private mutating func append(_ byte: UInt8) {
        bytes.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        count &+= 1
    }

    private mutating func reserve(_ more: Int) {
        guard count &+ more > capacity else { return }
        capacity = max(2 * capacity, count + more)
        let grown = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 8)
        grown.copyMemory(from: bytes, byteCount: count)
        bytes.deallocate()
        bytes = grown
    }
}

/// A batch, row or transaction holds bytes that no version of the ledger writes.
package struct JournalDamage: Error, Equatable, Sendable {
    package let offset: Int

    package init(offset: Int) {
        self.offset = offset
    }
}

/// Reads what `JournalWriter` wrote. Never reads beyond the end.
struct JournalReader {
    private let bytes: UnsafeRawBufferPointer
    private(set) var offset = 0

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    var isAtEnd: Bool { offset == bytes.count }

    mutating func readEntry() throws(JournalDamage) -> JournalEntry {
        guard let entry = JournalEntry(rawValue: try readByte()) else { throw JournalDamage(offset: offset - 1) }
        return entry
    }

    mutating func read() throws(JournalDamage) -> UInt64 {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 64, by: 7) {
            let byte = try readByte()
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
        }
        throw JournalDamage(offset: offset)
    }

    mutating func readSigned() throws(JournalDamage) -> Int64 {
        let value = try read()
        return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1)
    }

    /// A time up to `LedgerTime.largest`.
    mutating func readTime() throws(JournalDamage) -> LedgerTime {
        let milliseconds = try readSigned()
        guard 0...LedgerTime.largest.milliseconds ~= milliseconds else { throw JournalDamage(offset: offset) }
        return LedgerTime(milliseconds: milliseconds)
    }

    mutating func readAmount() throws(JournalDamage) -> UInt64 {
        let amount = try read()
        guard amount <= SlidingWindows.largestAmount else { throw JournalDamage(offset: offset) }
        return amount
    }

    mutating func readHash() throws(JournalDamage) -> UInt64 {
        guard bytes.count - offset >= 8 else { throw JournalDamage(offset: offset) }
        defer { offset += 8 }
        return UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    mutating func readField() throws(JournalDamage) -> [UInt8] {
        let count = try read()
        guard count <= UInt64(bytes.count - offset) else { throw JournalDamage(offset: offset) }
        defer { offset += Int(count) }
        return Array(bytes[offset..<offset + Int(count)])
    }

    private mutating func readByte() throws(JournalDamage) -> UInt8 {
        guard offset < bytes.count else { throw JournalDamage(offset: offset) }
        defer { offset += 1 }
        return bytes[offset]
    }
}
