// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Foundation
import Glibc
import Testing

@Suite struct AdminTokenTests {
    private static func withFile(_ content: String, mode: mode_t, _ body: (String) throws -> Void) throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)").path
        try content.write(toFile: path, atomically: false, encoding: .utf8)
        defer { unlink(path) }
        chmod(path, mode)
        try body(path)
    }

    @Test func anEmptyFileIsReplaced() throws {
        try Self.withFile("", mode: 0o640) { path in
            let token = try AdminToken.readOrCreate(at: path)
            #expect(token.utf8.count == 64)
            #expect(try AdminToken.readOrCreate(at: path) == token)
        }
    }

    @Test func aShortTokenIsRejected() throws {
        try Self.withFile("x", mode: 0o640) { path in
            #expect(throws: AdminToken.Failure.self) { try AdminToken.readOrCreate(at: path) }
        }
    }

    @Test func aTokenThatEveryUserCanReadIsRejected() throws {
        try Self.withFile(String(repeating: "x", count: 64), mode: 0o644) { path in
            #expect(throws: AdminToken.Failure.self) { try AdminToken.readOrCreate(at: path) }
        }
    }
}
