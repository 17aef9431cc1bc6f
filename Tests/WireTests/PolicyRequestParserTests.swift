// SPDX-License-Identifier: Apache-2.0
import CIntrinsics
import NIOCore
import Testing
import Wire

@Suite struct PolicyRequestParserTests {
    private static let names = ["request", "protocol_state", "sender", "size"]
    private static let request =
        "request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a=b@example.org\nunknown=x\nsize=\n\n"

    private func values(_ ranges: [Range<Int>], in bytes: [UInt8]) -> [String] {
        ranges.map { String(decoding: bytes[$0], as: UTF8.self) }
    }

    @Test func splitAtEveryByte() throws {
        let bytes = Array(Self.request.utf8)
        for cut in 0..<bytes.count {
            var parser = PolicyRequestParser(names: Self.names)
            var searched = 0
            var ranges: [Range<Int>] = []
            #expect(
                try bytes[..<cut].withUnsafeBytes { bytes throws in
                    try parser.parse(bytes, searched: &searched, ranges: &ranges)
                } == nil)
            #expect(
                try bytes.withUnsafeBytes { bytes throws in
                    try parser.parse(bytes, searched: &searched, ranges: &ranges)
                } == bytes.count)
            #expect(values(ranges, in: bytes) == ["smtpd_access_policy", "RCPT", "a=b@example.org", ""])
        }
    }

    @Test func byteByByte() throws {
        let bytes = Array(Self.request.utf8)
        var parser = PolicyRequestParser(names: Self.names)
        var searched = 0
        var ranges: [Range<Int>] = []
        for length in 0..<bytes.count {
            #expect(
                try bytes[..<length].withUnsafeBytes { bytes throws in
                    try parser.parse(bytes, searched: &searched, ranges: &ranges)
                } == nil)
        }
        #expect(
            try bytes.withUnsafeBytes { bytes throws in try parser.parse(bytes, searched: &searched, ranges: &ranges) }
                == bytes.count)
    }

    @Test func attributesInAnyOrder() throws {
        var parser = PolicyRequestParser(names: Self.names)
        for text in [
            Self.request, "request=smtpd_access_policy\nsize=7\nsender=c\nprotocol_state=DATA\n\n",
            "request=smtpd_access_policy\n\n", Self.request,
            "size=9\nsizes=8\nsender=\nrequest=smtpd_access_policy\nprotocol_statex=RCPT\n\n",
        ] {
            var expected = ["request", "protocol_state", "sender", "size"]
            let bytes = Array(text.utf8)
            let lines = text.split(separator: "\n").map {
                $0.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            }
            expected = expected.map { name in lines.last { $0[0] == name }.map { String($0[1]) } ?? "" }
            var searched = 0
            var ranges: [Range<Int>] = []
            #expect(
                try bytes.withUnsafeBytes { bytes throws in
                    try parser.parse(bytes, searched: &searched, ranges: &ranges)
                } == bytes.count)
            #expect(values(ranges, in: bytes) == expected)
        }
    }

    /// The fast path for requests like the previous one gives the same result as the slow path.
    @Test func previousRequestsMakeNoDifference() throws {
        var random = SystemRandomNumberGenerator()
        let lines = [
            "request=smtpd_access_policy", "protocol_state=RCPT", "sender=a@example.org", "sender=", "size=123",
            "other=1",
            "a_name_that_is_longer_than_any_of_postfix=x", "other", "=", "size=a\0b",
            "long=" + String(repeating: "x", count: 100), "",
        ]
        var used = PolicyRequestParser(names: Self.names)
        var base = Array(lines.prefix(7))
        for _ in 0..<20_000 {
            if Int.random(in: 0..<20, using: &random) == 0 {
                base = (0..<Int.random(in: 0...9, using: &random)).map { _ in lines.randomElement(using: &random)! }
            }
            var request = base
            if Bool.random(using: &random), !request.isEmpty {
                request[Int.random(in: 0..<request.count, using: &random)] = lines.randomElement(using: &random)!
            }
            var bytes = Array((request.map { $0 + "\n" }.joined() + "\n").utf8)
            if Int.random(in: 0..<4, using: &random) == 0 {
                bytes.removeLast(Int.random(in: 0...bytes.count, using: &random))
            }
            func outcome(_ parser: inout PolicyRequestParser) -> String {
                var (searched, ranges) = (0, [Range<Int>]())
                do {
                    let length = try bytes.withUnsafeBytes { bytes throws in
                        try parser.parse(bytes, searched: &searched, ranges: &ranges)
                    }
                    return "\(length ?? -1) \(length == nil ? "\(searched)" : "\(values(ranges, in: bytes))")"
                } catch {
                    return "\(error)"
                }
            }
            var fresh = PolicyRequestParser(names: Self.names)
            let expected = outcome(&fresh)
            #expect(outcome(&used) == expected, "\(String(reflecting: String(decoding: bytes, as: UTF8.self)))")
        }
    }

    /// Both vector sizes give the same result. The allocation ends with the request, so there is nothing to read after
    /// it.
    @Test func vectorsOfBothSizesFindTheSame() {
        var random = SystemRandomNumberGenerator()
        let names = ["request=", "sender=", "size=", "a_name_of_just_thirty_one_bytes"]
        let lines = names.enumerated().map { index, name in
            var line = weir_policy_line()
            withUnsafeMutableBytes(of: &line.name) { $0.copyBytes(from: name.utf8) }
            (line.length, line.index) = (name.utf8.count, index)
            return line
        }
        for _ in 0..<20_000 {
            var text: [UInt8] = []
            for name in names.prefix(Int.random(in: 0...4, using: &random)) {
                text += Array(name.utf8) + (0..<Int.random(in: 0...70, using: &random)).map { _ in 0x78 } + [0x0a]
            }
            text.append(0x0a)
            if Int.random(in: 0..<3, using: &random) == 0 {
                text[Int.random(in: 0..<text.count, using: &random)] = [0, 0x0a, 0x78].randomElement(using: &random)!
            }
            if Int.random(in: 0..<3, using: &random) == 0 {
                text.removeLast(Int.random(in: 0...text.count, using: &random))
            }
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: text.count, alignment: 1)
            defer { bytes.deallocate() }
            bytes.copyBytes(from: text)
            var (values, others) = (
                [weir_policy_value](repeating: .init(), count: 4), [weir_policy_value](repeating: .init(), count: 4)
            )
            let length = weir_policy_request(bytes.baseAddress, bytes.count, lines, 4, &values)
            #expect(weir_policy_request_16(bytes.baseAddress, bytes.count, lines, 4, &others) == length)
            #expect(values.map { [$0.start, $0.end] } == others.map { [$0.start, $0.end] })
            #expect(length <= text.count && (length == 0 || text[length - 1] == 0x0a))
        }
    }

    @Test(
        arguments: [
            ("request=smtpd_access_policy\nno equals sign\n\n", .noEqualsSign),
            ("request=smtpd_access_policy\nsender=a\0b\n\n", .nul),
            ("protocol_state=RCPT\n\n", .notPolicy),
            ("\n", .notPolicy),
            ("request=junk\n\n", .notPolicy),
            ("request=smtpd_access_policy\n" + String(repeating: "a=b\n", count: 512) + "\n", .tooManyAttributes),
            ("sender=" + String(repeating: "x", count: PolicyRequestParser.longest), .tooLong),
            (
                "request=smtpd_access_policy\nsender=" + String(repeating: "x", count: PolicyRequestParser.longest)
                    + "\n\n", .tooLong
            ),
        ] as [(String, PolicyRequestFault)])
    func faults(text: String, fault: PolicyRequestFault) {
        var parser = PolicyRequestParser(names: Self.names)
        let bytes = Array(text.utf8)
        var searched = 0
        var ranges: [Range<Int>] = []
        #expect(throws: fault) {
            try bytes.withUnsafeBytes { bytes throws in try parser.parse(bytes, searched: &searched, ranges: &ranges) }
        }
    }

    @Test func largestAllowed() throws {
        let filler = String(repeating: "a=b\n", count: 511)
        let text = "request=smtpd_access_policy\n" + filler + "\n"
        let bytes = Array(text.utf8)
        var parser = PolicyRequestParser(names: Self.names)
        var searched = 0
        var ranges: [Range<Int>] = []
        #expect(
            try bytes.withUnsafeBytes { bytes throws in try parser.parse(bytes, searched: &searched, ranges: &ranges) }
                == bytes.count)
    }

    @Test func reply() {
        var reply: [UInt8] = []
        reply.appendPolicyReply(action: Array("DEFER_IF_PERMIT 4.7.1 later".utf8))
        #expect(reply == Array("action=DEFER_IF_PERMIT 4.7.1 later\n\n".utf8))
    }
}
