// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Bytes for standard output or standard error, written when it is full, on `flush` and at the end.
final class OutputStream {
    static let isTerminal = isatty(STDOUT_FILENO) == 1

    private let descriptor: Int32
    private var buffer: [UInt8] = []

    init(_ descriptor: Int32) { self.descriptor = descriptor }

    deinit { flush() }

    func write(_ bytes: some Sequence<UInt8>) {
        buffer += bytes
        if buffer.count >= 1 << 16 { flush() }
    }

    func write(line text: String) { write(Array(text.utf8) + [0x0a]) }

    /// What can't be written is lost: the reader has gone.
    func flush() {
        var written = 0
        while written < buffer.count {
            let count = buffer.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress! + written, $0.count - written)
            }
            if count < 0, errno == EINTR { continue }
            if count <= 0 { break }
            written += count
        }
        buffer.removeAll(keepingCapacity: true)
    }
}

/// The lines of standard input, without their newlines.
struct InputLines: Sequence, IteratorProtocol {
    private var buffer: [UInt8] = []
    private var start = 0
    private var isAtEnd = false

    mutating func next() -> [UInt8]? {
        while true {
            if let end = buffer[start...].firstIndex(of: 0x0a) {
                defer { start = end + 1 }
                return Array(buffer[start..<end])
            }
            if isAtEnd {
                defer { start = buffer.count }
                return start < buffer.count ? Array(buffer[start...]) : nil
            }
            fill()
        }
    }

    private mutating func fill() {
        buffer.removeFirst(start)
        start = 0
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        let count = read(STDIN_FILENO, &chunk, chunk.count)
        if count < 0, errno == EINTR { return }
        if count <= 0 { isAtEnd = true } else { buffer += chunk[..<count] }
    }
}
