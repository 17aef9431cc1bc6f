// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

/// Something that reads what strangers write, and what it promises.
struct Target: Sendable {
    let name: String
    /// Reads one input. A broken promise traps.
    let run: @Sendable (UnsafeRawBufferPointer) -> Void

    static let all: [Target] = [
        .addresses, .admin, .administration, .archive, .configuration, .data, .decodedHeader, .decodedParts, .http,
        .importedLimits, .journal, .log, .milter, .policy, .postfix, .redisAnswer, .scanner, .smtpClient, .smtpServer,
        .sqlite, .table,
    ]
}

/// The first bytes of an input choose how the rest is read.
struct Choices {
    private(set) var rest: UnsafeRawBufferPointer

    init(_ input: UnsafeRawBufferPointer) { rest = input }

    /// 0 at the end of the input.
    mutating func byte() -> UInt8 {
        guard let first = rest.first else { return 0 }
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst())
        return first
    }

    /// The size of the pieces in which bytes arrive.
    mutating func size() -> Int { max(1, Int(byte())) }
}

/// The pieces of an input, in order.
func pieces(_ bytes: UnsafeRawBufferPointer, of size: Int) -> [UnsafeRawBufferPointer] {
    stride(from: 0, to: bytes.count, by: size).map { start in
        UnsafeRawBufferPointer(rebasing: bytes[start..<min(bytes.count, start + size)])
    }
}

/// Copies a piece to where a session receives bytes.
func received(_ piece: UnsafeRawBufferPointer) -> (UnsafeMutableRawBufferPointer) -> Int {
    { room in
        room.copyMemory(from: piece)
        return piece.count
    }
}

/// Lines that end in CRLF and have no other CR or LF.
func areWholeLines(_ bytes: some BidirectionalCollection<UInt8>) -> Bool {
    var previous: UInt8 = 0x0a
    for byte in bytes {
        if (byte == 0x0a) != (previous == 0x0d) { return false }
        previous = byte
    }
    return previous == 0x0a
}
