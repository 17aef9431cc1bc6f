// SPDX-License-Identifier: Apache-2.0

/// A byte buffer that keeps its memory when it is emptied.
struct HeaderText: ~Copyable {
    private var memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    private(set) var count = 0

    deinit { memory.deallocate() }

    /// Valid until the next append.
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let first = bytes.baseAddress else { return }
        if memory.count - count < bytes.count { grow(bytes.count) }
        memory.baseAddress!.advanced(by: count).copyMemory(from: first, byteCount: bytes.count)
        count += bytes.count
    }

    mutating func append(_ byte: UInt8) {
        if memory.count == count { grow(1) }
        memory[count] = byte
        count += 1
    }

    mutating func removeAll() { count = 0 }

    private mutating func grow(_ more: Int) {
        let larger = UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(2 * memory.count, count + more, 1_024), alignment: 16)
        larger.copyMemory(from: bytes)
        memory.deallocate()
        memory = larger
    }
}
