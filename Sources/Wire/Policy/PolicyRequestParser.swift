// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import Glibc

/// Bytes that are not a policy request. The client's connection is closed.
package enum PolicyRequestFault: Error, Equatable, Sendable {
    /// More than `PolicyRequestParser.longest` bytes without an empty line.
    case tooLong
    case tooManyAttributes
    /// A line without `=`.
    case noEqualsSign
    case nul
    /// No attribute is `request=smtpd_access_policy`.
    case notPolicy
}

/// Parses requests of the Postfix policy delegation protocol (SMTPD_POLICY_README): `name=value` lines, then an empty
/// line. The name ends at the first `=`. Unknown attributes are ignored.
///
/// Postfix sends the same attributes in the same order each time. The parser first tries a single pass with the names
/// of the previous request; if they differ, it parses line by line. Values are ranges of the caller's buffer, not
/// copies.
package struct PolicyRequestParser {
    package static let longest = 65_536
    /// Postfix sends about 30.
    package static let mostAttributes = 512

    private let names: [[UInt8]]
    /// The lines of the previous request.
    private var expected: [weir_policy_line] = []

    private static let mostExpected = 64

    /// - Parameter names: the attributes to look for; the first must be "request".
    package init(names: [String]) {
        self.names = names.map { Array($0.utf8) }
    }

    /// Parses the request at the start of `bytes`.
    ///
    /// - Parameter searched: the number of bytes that earlier calls have searched for the empty line; updated.
    /// - Parameter ranges: set to the ranges of the values, in the order of `names`; empty for a missing attribute.
    /// - Returns: the length of the request including its empty line, or nil if the request is incomplete.
    package mutating func parse(
        _ bytes: UnsafeRawBufferPointer, searched: inout Int, ranges: inout [Range<Int>]
    ) throws(PolicyRequestFault) -> Int? {
        clear(&ranges)
        // A request that arrives in pieces is parsed only once it is complete: not anew with each piece.
        if searched == 0, case let length = parseAsExpected(bytes, &ranges), 1...Self.longest ~= length {
            try checkRequest(bytes[ranges[0]])
            return length
        }
        guard let length = Self.end(of: bytes, searched: &searched) else {
            if bytes.count > Self.longest { throw .tooLong }
            return nil
        }
        if length > Self.longest { throw .tooLong }
        if bytes.baseAddress.map({ memchr($0, 0, length) != nil }) ?? false { throw .nul }
        clear(&ranges)
        var position = 0
        var line = 0
        while bytes[position] != UInt8(ascii: "\n") {
            position = try parseLine(line, of: bytes, from: position, &ranges)
            line += 1
            if line > Self.mostAttributes { throw .tooManyAttributes }
        }
        try checkRequest(bytes[ranges[0]])
        return length
    }

    private func clear(_ ranges: inout [Range<Int>]) {
        if ranges.count == names.count {
            for index in ranges.indices { ranges[index] = 0..<0 }
        } else {
            ranges = Array(repeating: 0..<0, count: names.count)
        }
    }

    private func checkRequest(_ value: Slice<UnsafeRawBufferPointer>) throws(PolicyRequestFault) {
        let wanted: StaticString = "smtpd_access_policy"
        let value = UnsafeRawBufferPointer(rebasing: value)
        guard value.count == wanted.utf8CodeUnitCount, memcmp(value.baseAddress!, wanted.utf8Start, value.count) == 0
        else { throw .notPolicy }
    }

    /// Parses a request with the same names as the previous one.
    ///
    /// - Returns: its length. 0 if its names differ, it is incomplete, or it has a NUL; `ranges` may be partly set.
    private func parseAsExpected(_ bytes: UnsafeRawBufferPointer, _ ranges: inout [Range<Int>]) -> Int {
        ranges.withUnsafeMutableBytes { ranges in
            // A Range<Int> has the layout of two integers. The index of each line is an index into `names`, and
            // `ranges` has as many elements as `names`.
            let values = ranges.assumingMemoryBound(to: weir_policy_value.self)
            return weir_policy_request(bytes.baseAddress, bytes.count, expected, expected.count, values.baseAddress)
        }
    }

    /// Finds the empty line that ends a request.
    private static func end(of bytes: UnsafeRawBufferPointer, searched: inout Int) -> Int? {
        guard let base = bytes.baseAddress, !bytes.isEmpty else { return nil }
        if bytes[0] == UInt8(ascii: "\n") { return 1 }
        var position = max(0, searched - 1)
        while let found = memchr(base + position, 0x0a, bytes.count - position) {
            position = base.distance(to: UnsafeRawPointer(found)) + 1
            if position < bytes.count, bytes[position] == UInt8(ascii: "\n") { return position + 1 }
        }
        searched = bytes.count
        return nil
    }

    /// Parses the line at `start`; returns the offset of the next one.
    private mutating func parseLine(
        _ line: Int, of bytes: UnsafeRawBufferPointer, from start: Int, _ ranges: inout [Range<Int>]
    ) throws(PolicyRequestFault) -> Int {
        // `end(of:)` has found the end of the request, so every line ends in a newline.
        let base = bytes.baseAddress! + start
        let lineLength = base.distance(to: UnsafeRawPointer(memchr(base, 0x0a, bytes.count - start)!))
        guard let equals = memchr(base, 0x3d, lineLength) else { throw .noEqualsSign }
        let nameLength = base.distance(to: UnsafeRawPointer(equals))
        let index = names.firstIndex { $0.count == nameLength && memcmp($0, base, nameLength) == 0 } ?? -1
        if index >= 0 { ranges[index] = start + nameLength + 1..<start + lineLength }
        expect(UnsafeRawBufferPointer(start: base, count: nameLength + 1), index, inLine: line)
        return start + lineLength + 1
    }

    private mutating func expect(_ name: UnsafeRawBufferPointer, _ index: Int, inLine line: Int) {
        guard line < Self.mostExpected else { return }
        var new = weir_policy_line()
        new.index = index
        if name.count <= WEIR_LONGEST_NAME {
            withUnsafeMutableBytes(of: &new.name) { $0.copyMemory(from: name) }
            new.length = name.count
        }
        if line < expected.count { expected[line] = new } else if line == expected.count { expected.append(new) }
    }
}

extension [UInt8] {
    /// Appends a reply of the policy delegation protocol: one `action=` line and an empty one.
    package mutating func appendPolicyReply(action: [UInt8]) {
        append(contentsOf: "action=".utf8)
        append(contentsOf: action)
        append(contentsOf: "\n\n".utf8)
    }
}
