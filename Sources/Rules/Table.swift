// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// The types of tables for header and body checks.
package enum TableType: String, CaseIterable, Sendable {
    case pcre, regexp
}

/// A `pcre:` or `regexp:` table (pcre_table(5), regexp_table(5)), compiled.
package struct Table: Sendable {
    /// A rule, an `if` or an `endif`.
    struct Statement: Sendable {
        enum Operation: Sendable {
            case match(Replacement)
            /// The index of its `endif`; nil without one.
            case `if`(endif: Int?)
            case endif
        }

        let line: Int
        let operation: Operation
        /// nil for `endif`.
        let expression: Expression?
        /// `regexp:` only: the second half of `/p1/!/p2/`.
        let second: Expression?
        /// The index of the innermost `if` around it; nil outside of any.
        let enclosing: Int?
    }

    package let type: TableType
    package let path: String
    /// Whether its keys are decoded text, which is UTF-8; otherwise they are bytes.
    package let isForText: Bool
    let statements: [Statement]
    /// The tags of rules, by statement.
    let tags: [Int: String]
    /// What Postfix would warn of while it reads the table.
    package let warnings: [TableFault]
    /// Whether the file begins with a UTF-8 byte order mark, which Postfix reads as a part of the first line.
    let hasByteOrderMark: Bool

    package var name: String { "\(type.rawValue):\(path)" }

    /// Reads `name`, as in `pcre:/etc/postfix/header_checks`.
    package init(named name: String, isForText: Bool = false) throws(TableFault) {
        let colon = name.firstIndex(of: ":") ?? name.endIndex
        let path = colon == name.endIndex ? "" : String(name[name.index(after: colon)...])
        guard let type = TableType(rawValue: String(name[..<colon])) else {
            throw TableFault(
                severity: .fault, type: String(name[..<colon]), path: path, line: nil,
                message: "unsupported dictionary type: \(name[..<colon])")
        }
        self.init(type: type, path: path, content: try Self.read(type, path), isForText: isForText)
    }

    package init(type: TableType, path: String, content: [UInt8], isForText: Bool = false) {
        var parser = TableParser(type: type, path: path, isForText: isForText)
        parser.parse(content)
        self.type = type
        self.path = path
        self.isForText = isForText
        statements = parser.statements
        tags = parser.tags
        warnings = parser.faults
        hasByteOrderMark = content.starts(with: [0xef, 0xbb, 0xbf])
    }

    /// Larger than any table, and small enough to refuse a wrong path quickly.
    static let maximumSize = 64 << 20

    private static func read(_ type: TableType, _ path: String) throws(TableFault) -> [UInt8] {
        func fault(_ message: String) -> TableFault {
            TableFault(
                severity: .fault, type: type.rawValue, path: path, line: nil,
                message: "open \(path): \(message)")
        }
        guard !path.hasPrefix("{") else {
            throw fault("rules inside the name are not supported, put them in a file")
        }
        // Non-blocking: a FIFO must not hang the start.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw fault(String(cString: strerror(errno))) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw fault(String(cString: strerror(errno)))
        }
        guard status.st_mode & S_IFMT == S_IFREG else { throw fault("not a regular file") }
        guard status.st_size <= maximumSize else {
            throw fault("larger than \(maximumSize >> 20) MiB")
        }

        var content: [UInt8] = []
        content.reserveCapacity(Int(status.st_size))
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw fault(String(cString: strerror(errno))) }
            if count == 0 { return content }
            content += chunk[..<count]
            guard content.count <= maximumSize else {
                throw fault("larger than \(maximumSize >> 20) MiB")
            }
        }
    }
}
