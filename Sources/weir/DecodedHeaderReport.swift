// SPDX-License-Identifier: Apache-2.0
import Filter
import Foundation
import Rules

/// Prints the headers of messages as the rules in `checks.decoded_header` see them.
struct DecodedHeaderReport {
    private let checks: ContentChecks
    private let wayIn: WayIn?
    private let inJSON: Bool
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

        let name: String
        let headers: [Header]
    }

    func add(_ message: MessageFile) throws {
        let view = wayIn?.view(of: message.content)
        let headers = DecodedHeader.all(in: view?.content ?? message.content, checks)
        guard !inJSON else {
            let result = Message(
                name: message.name,
                headers: headers.map {
                    Message.Header(
                        offset: view?.original($0.offset) ?? $0.offset, place: $0.place.rawValue,
                        text: String(decoding: $0.text, as: UTF8.self))
                })
            return try StandardOutput.write(Array(encoder.encode(result)) + [0x0a])
        }
        try StandardOutput.write(line: printable(message.name.utf8))
        for header in headers {
            let indent = header.place == .message ? "  " : "    \(header.place.rawValue): "
            try StandardOutput.write(line: indent + printable(header.text))
        }
    }
}
