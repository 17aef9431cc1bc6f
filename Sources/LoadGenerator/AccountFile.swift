// SPDX-License-Identifier: Apache-2.0
import Glibc

/// A file with a line per answered policy request: `instance sender state word`, where `word` starts the action.
final class AccountFile {
    private let file: UnsafeMutablePointer<FILE>
    private let path: String
    private var line: [UInt8] = []

    init(path: String) throws {
        guard let file = fopen(path, "a") else {
            throw LoadError.account(path: path, reason: String(cString: strerror(errno)))
        }
        self.file = file
        self.path = path
    }

    deinit {
        fclose(file)
    }

    func append(_ request: PolicyRequest, word: Span<UInt8>) {
        line.removeAll(keepingCapacity: true)
        request.instance.write(to: &line)
        line.append(" ")
        request.writeSender(to: &line)
        line.append(" ")
        line.append(contentsOf: request.state.rawValue.utf8)
        line.append(" ")
        for index in word.indices { line.append(word[index]) }
        line.append("\n")
        // Buffered by stdio. A failure sets ferror(3), which save() reports.
        fwrite(line, 1, line.count, file)
    }

    func save() throws {
        guard fflush(file) == 0, ferror(file) == 0 else {
            throw LoadError.account(path: path, reason: String(cString: strerror(errno)))
        }
    }
}
