// SPDX-License-Identifier: Apache-2.0
import Glibc

/// A message to check, and its name in the report.
struct MessageFile {
    let name: String
    let content: [UInt8]
}

/// Why a file or folder could not be read.
struct MessageFileFault: Error, CustomStringConvertible {
    let path: [UInt8]
    let code: Int32

    var description: String { "\(String(decoding: path, as: UTF8.self)): \(String(cString: strerror(code)))" }
}

/// Finds and reads messages in files, mbox files, Maildirs and directories. Paths are bytes, as in the file system.
enum MessageFiles {
    /// The files of an argument: the file itself, all files below a directory, or the messages of a Maildir and its
    /// subfolders.
    static func expand(_ path: [UInt8], faults: inout [MessageFileFault]) -> [[UInt8]] {
        if path == standardInput { return [path] }
        switch kind(path) {
        case S_IFDIR: return folder(path, isTop: true, &faults)
        case nil: faults.append(MessageFileFault(path: path, code: errno))
        default: return [path]
        }
        return []
    }

    private static let standardInput: [UInt8] = [UInt8(ascii: "-")]

    private static func folder(_ path: [UInt8], isTop: Bool, _ faults: inout [MessageFileFault]) -> [[UInt8]] {
        var files: [[UInt8]] = []
        if isMaildir(path) {
            let dotFolders = entries(path, &faults).filter { $0.first == UInt8(ascii: ".") }.map { join(path, $0) }
            for folder in [path] + dotFolders.filter(isMaildir) {
                for part in ["cur", "new"] { files += all(in: join(folder, Array(part.utf8)), isTop: false, &faults) }
            }
            return files
        }
        return all(in: path, isTop: isTop, &faults)
    }

    /// The files in a directory that is not a Maildir, except hidden ones, and except `tmp` at the top, which holds
    /// mail that is not delivered yet.
    private static func all(in path: [UInt8], isTop: Bool, _ faults: inout [MessageFileFault]) -> [[UInt8]] {
        var files: [[UInt8]] = []
        for name in entries(path, &faults)
        where name.first != UInt8(ascii: ".") && !(isTop && name.elementsEqual("tmp".utf8)) {
            let file = join(path, name)
            if kind(file, followsLinks: false) == S_IFDIR {
                files += folder(file, isTop: false, &faults)
            } else if kind(file) == S_IFREG {
                files.append(file)
            }
        }
        return files
    }

    private static func isMaildir(_ path: [UInt8]) -> Bool {
        ["cur", "new"].allSatisfy { kind(join(path, Array($0.utf8))) == S_IFDIR }
    }

    private static func join(_ folder: [UInt8], _ name: [UInt8]) -> [UInt8] { folder + [UInt8(ascii: "/")] + name }

    /// The file type bits; nil if the file doesn't exist.
    private static func kind(_ path: [UInt8], followsLinks: Bool = true) -> mode_t? {
        var status = stat()
        let code = withCString(path) { followsLinks ? stat($0, &status) : lstat($0, &status) }
        return code == 0 ? status.st_mode & S_IFMT : nil
    }

    /// The sorted names in a directory.
    private static func entries(_ path: [UInt8], _ faults: inout [MessageFileFault]) -> [[UInt8]] {
        guard let stream = withCString(path, opendir) else {
            faults.append(MessageFileFault(path: path, code: errno))
            return []
        }
        defer { closedir(stream) }
        var names: [[UInt8]] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            if !name.elementsEqual(".".utf8), !name.elementsEqual("..".utf8) { names.append(name) }
        }
        return names.sorted { $0.lexicographicallyPrecedes($1) }
    }

    private static func withCString<Result>(_ path: [UInt8], _ body: (UnsafePointer<CChar>) -> Result) -> Result {
        (path + [0]).withUnsafeBytes { body($0.baseAddress!.assumingMemoryBound(to: CChar.self)) }
    }

    /// The content of a directory's files with these names, by name.
    static func contents(of folder: [UInt8], where isWanted: ([UInt8]) -> Bool) throws(MessageFileFault) -> [[UInt8]] {
        var faults: [MessageFileFault] = []
        let names = entries(folder, &faults).filter(isWanted)
        if let fault = faults.first { throw fault }
        var contents: [[UInt8]] = []
        for name in names { contents.append(try read(join(folder, name))) }
        return contents
    }

    /// The messages of one file: many when it is an mbox, which begins with `From `.
    static func forEachMessage(in path: [UInt8], _ body: (MessageFile) throws -> Void) throws {
        let content = try read(path)
        let name = String(decoding: path, as: UTF8.self)
        let starts = mboxStarts(content)
        if starts.isEmpty { try body(MessageFile(name: name, content: content)) }
        for (number, start) in starts.enumerated() {
            let message = content[start..<(number + 1 < starts.count ? starts[number + 1] : content.endIndex)]
            let firstLine = message.firstIndex(of: 0x0a).map { $0 + 1 } ?? message.endIndex
            try body(MessageFile(name: "\(name):\(number + 1)", content: Array(message[firstLine...])))
        }
    }

    private static func read(_ path: [UInt8]) throws(MessageFileFault) -> [UInt8] {
        let descriptor = path == standardInput ? STDIN_FILENO : withCString(path) { open($0, O_RDONLY | O_CLOEXEC) }
        guard descriptor >= 0 else { throw MessageFileFault(path: path, code: errno) }
        defer { if descriptor != STDIN_FILENO { close(descriptor) } }
        var content: [UInt8] = []
        var status = stat()
        if fstat(descriptor, &status) == 0 { content.reserveCapacity(Int(status.st_size)) }
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw MessageFileFault(path: path, code: errno) }
            if count == 0 { return content }
            content += chunk[..<count]
        }
    }

    /// The offsets where messages of an mbox start: `From ` at the start of the file or after an empty line.
    private static func mboxStarts(_ content: [UInt8]) -> [Int] {
        content.withUnsafeBytes { bytes in
            func isMark(_ start: Int) -> Bool { bytes[start...].starts(with: "From ".utf8) }
            guard let base = bytes.baseAddress, isMark(0) else { return [] }
            var starts = [0]
            var line = 0
            while line < bytes.count, let newline = memchr(base + line, 0x0a, bytes.count - line) {
                let end = UnsafeRawPointer(newline) - base
                let isEmpty = end == line || end == line + 1 && bytes[line] == 0x0d
                line = end + 1
                if isEmpty, isMark(line) { starts.append(line) }
            }
            return starts
        }
    }
}
