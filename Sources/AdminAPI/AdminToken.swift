// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc
internal import Settings

/// The token for an admin listener on a loopback port: a file that only the service's user and group can read.
package enum AdminToken {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    /// - Throws: `Failure`.
    package static func readOrCreate(at path: String) throws -> String {
        if let token = read(at: path) {
            try check(token, at: path)
            return token
        }
        // An empty file is what remains of a start on a full disk.
        if isEmptyFile(path) { unlink(path) }
        let token = (0..<32).map { _ in
            let byte = UInt8.random(in: 0...255)
            return (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }.joined()
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else {
            throw Failure(description: "can't create \(path): \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        fchmod(descriptor, 0o640)
        let written = Array(token.utf8).withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        guard written == token.utf8.count else {
            let reason = written < 0 ? String(cString: strerror(errno)) : "only \(written) bytes were written"
            // The next start would take a partial file for the token.
            unlink(path)
            throw Failure(description: "can't write \(path): \(reason)")
        }
        return token
    }

    /// Rejects a token that can be guessed, or that every local user can read or replace.
    private static func check(_ token: String, at path: String) throws {
        let remedy = "delete it, and the next start makes a new one"
        guard token.utf8.count >= shortest else {
            throw Failure(description: "the token in \(path) has fewer than \(shortest) characters: \(remedy)")
        }
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & 0o007 == 0 else {
            throw Failure(description: "every local user has access to \(path): \(remedy)")
        }
    }

    /// The least length of a token, in characters.
    private static let shortest = 32

    private static func isEmptyFile(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && status.st_size == 0
    }

    /// - Parameter authorization: the value of `Authorization`.
    package static func isToken(_ token: String, in authorization: String) -> Bool {
        let (given, expected) = (Array(authorization.utf8), Array("Bearer \(token)".utf8))
        // Compares all bytes: the time must not depend on where they differ.
        let difference = zip(given, expected).reduce(UInt8(given.count == expected.count ? 0 : 1)) {
            $0 | ($1.0 ^ $1.1)
        }
        return difference == 0
    }

    static func read(at path: String) -> String? {
        guard let content = FileManager.default.contents(atPath: path), !content.isEmpty else { return nil }
        return String(decoding: content, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }
}

extension Configuration {
    /// Beside the ledger, where only the service's user can write.
    package var adminTokenPath: String {
        let path = ledger.store.path
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
        return folder + "admin-token"
    }
}
