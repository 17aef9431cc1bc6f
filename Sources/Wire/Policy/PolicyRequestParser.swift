// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import Glibc

/// What ends the connection of a policy client: bytes that are no request.
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

/// Reads requests of the Postfix policy delegation protocol (SMTPD_POLICY_README): lines `name=value`, ended by an
/// empty line. Split at the first `=`; names that nobody asked for are passed over.
///
/// Postfix sends its attributes in one order, so a request is first read as one that has the same names as the request
/// before, in a single pass. What is not, or is no request at all, is read line by line. A request is a view of the
/// buffer: nothing is copied.
package struct PolicyRequestParser {
    package static let longest = 65_536
    /// Postfix sends some thirty.
    package static let mostAttributes = 512

    private let names: [[UInt8]]
    /// The lines of the last request.
    private var expected: [weir_policy_line] = []

    private static let mostExpected = 64

    /// - Parameter names: the attributes that are asked for; "request" must be the first.
    package init(names: [String]) {
        self.names = names.map { Array($0.utf8) }
    }

    /// Parses the request at the start of `bytes`.
    ///
    /// - Parameter searched: how many bytes were looked at in vain before; set to how many that are now.
    /// - Parameter ranges: set to where the values are, by index of their names; empty where the request had none.
    /// - Returns: the length of the request with its empty line, or nil where that has not come yet.
    package mutating func parse(
        _ bytes: UnsafeRawBufferPointer, searched: inout Int, ranges: inout [Range<Int>]
    ) throws(PolicyRequestFault) -> Int? {
        clear(&ranges)
        // What comes in pieces is searched for its end first, lest a byte at a time is read again and again.
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

    /// Parses a request whose names are those of the last one.
    ///
    /// - Returns: 0 where it has others, is not complete, or is at fault; some of `ranges` are set then.
    private func parseAsExpected(_ bytes: UnsafeRawBufferPointer, _ ranges: inout [Range<Int>]) -> Int {
        ranges.withUnsafeMutableBytes { ranges in
            // A Range<Int> is two integers in memory. The index of a line is that of its name in `names`, and there is
            // a range for each name.
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

    /// Parses the line at `start`; returns where the next one begins.
    private mutating func parseLine(
        _ line: Int, of bytes: UnsafeRawBufferPointer, from start: Int, _ ranges: inout [Range<Int>]
    ) throws(PolicyRequestFault) -> Int {
        // `end(of:)` has seen a newline behind every line.
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
