// SPDX-License-Identifier: Apache-2.0
import Glibc
import NIOCore

/// A file that says of each answered policy request what it was and what came back: `instance sender state word`.
final class AccountFile {
    private let file: UnsafeMutablePointer<FILE>
    private let path: String
    private var line = ByteBuffer()

    init(path: String) throws {
        guard let file = fopen(path, "a") else { throw LoadError.account(path: path, reason: String(cString: strerror(errno))) }
        self.file = file
        self.path = path
    }

    deinit {
        fclose(file)
    }

    func append(_ request: PolicyRequest, word: Span<UInt8>) {
        line.clear()
        request.instance.write(into: &line)
        line.writeStaticString(" ")
        request.writeSender(into: &line)
        line.writeStaticString(" ")
        line.writeString(request.state.rawValue)
        line.writeStaticString(" ")
        line.writeBytes(word.bytes)
        line.writeStaticString("\n")
        // stdio has its own buffer; fwrite remembers a failure, which save() reports.
        line.withUnsafeReadableBytes { _ = fwrite($0.baseAddress, 1, $0.count, file) }
    }

    func save() throws {
        guard fflush(file) == 0, ferror(file) == 0 else { throw LoadError.account(path: path, reason: String(cString: strerror(errno))) }
    }
}
