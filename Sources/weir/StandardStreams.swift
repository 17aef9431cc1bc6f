// SPDX-License-Identifier: Apache-2.0
import Glibc
import Synchronization

/// Standard error, unbuffered.
enum StandardError {
    static func write(_ bytes: [UInt8]) {
        // If this fails, the error can't be reported anywhere.
        _ = writeAll(bytes, to: STDERR_FILENO)
    }

    static func write(_ text: String) { write(Array(text.utf8)) }

    /// Writes `weir COMMAND: TEXT` on a line.
    static func complain(_ text: String, by command: String) { write("weir \(command): \(text)\n") }
}

/// Standard output, buffered: `flush` writes the rest, also when the process ends.
enum StandardOutput {
    /// A write failed.
    struct Failure: Error, CustomStringConvertible {
        fileprivate let code: Int32

        /// The reader closed the pipe.
        var isBrokenPipe: Bool { code == EPIPE }

        var description: String { "can't write to standard output: \(String(cString: strerror(code)))" }
    }

    private static let buffer = Mutex<[UInt8]>([])
    private static let bufferSize = 1 << 16

    static func write(_ bytes: [UInt8]) throws(Failure) {
        let isFull = buffer.withLock { buffer in
            buffer += bytes
            return buffer.count >= bufferSize
        }
        if isFull { try flush() }
    }

    static func write(_ text: String) throws(Failure) { try write(Array(text.utf8)) }

    static func write(line text: String) throws(Failure) { try write(Array(text.utf8) + [0x0a]) }

    static func flush() throws(Failure) {
        let bytes = buffer.withLock { buffer in
            defer { buffer = [] }
            return buffer
        }
        let code = writeAll(bytes, to: STDOUT_FILENO)
        guard code == 0 else { throw Failure(code: code) }
    }
}

/// - Returns: 0 or an errno.
func writeAll(_ bytes: [UInt8], to descriptor: Int32) -> Int32 {
    var rest = bytes[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return errno }
        rest = rest.dropFirst(count)
    }
    return 0
}

/// The terminal behind a file descriptor.
enum Terminal {
    /// False for a file or pipe, with `NO_COLOR` (no-color.org), and with `TERM=dumb`.
    static func takesColour(_ descriptor: Int32) -> Bool {
        movesCursor(descriptor) && (variable("NO_COLOR") ?? "").isEmpty
    }

    /// False for a file or pipe, and with `TERM=dumb`.
    static func movesCursor(_ descriptor: Int32) -> Bool {
        isatty(descriptor) == 1 && variable("TERM") != "dumb"
    }

    /// 80 columns and 24 rows where the size is unknown.
    static func size(_ descriptor: Int32) -> (columns: Int, rows: Int) {
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    private static func variable(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }
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
