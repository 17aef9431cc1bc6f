// SPDX-License-Identifier: Apache-2.0

/// Parses a capture (`log.capture`): for each request a time line, its attributes, and an empty line.
struct CapturedRequest {
    private static let mark = Array("time=".utf8)
    private static let longest = 65_536

    private var time: Int64?
    private var request: [UInt8] = []

    /// The milliseconds of `time=1790000000.123456`.
    static func time(_ line: UnsafeRawBufferPointer) -> Int64? {
        guard line.count >= mark.count + 12, line.starts(with: mark), let dot = line.firstIndex(of: UInt8(ascii: ".")),
            let seconds = Int64(String(decoding: line[mark.count..<dot], as: UTF8.self)), 0..<1 << 40 ~= seconds,
            let microseconds = Int64(String(decoding: line[(dot + 1)...], as: UTF8.self))
        else { return nil }
        return seconds * 1000 + microseconds / 1000
    }

    mutating func append(_ line: UnsafeRawBufferPointer, _ body: ([UInt8], Int64) -> Void) {
        if request.isEmpty || time == nil, let found = Self.time(line) {
            time = found
        } else if !line.isEmpty {
            if request.count + line.count < Self.longest { request += Array(line) + [0x0a] }
        } else {
            if let time, !request.isEmpty { body(request + [0x0a], time) }
            (time, request) = (nil, [])
        }
    }
}
