// SPDX-License-Identifier: Apache-2.0
internal import Wire

extension Target {
    /// A parser that has parsed other requests before, or gets a request in pieces, must give the same result as a new
    /// parser that gets it whole.
    ///
    /// The first byte is the size of the pieces; the rest is the input of one connection, up to the first malformed
    /// request.
    static let policy = Target(name: "policy") { input in
        var choices = Choices(input)
        let size = choices.size()
        var rest = choices.rest
        var reused = PolicyRequestParser(names: names)
        var incremental = PolicyRequestParser(names: names)
        while !rest.isEmpty {
            var fresh = PolicyRequestParser(names: names)
            let outcome = parse(rest, by: &fresh, pieces: rest.count)
            precondition(outcome == parse(rest, by: &reused, pieces: rest.count))
            precondition(outcome == parse(rest, by: &incremental, pieces: size))
            guard case .request(let length, let ranges) = outcome else { return }
            precondition(1...rest.count ~= length)
            for range in ranges where !range.isEmpty {
                precondition(range.upperBound < length && rest[range.upperBound] == 0x0a)
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[length...])
        }
    }
}

private let names = [
    "request", "protocol_state", "sender", "recipient", "client_address", "size", "a", "sasl_username",
]

private enum Outcome: Equatable {
    case request(length: Int, [Range<Int>])
    case incomplete
    case fault(PolicyRequestFault)
}

/// - Parameter pieces: the number of bytes per read.
private func parse(_ bytes: UnsafeRawBufferPointer, by parser: inout PolicyRequestParser, pieces: Int) -> Outcome {
    var (searched, ranges, end) = (0, [Range<Int>](), 0)
    while end < bytes.count {
        end = min(bytes.count, end + pieces)
        // A separate allocation, so that AddressSanitizer detects reads beyond its end.
        let received = UnsafeMutableRawBufferPointer.allocate(byteCount: end, alignment: 1)
        defer { received.deallocate() }
        received.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<end]))
        do throws(PolicyRequestFault) {
            if let length = try parser.parse(UnsafeRawBufferPointer(received), searched: &searched, ranges: &ranges) {
                // Empty and missing values are equivalent.
                return .request(length: length, ranges.map { $0.isEmpty ? 0..<0 : $0 })
            }
        } catch {
            return .fault(error)
        }
    }
    return .incomplete
}
