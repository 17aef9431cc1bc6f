// SPDX-License-Identifier: Apache-2.0
import Limits

/// Runs `body` on a request with these attributes; all others are empty.
func withRequest<Result>(
    _ values: [String: String], names: AttributeNames, _ body: (Attributes) throws -> Result
) rethrows -> Result {
    var bytes: [UInt8] = []
    let ranges = names.names.map { name in
        let start = bytes.count
        bytes += (values[name] ?? "").utf8
        return start..<bytes.count
    }
    return try bytes.withUnsafeBytes { bytes in
        try ranges.withUnsafeBufferPointer { try body(Attributes(bytes: bytes, ranges: $0)) }
    }
}
