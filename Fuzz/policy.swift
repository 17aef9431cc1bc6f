// SPDX-License-Identifier: Apache-2.0
import Wire

/// Whatever came before, and in whatever pieces a request comes, it is read as the same bytes are by a parser that has seen
/// nothing yet, which reads line by line.
///
/// The first byte is the size of the pieces; the rest is what one connection sends, up to what is no request.
@_cdecl("LLVMFuzzerTestOneInput")
public func parseInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let data, count > 1 else { return 0 }
    let size = max(1, Int(data[0]))
    var rest = UnsafeRawBufferPointer(start: data + 1, count: count - 1)
    var experienced = PolicyRequestParser(names: names)
    var patient = PolicyRequestParser(names: names)
    while !rest.isEmpty {
        var fresh = PolicyRequestParser(names: names)
        let outcome = parse(rest, by: &fresh, pieces: rest.count)
        precondition(outcome == parse(rest, by: &experienced, pieces: rest.count))
        precondition(outcome == parse(rest, by: &patient, pieces: size))
        guard case .request(let length, let ranges) = outcome else { return 0 }
        precondition(1...rest.count ~= length)
        for range in ranges where !range.isEmpty {
            precondition(range.upperBound < length && rest[range.upperBound] == 0x0a)
        }
        rest = UnsafeRawBufferPointer(rebasing: rest[length...])
    }
    return 0
}

private let names = [
    "request", "protocol_state", "sender", "recipient", "client_address", "size", "a", "sasl_username",
]

private enum Outcome: Equatable {
    case request(length: Int, [Range<Int>])
    case incomplete
    case fault(PolicyRequestFault)
}

/// - Parameter pieces: the bytes that come at a time.
private func parse(_ bytes: UnsafeRawBufferPointer, by parser: inout PolicyRequestParser, pieces: Int) -> Outcome {
    var (searched, ranges, end) = (0, [Range<Int>](), 0)
    while end < bytes.count {
        end = min(bytes.count, end + pieces)
        // Memory of its own, so that what reads beyond it is seen.
        let come = UnsafeMutableRawBufferPointer.allocate(byteCount: end, alignment: 1)
        defer { come.deallocate() }
        come.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<end]))
        do throws(PolicyRequestFault) {
            if let length = try parser.parse(UnsafeRawBufferPointer(come), searched: &searched, ranges: &ranges) {
                // An empty value says as much as none, wherever it stands.
                return .request(length: length, ranges.map { $0.isEmpty ? 0..<0 : $0 })
            }
        } catch {
            return .fault(error)
        }
    }
    return .incomplete
}
