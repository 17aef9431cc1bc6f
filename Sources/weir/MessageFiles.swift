// SPDX-License-Identifier: Apache-2.0
import Foundation
import Rules

/// A message to be checked, and what to call it.
struct MessageFile {
    let name: String
    let content: [UInt8]
}

/// The messages of files, mbox files, Maildirs and folders, one after the other.
enum MessageFiles {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// The files behind the arguments; a folder stands for all that is in it, Maildir or not.
    static func expand(_ paths: [String]) throws -> [String] {
        var files: [String] = []
        for path in paths {
            guard access(path, R_OK) == 0 else {
                throw Failure(description: "can't read \(printable(path.utf8)): \(String(cString: strerror(errno)))")
            }
            var isDirectory: ObjCBool = false
            _ = FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory)
            files += isDirectory.boolValue ? folder(path) : [path]
        }
        return files
    }

    private static func folder(_ path: String) -> [String] {
        // tmp holds what is not delivered yet.
        let names = FileManager.default.subpaths(atPath: path) ?? []
        return names.sorted().filter { name in
            let parts = name.split(separator: "/")
            return parts.first != "tmp" && !parts.contains { $0.hasPrefix(".") }
        }.map { "\(path)/\($0)" }.filter { file in
            var isDirectory: ObjCBool = false
            return FileManager.default.fileExists(atPath: file, isDirectory: &isDirectory)
                && !isDirectory.boolValue
        }
    }

    /// The messages of one file: many when it is an mbox, which begins with `From `.
    static func messages(in path: String) throws -> [MessageFile] {
        let data = try Data(contentsOf: URL(fileURLWithPath: path), options: .mappedIfSafe)
        let starts = mboxStarts(data)
        guard !starts.isEmpty else { return [MessageFile(name: path, content: Array(data))] }
        return starts.enumerated().map { number, start in
            let end = number + 1 < starts.count ? starts[number + 1] : data.endIndex
            let body = data[start..<end]
            let firstLine = body.firstIndex(of: 0x0a).map { $0 + 1 } ?? end
            return MessageFile(name: "\(path):\(number + 1)", content: Array(body[firstLine...]))
        }
    }

    /// Where lines stand that begin a message of an mbox: `From ` at the start or behind an
    /// empty line.
    private static func mboxStarts(_ data: Data) -> [Int] {
        let mark = Data("From ".utf8)
        guard data.starts(with: mark) else { return [] }
        var starts = [data.startIndex]
        var position = data.startIndex
        let separator = Data("\n\nFrom ".utf8)
        while let found = data.range(of: separator, in: position..<data.endIndex) {
            starts.append(found.lowerBound + 2)
            position = found.upperBound
        }
        return starts
    }
}
