// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Reads the lines of a log, plain or compressed, through a buffer of 256 KiB.
final class LogFile {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private let path: String
    private let handle: FileHandle
    /// gzip(1) or the like; nil for a plain file.
    private let unpacker: Process?
    private let packer: Packer?
    private var buffer: [UInt8]
    private var filled = 0
    /// Lines that are longer than the buffer are skipped.
    private var isInLongLine = false
    private(set) var longLines = 0

    private static let size = 1 << 18

    /// - Parameter path: `-` is standard input.
    init(path: String) throws(Failure) {
        self.path = path
        buffer = Array(repeating: 0, count: Self.size)
        guard path != "-" else {
            (handle, unpacker, packer) = (.standardInput, nil, nil)
            return
        }
        guard let file = FileHandle(forReadingAtPath: path) else {
            throw Failure(description: "can't read \(path): \(String(cString: strerror(errno)))")
        }
        guard Self.kind(of: path) != S_IFDIR else { throw Failure(description: "can't read \(path): Is a directory") }
        packer = Packer(of: file)
        guard let packer else {
            (handle, unpacker) = (file, nil)
            return
        }
        guard packer.isInstalled else { throw Failure(description: "can't read \(path): \(packer) is not installed") }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [packer.rawValue, "-dc"]
        process.standardInput = file
        process.standardError = FileHandle.nullDevice
        let pipe = Pipe()
        process.standardOutput = pipe
        do { try process.run() } catch {
            throw Failure(description: "can't run \(packer): \(error.localizedDescription)")
        }
        (handle, unpacker) = (pipe.fileHandleForReading, process)
    }

    /// Whether a file can be read only once: standard input, a pipe (`<(zcat mail.log.2.gz)`), a terminal.
    static func isReadOnce(_ path: String) -> Bool {
        path == "-" || ![nil, S_IFREG, S_IFDIR].contains(kind(of: path))
    }

    /// The file type bits of st_mode; nil if there is no such file.
    private static func kind(of path: String) -> mode_t? {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_mode & S_IFMT : nil
    }

    deinit {
        // The file may not have been read to its end.
        if let unpacker, unpacker.isRunning { kill(unpacker.processIdentifier, SIGKILL) }
    }

    /// Calls `body` with each line, without its newline, also with a last line that has none.
    ///
    /// - Parameter most: stops after about this many lines.
    /// - Throws: if the file can't be read to its end. `body` has been called with the lines before.
    func forEachLine(upTo most: Int = .max, _ body: (UnsafeRawBufferPointer) -> Void) throws {
        var lines = 0
        while case let count = try fill(), count > 0 {
            filled += count
            splitLines { line in
                lines += 1
                body(line)
            }
            if lines >= most { return }
        }
        if filled > 0, !isInLongLine {
            buffer.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[..<filled])) }
        }
        guard let unpacker else { return }
        unpacker.waitUntilExit()
        // Status 2 of gzip is a warning: trailing garbage.
        guard unpacker.terminationStatus == 0 || packer == .gzip && unpacker.terminationStatus == 2 else {
            throw Failure(description: "\(path) is truncated or damaged; only the part before was read")
        }
    }

    private func fill() throws -> Int {
        while true {
            let count = buffer.withUnsafeMutableBytes { bytes in
                read(handle.fileDescriptor, bytes.baseAddress! + filled, bytes.count - filled)
            }
            if count >= 0 { return count }
            guard errno == EINTR else {
                throw Failure(description: "can't read \(path): \(String(cString: strerror(errno)))")
            }
        }
    }

    private func splitLines(_ body: (UnsafeRawBufferPointer) -> Void) {
        let rest = buffer.withUnsafeBytes { bytes -> Range<Int> in
            let base = bytes.baseAddress!
            var start = 0
            while let found = memchr(base + start, 0x0a, filled - start) {
                let end = found - UnsafeMutableRawPointer(mutating: base)
                if !isInLongLine { body(UnsafeRawBufferPointer(rebasing: bytes[start..<end])) }
                isInLongLine = false
                start = end + 1
            }
            return start..<filled
        }
        if rest.count == buffer.count || isInLongLine {
            if !isInLongLine { longLines += 1 }
            isInLongLine = true
            filled = 0
        } else {
            buffer.withUnsafeMutableBytes {
                _ = memmove($0.baseAddress!, $0.baseAddress! + rest.lowerBound, rest.count)
            }
            filled = rest.count
        }
    }
}

/// A program that compresses logs; the name is that of its command.
private enum Packer: String, CaseIterable, CustomStringConvertible {
    case gzip, bzip2, xz, zstd, lz4

    /// The first bytes of its files.
    private var mark: [UInt8] {
        switch self {
        case .gzip: [0x1f, 0x8b]
        case .bzip2: Array("BZh".utf8)
        case .xz: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]
        case .zstd: [0x28, 0xb5, 0x2f, 0xfd]
        case .lz4: [0x04, 0x22, 0x4d, 0x18]
        }
    }

    /// Nil for a plain file.
    init?(of file: FileHandle) {
        var start: [UInt8] = Array(repeating: 0, count: 6)
        let count = max(0, pread(file.fileDescriptor, &start, start.count, 0))
        guard let packer = Self.allCases.first(where: { start[..<count].starts(with: $0.mark) }) else { return nil }
        self = packer
    }

    var isInstalled: Bool {
        let folders = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        return folders.split(separator: ":").contains { access("\($0)/\(rawValue)", X_OK) == 0 }
    }

    var description: String { "\(rawValue)(1)" }
}
