// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A line of a log in JSON: of `journalctl -o json`, or of the files that Docker writes with the driver json-file.
enum JSONLogLine {
    /// An entry of the journal. The time is in milliseconds since 1970.
    case entry(time: Int64, tag: [UInt8], text: [UInt8])
    /// A line of a container's output, behind the time at which Docker read it.
    case line([UInt8])

    private static let decoder = JSONDecoder()

    /// Nil for anything else.
    ///
    /// - Parameter line: an object; with what `-o json-seq` or `-o json-sse` puts before it, too.
    init?(_ line: UnsafeRawBufferPointer) {
        var object = line[...]
        if object.first == 0x1e { object = object.dropFirst() }
        if object.starts(with: "data: ".utf8) { object = object.dropFirst(6) }
        guard object.first == UInt8(ascii: "{"), let fields = try? Self.decoder.decode(Fields.self, from: Data(object))
        else { return nil }
        if let stamp = fields.stamp, let time = Int64(String(decoding: stamp, as: UTF8.self)), let tag = fields.tag {
            self = .entry(time: time / 1000, tag: tag, text: fields.text ?? [])
        } else if let log = fields.log, let time = fields.time {
            self = .line(time + [0x20] + log.prefix { $0 != 0x0a && $0 != 0x0d })
        } else {
            return nil
        }
    }

    /// The fields that are read here. Nil for one that is missing or has another form.
    private struct Fields: Decodable {
        let stamp, tag, text, log, time: [UInt8]?

        enum CodingKeys: String, CodingKey {
            case stamp = "__REALTIME_TIMESTAMP"
            case tag = "SYSLOG_IDENTIFIER"
            case text = "MESSAGE"
            case log, time
        }

        init(from decoder: any Decoder) throws {
            let fields = try decoder.container(keyedBy: CodingKeys.self)
            /// A list of numbers is a string of bytes, as journalctl prints what is not UTF-8.
            func bytes(_ key: CodingKeys) -> [UInt8]? {
                guard fields.contains(key) else { return nil }
                if let text = try? fields.decode(String.self, forKey: key) { return Array(text.utf8) }
                return try? fields.decode([UInt8].self, forKey: key)
            }
            (stamp, tag, text) = (bytes(.stamp), bytes(.tag), bytes(.text))
            (log, time) = (bytes(.log), bytes(.time))
        }
    }
}
