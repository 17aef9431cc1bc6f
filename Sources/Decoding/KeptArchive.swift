// SPDX-License-Identifier: Apache-2.0

/// The bound on memory for the content of all messages.
package protocol SharedMemory: AnyObject, Sendable {
    /// Reserves bytes; false if there are not so many left.
    func reserveMemory(_ count: Int) -> Bool
    func release(memory count: Int)
}

/// The bytes of an archive, or its end: the directory is there.
final class KeptArchive {
    private(set) var bytes: [UInt8] = []
    /// Whether the beginning is left out.
    private(set) var isCut = false
    /// Whether there was no memory for more.
    private(set) var isRefused = false
    private let memory: (any SharedMemory)?
    private var reserved = 0

    /// All bytes are kept, or at least the last half of so many.
    private static let most = 4 << 20
    /// Small: a message of a few kilobytes may have a thousand parts that look like archives.
    private static let least = 1 << 10

    /// - Parameter memory: nil if it has no bound.
    init(_ memory: (any SharedMemory)?) { self.memory = memory }

    deinit { memory?.release(memory: reserved) }

    func append(_ piece: UnsafeRawBufferPointer) {
        var rest = piece[...]
        while !rest.isEmpty {
            if bytes.count == reserved { makeRoom() }
            guard bytes.count < reserved else { return }
            let taken = rest.prefix(reserved - bytes.count)
            bytes.append(contentsOf: taken)
            rest = rest.dropFirst(taken.count)
        }
    }

    private func makeRoom() {
        let more = max(reserved, Self.least)
        if reserved < Self.most, !isRefused {
            if memory?.reserveMemory(more) ?? true {
                reserved += more
                return bytes.reserveCapacity(reserved)
            }
            isRefused = true
        }
        isCut = true
        bytes.removeFirst(bytes.count - bytes.count / 2)
    }
}
