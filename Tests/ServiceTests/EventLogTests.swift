// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
import NIOCore
import Report
import Settings
import Testing

@Suite struct EventLogTests {
    /// Lines of 1 MiB to a pipe that nobody reads yet: most are dropped, and the log says so.
    @Test func longLinesThatWaitAreBounded() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)").path
        try #require(mkfifo(path, 0o600) == 0)
        defer { unlink(path) }
        // For reading and writing: the open does not wait for the other end.
        let pipe = open(path, O_RDWR)
        try #require(pipe >= 0)
        defer { close(pipe) }
        let log = EventLog(destination: .file(path))
        let (count, line) = (40, String(repeating: "x", count: 1 << 20))
        for _ in 0..<count { log.notice(line) }
        var found = 0
        var rest: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while found < count,
            !String(decoding: rest, as: UTF8.self).contains("log lines were dropped: the log is too slow")
        {
            let read = Glibc.read(pipe, &buffer, buffer.count)
            try #require(read > 0)
            found += buffer[..<read].count { $0 == 0x0a }
            rest = (rest + buffer[..<read]).suffix(1000)
        }
        #expect(found < count)
    }

    /// A flush does not wait for a pipe that nobody reads, and says how many lines are lost.
    @Test func aFlushHasADeadline() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)").path
        try #require(mkfifo(path, 0o600) == 0)
        defer { unlink(path) }
        let pipe = open(path, O_RDWR)
        try #require(pipe >= 0)
        defer { close(pipe) }
        let log = EventLog(destination: .file(path))
        log.notice(String(repeating: "x", count: 1 << 20))
        #expect(log.flush(within: .milliseconds(1)) == 1)
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        var read = 0
        repeat {
            read = Glibc.read(pipe, &buffer, buffer.count)
            try #require(read > 0)
        } while !buffer[..<read].contains(0x0a)
        #expect(log.flush(within: .seconds(60)) == 0)
    }

    @Test func directionCharactersAreEscaped() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)").path
        defer { unlink(path) }
        let log = EventLog(destination: .file(path))
        log.notice("a\u{202E}b\u{2066}c\u{200F}d")
        log.flush()
        let line = try String(contentsOfFile: path, encoding: .utf8)
        #expect(line.hasSuffix("a\\u{202E}b\\u{2066}c\\u{200F}d\n"))
    }
}
