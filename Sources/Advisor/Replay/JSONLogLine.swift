// SPDX-License-Identifier: Apache-2.0

/// A line of a log in JSON: of `journalctl -o json`, or of the files that Docker writes with the driver json-file.
enum JSONLogLine {
    /// An entry of the journal.
    case entry(time: Int64, tag: [UInt8], text: [UInt8])
    /// A line of a container's output, behind the time at which Docker read it.
    case line([UInt8])

    /// Nil for anything else.
    ///
    /// - Parameter line: an object; with what `-o json-seq` or `-o json-sse` puts before it, too.
    init?(_ line: UnsafeRawBufferPointer) {
        var object = line[...]
        if object.first == 0x1e { object = object.dropFirst() }
        if object.starts(with: "data: ".utf8) { object = object.dropFirst(6) }
        guard object.first == UInt8(ascii: "{"), let fields = Self.fields(object) else { return nil }
        if let stamp = fields["__REALTIME_TIMESTAMP"], let time = Int64(String(decoding: stamp, as: UTF8.self)),
            let tag = fields["SYSLOG_IDENTIFIER"]
        {
            self = .entry(time: time / 1000, tag: tag, text: fields["MESSAGE"] ?? [])
        } else if let log = fields["log"], let time = fields["time"] {
            self = .line(time + [0x20] + log.prefix { $0 != 0x0a && $0 != 0x0d })
        } else {
            return nil
        }
    }

    /// The strings of an object by their names. A list of numbers is a string of bytes, as journalctl prints what is
    /// not UTF-8. Nil if it is no object.
    private static func fields(_ object: Slice<UnsafeRawBufferPointer>) -> [String: [UInt8]]? {
        var rest = object.dropFirst()
        var fields: [String: [UInt8]] = [:]
        while true {
            rest = rest.drop { $0 == UInt8(ascii: ",") || isBlank($0) }
            if rest.first == UInt8(ascii: "}") { return fields }
            guard let name = string(&rest) else { return nil }
            rest = rest.drop { $0 == UInt8(ascii: ":") || isBlank($0) }
            switch rest.first {
            case UInt8(ascii: "\""):
                guard let value = string(&rest) else { return nil }
                fields[String(decoding: name, as: UTF8.self)] = value
            case UInt8(ascii: "["):
                guard let end = rest.firstIndex(of: UInt8(ascii: "]")) else { return nil }
                let numbers = rest[..<end].dropFirst().split(separator: UInt8(ascii: ","))
                let bytes = numbers.compactMap { UInt8(String(decoding: $0.filter { !isBlank($0) }, as: UTF8.self)) }
                if bytes.count == numbers.count { fields[String(decoding: name, as: UTF8.self)] = bytes }
                rest = rest[(end + 1)...]
            case nil, UInt8(ascii: "{"): return nil
            default: rest = rest.drop { $0 != UInt8(ascii: ",") && $0 != UInt8(ascii: "}") }
            }
        }
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

    /// Removes a string from the beginning of `rest`. Nil if it has none.
    private static func string(_ rest: inout Slice<UnsafeRawBufferPointer>) -> [UInt8]? {
        guard rest.popFirst() == UInt8(ascii: "\"") else { return nil }
        var units: [UInt16] = []
        var bytes: [UInt8] = []
        func flush() {
            bytes += Array(String(decoding: units, as: UTF16.self).utf8)
            units = []
        }
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "\\") else {
                flush()
                if byte == UInt8(ascii: "\"") { return bytes }
                bytes.append(byte)
                continue
            }
            guard let escape = rest.popFirst() else { return nil }
            if escape == UInt8(ascii: "u") {
                guard let unit = UInt16(String(decoding: rest.prefix(4), as: UTF8.self), radix: 16) else { return nil }
                rest = rest.dropFirst(4)
                units.append(unit)
            } else {
                flush()
                bytes.append(escapes[escape] ?? escape)
            }
        }
        return nil
    }

    /// What stands for a character other than itself.
    private static let escapes: [UInt8: UInt8] = [
        UInt8(ascii: "n"): 0x0a, UInt8(ascii: "r"): 0x0d, UInt8(ascii: "t"): 0x09, UInt8(ascii: "b"): 0x08,
        UInt8(ascii: "f"): 0x0c,
    ]
}
