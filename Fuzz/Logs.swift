// SPDX-License-Identifier: Apache-2.0
internal import Advisor
internal import Foundation
internal import Glibc
internal import Settings

extension Target {
    /// A replay must count every line of a log, a capture or an export of journald, and its report must be writable.
    ///
    /// The input is the file.
    static let log = Target(name: "log") { input in
        // Large numbers of recipients only take long, and gzip(1) is not ours.
        guard !hasLongNumber(input), !input.starts(with: [0x1f, 0x8b]) else { return }
        precondition(ftruncate(file, 0) == 0 && pwrite(file, input.baseAddress, input.count, 0) == input.count)
        let report: ReplayReport
        do {
            report = try Replay(replayed, over: ["/proc/self/fd/\(file)"]).run()
        } catch is UnreadableLog {
            return
        } catch {
            preconditionFailure("the log can't be read")
        }
        let (log, lines) = (report.log, input.count { $0 == 0x0a } + 1)
        precondition(log.lines <= lines)
        // The file can be read. What can be missing are qmgr's lines.
        precondition(log.faults.isEmpty || log.messages == 0 && log.faults.count == 1)
        precondition(log.otherLines + log.linesWithoutTime <= log.lines && log.linesOutOfOrder <= log.lines)
        precondition(log.messages + log.requests <= lines && log.recipients >= log.messages)
        precondition((log.first == nil) == (log.last == nil))
        guard (try? JSONEncoder().encode(report)) != nil else { preconditionFailure("the report can't be written") }
    }
}

/// A file in memory, without a name.
private let file: Int32 = {
    var path = Array("/dev/shm/weir-fuzz-XXXXXX".utf8CString)
    let file = mkstemp(&path)
    precondition(file >= 0 && unlink(path) == 0)
    return file
}()

private let replayed: Configuration = {
    let text = """
        limits:
          - { name: sender, key: [sender], count: recipients, rates: [5/1m, 20/1d] }
          - { name: client, key: [client_address], count: messages, rates: [3/1h], over: "450 4.7.1 later" }
          - { name: size, key: [sasl_username], count: bytes, rates: [1M/1h] }
        """
    guard case .success(let outcome) = ConfigurationReader.read(Array(text.utf8), file: "weir.yaml") else {
        preconditionFailure("the configuration is not valid")
    }
    return outcome.configuration
}()

private func hasLongNumber(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var rest = bytes[...]
    while let start = rest.firstIndex(of: UInt8(ascii: "=")) {
        rest = rest[(start + 1)...]
        if bytes[..<start].reversed().starts(with: "tpcrn".utf8), rest.prefix(while: { 0x30..<0x3a ~= $0 }).count > 3 {
            return true
        }
    }
    return false
}
