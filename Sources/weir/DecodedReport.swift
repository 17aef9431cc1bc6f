// SPDX-License-Identifier: Apache-2.0
import Filter
import Foundation
import Rules

/// Prints messages as the rules in `checks.decoded_header`, `checks.decoded_body` and `checks.attachment` see them.
struct DecodedReport {
    private let checks: ContentChecks
    private let wayIn: WayIn?
    private let inJSON: Bool
    private let isColoured = Terminal.takesColour(STDOUT_FILENO)
    private let encoder = JSONEncoder()

    /// - Parameter wayIn: nil for all of each message.
    init(_ checks: ContentChecks, _ wayIn: WayIn?, inJSON: Bool) {
        self.checks = checks
        self.wayIn = wayIn
        self.inJSON = inJSON
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    }

    private struct Message: Encodable {
        struct Header: Encodable {
            let offset: Int
            let place: String
            let text: String
        }

        struct Line: Encodable {
            let part: String
            /// Where the content of the part begins.
            let offset: Int
            let text: String
        }

        let name: String
        let headers: [Header]
        let body: [Line]
        let attachments: [Line]
        let limits: [String]
    }

    func add(_ message: MessageFile) throws {
        let view = wayIn?.view(of: message.content)
        let content = view?.content ?? message.content
        let headers = DecodedHeader.all(in: content, checks)
        let parts = DecodedParts(of: content)
        guard inJSON else { return try write(message.name, headers, parts) }
        func original(_ offset: Int) -> Int { view?.original(offset) ?? offset }
        func lines(_ lines: [DecodedParts.Line]) -> [Message.Line] {
            lines.map { Message.Line(part: text($0.part), offset: original($0.offset), text: text($0.text)) }
        }
        let result = Message(
            name: message.name,
            headers: headers.map {
                Message.Header(offset: original($0.offset), place: $0.place.rawValue, text: text($0.text))
            },
            body: lines(parts.text), attachments: lines(parts.attachments), limits: parts.limits.map { "\($0)" })
        try StandardOutput.write(Array(encoder.encode(result)) + [0x0a])
    }

    private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    private func write(_ name: String, _ headers: [DecodedHeader], _ parts: DecodedParts) throws {
        try StandardOutput.write(line: coloured(printable(name.utf8), "1"))
        for header in headers {
            let indent = header.place == .message ? "  " : "    \(header.place.rawValue): "
            try StandardOutput.write(line: indent + printable(header.text))
        }
        var last: [UInt8] = []
        for line in parts.text {
            if line.part != last { try StandardOutput.write(line: coloured("  decoded_body \(text(line.part))", "36")) }
            last = line.part
            try StandardOutput.write(line: "    " + printable(line.text))
        }
        try StandardOutput.write(line: coloured("  attachment", "36"))
        for line in parts.attachments { try StandardOutput.write(line: "    " + printable(line.text)) }
        for note in parts.limits { try StandardOutput.write(line: "  note: \(note)") }
    }

    private func coloured(_ text: String, _ code: String) -> String {
        isColoured ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text
    }
}
