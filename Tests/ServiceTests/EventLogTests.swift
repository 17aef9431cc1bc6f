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

    /// The name is a field of each line.
    @Test(arguments: [
        ("", "localhost"), ("mx1.example.org", "mx1.example.org"), ("a b\n\u{1b}", "a?b??"), ("m\u{fc}", "m??"),
    ])
    func anyHostName(bytes: String, shown: String) {
        #expect(hostName(from: Array(bytes.utf8)) == shown)
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

    /// Only the stream that `JOURNAL_STREAM` names gets levels, and no time.
    @Test func linesToJournaldHaveTheirLevel() throws {
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        var status = stat()
        try #require(fstat(ends[1], &status) == 0)
        let stream = "\(status.st_dev):\(status.st_ino)"

        func lines(withStream stream: String?) -> [String] {
            let log = EventLog(destination: .standardError, standardError: ends[1], journalStream: stream)
            log.error("a")
            log.warning("b")
            log.notice("c")
            log.info("d\n<0>e")
            log.flush(within: .seconds(60))
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = read(ends[0], &buffer, buffer.count)
            return String(decoding: buffer[..<max(count, 0)], as: UTF8.self).split(separator: "\n").map(String.init)
        }
        let name = "weir[\(getpid())]: "
        #expect(
            lines(withStream: stream) == [
                "<3>\(name)error: a", "<4>\(name)warning: b", "<5>\(name)c", "<6>\(name)d\\n<0>e",
            ])
        for other in [nil, "", "\(status.st_dev):\(status.st_ino + 1)", "\(status.st_dev)"] {
            let lines = lines(withStream: other)
            #expect(lines.count == 4)
            // The time comes first.
            #expect(lines.allSatisfy { !$0.hasPrefix("<") && !$0.hasPrefix("weir") && $0.contains(" \(name)") })
        }
    }

    /// syslog(3) loses lines without a word if nobody reads them.
    @Test func linesThatSyslogDoesNotTakeGoToStandardError() throws {
        let directory = try TemporaryDirectory()
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)

        func lines(_ destination: Configuration.Log.Destination, standardError: Int32?) -> [String] {
            let log = EventLog(
                destination: destination, standardError: standardError, syslog: Syslog(path: "\(directory.path)/log"))
            log.notice("a")
            log.flush(within: .seconds(60))
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = read(ends[0], &buffer, buffer.count)
            return String(decoding: buffer[..<max(count, 0)], as: UTF8.self).split(separator: "\n").map(String.init)
        }
        let lost = lines(.syslog, standardError: ends[1])
        #expect(lost.count == 2)
        #expect(lost.first?.hasSuffix("error: can't write to syslog: No such file or directory") ?? false, "\(lost)")
        #expect(lost.last?.hasSuffix("]: a") ?? false, "\(lost)")
        // pipe(8) would show standard error to the sender.
        #expect(lines(.syslog, standardError: nil) == [])
        #expect(lines(.file("\(directory.path)/missing/log"), standardError: nil) == [])
        for type in [SOCK_DGRAM, SOCK_STREAM] {
            let socket = try listening(at: "\(directory.path)/log", type)
            #expect(lines(.syslog, standardError: ends[1]) == [])
            close(socket)
            unlink("\(directory.path)/log")
        }
    }

    private func listening(at path: String, _ type: __socket_type) throws -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(type.rawValue), 0)
        try #require(descriptor >= 0)
        try SocketAddress(unixDomainSocketPath: path).withSockAddr { address, size in
            try #require(bind(descriptor, address, socklen_t(size)) == 0)
        }
        if type == SOCK_STREAM { try #require(listen(descriptor, 1) == 0) }
        return descriptor
    }
}
