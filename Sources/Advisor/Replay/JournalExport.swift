// SPDX-License-Identifier: Apache-2.0

/// Parses the output of `journalctl -o export`: a line per field, and an empty line after each entry.
struct JournalExport {
    static let mark = Array("__CURSOR=".utf8)
    private static let timeField = Array("__REALTIME_TIMESTAMP=".utf8)

    private var time: Int64?
    private var tag: [UInt8] = []
    private var text: [UInt8] = []

    static func time(_ line: UnsafeRawBufferPointer) -> Int64? {
        guard line.starts(with: timeField) else { return nil }
        return Int64(String(decoding: line.dropFirst(timeField.count), as: UTF8.self)).map { $0 / 1000 }
    }

    /// Ignores binary fields, which have another form; Postfix's entries have none.
    mutating func append(
        _ line: UnsafeRawBufferPointer, _ body: (Int64, UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void
    ) {
        if line.isEmpty {
            end(body)
        } else if let found = Self.time(line) {
            time = found
        } else if line.starts(with: "MESSAGE=".utf8) {
            text = Array(line.dropFirst("MESSAGE=".utf8.count))
        } else if line.starts(with: "SYSLOG_IDENTIFIER=".utf8) {
            tag = Array(line.dropFirst("SYSLOG_IDENTIFIER=".utf8.count))
        }
    }

    mutating func end(_ body: (Int64, UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void) {
        if let time, !tag.isEmpty {
            tag.withUnsafeBytes { tag in text.withUnsafeBytes { body(time, tag, $0) } }
        }
        self = JournalExport()
    }
}
