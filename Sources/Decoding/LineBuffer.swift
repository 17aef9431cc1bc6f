// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// Lines of decoded text. Unlike an array, it takes bytes that are written where they belong, and blocks of them that
/// go beyond what counts.
struct LineBuffer: ~Copyable {
    /// Bytes that may be written beyond what `place` was asked for.
    static let margin = 64

    private var start: UnsafeMutablePointer<UInt8>
    private var capacity: Int
    private(set) var count = 0

    /// - Parameter capacity: bytes that are there from the beginning.
    init(capacity: Int) {
        self.capacity = capacity + Self.margin
        start = .allocate(capacity: self.capacity)
    }

    deinit { start.deallocate() }

    var isEmpty: Bool { count == 0 }

    /// Valid until the next change.
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: start, count: count) }

    /// Where the next bytes go. There is room for `room` of them, and for the margin.
    @inline(__always)
    mutating func place(for room: Int) -> UnsafeMutablePointer<UInt8> {
        if capacity - count < room + Self.margin { grow(by: room) }
        return start + count
    }

    private mutating func grow(by room: Int) {
        capacity = max(2 * capacity, count + room + Self.margin)
        let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
        memcpy(larger, start, count)
        start.deallocate()
        start = larger
    }

    /// Takes `length` bytes that were written at `place`.
    @inline(__always)
    mutating func take(_ length: Int) { count += length }

    mutating func append(_ byte: UInt8) {
        place(for: 1).pointee = byte
        count += 1
    }

    mutating func append(_ text: UnsafeBufferPointer<UInt8>) {
        guard let source = text.baseAddress else { return }
        memcpy(place(for: text.count), source, text.count)
        count += text.count
    }

    mutating func append(_ text: [UInt8]) { text.withUnsafeBufferPointer { append($0) } }

    /// Keeps its memory.
    mutating func removeAll() { count = 0 }
}
