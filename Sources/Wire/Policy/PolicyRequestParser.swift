// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// What ends the connection of a policy client: bytes that are no request.
package enum PolicyRequestFault: Error, Equatable, Sendable {
    /// More than `PolicyRequestParser.longest` bytes without an empty line.
    case tooLong
    case tooManyAttributes
    /// A line without `=`.
    case noEqualsSign
    case nul
    /// The first attribute must be `request=smtpd_access_policy`.
    case notPolicy
}

/// Reads requests of the Postfix policy delegation protocol (SMTPD_POLICY_README): lines `name=value`, ended by an
/// empty line. Split at the first `=`; names that nobody asked for are passed over.
///
/// Postfix sends its attributes in one order, so each line is first compared with the name that came in this place in
/// the request before. A request is a view of the buffer: nothing is copied.
package struct PolicyRequestParser {
    package static let longest = 65_536
    /// Postfix sends some thirty.
    package static let mostAttributes = 512

    private let names: [[UInt8]]
    /// The index of the name that was found in each line of the last request; -1: nobody asks for it.
    private var expected: [(name: [UInt8], index: Int)] = []
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
        guard let length = Self.end(of: bytes, searched: &searched) else {
            if bytes.count > Self.longest { throw .tooLong }
            return nil
        }
        if length > Self.longest { throw .tooLong }
        if bytes.baseAddress.map({ memchr($0, 0, length) != nil }) ?? false { throw .nul }
        if ranges.count == names.count {
            for index in ranges.indices { ranges[index] = 0..<0 }
        } else {
            ranges = Array(repeating: 0..<0, count: names.count)
        }
        var position = 0
        var line = 0
        while bytes[position] != UInt8(ascii: "\n") {
            position = try parseLine(line, of: bytes, from: position, &ranges)
            line += 1
            if line > Self.mostAttributes { throw .tooManyAttributes }
        }
        let request = UnsafeRawBufferPointer(rebasing: bytes[ranges[0]])
        guard request.elementsEqual("smtpd_access_policy".utf8) else { throw .notPolicy }
        return length
    }

    /// Finds the empty line that ends a request.
    private static func end(of bytes: UnsafeRawBufferPointer, searched: inout Int) -> Int? {
        guard let base = bytes.baseAddress else { return nil }
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
        let left = bytes.count - start
        let lineLength = base.distance(to: UnsafeRawPointer(memchr(base, 0x0a, left)!))
        if line < expected.count {
            let (name, index) = expected[line]
            if lineLength > name.count, base.load(fromByteOffset: name.count, as: UInt8.self) == UInt8(ascii: "="),
                memcmp(base, name, name.count) == 0
            {
                if index >= 0 { ranges[index] = start + name.count + 1..<start + lineLength }
                return start + lineLength + 1
            }
        }
        guard let equals = memchr(base, 0x3d, lineLength) else { throw .noEqualsSign }
        let nameLength = base.distance(to: UnsafeRawPointer(equals))
        let name = Array(UnsafeRawBufferPointer(start: base, count: nameLength))
        let index = names.firstIndex(of: name) ?? -1
        if index >= 0 { ranges[index] = start + nameLength + 1..<start + lineLength }
        expect(name, index, inLine: line)
        return start + lineLength + 1
    }

    private mutating func expect(_ name: [UInt8], _ index: Int, inLine line: Int) {
        // A name is kept for the next request; one that is no name of Postfix's would only take memory.
        guard line < 64, name.count <= 64 else { return }
        if line < expected.count {
            expected[line] = (name, index)
        } else if line == expected.count {
            expected.append((name, index))
        }
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
