// SPDX-License-Identifier: Apache-2.0
import Filter
import Messages
import NIOCore
import Rules
import Testing

@Suite struct MilterEditsTests {
    /// The maximum number of headers, two thirds of them deleted. They are numbered in a single pass; a pass for each
    /// would take 2,000,000,000 steps.
    @Test(.timeLimit(.minutes(1))) func manyDeletedHeaders() throws {
        let names = ["x-weir-verdict", "X-Weir-Verdict", "X-Other"]
        let count = 65_536
        let rules = try ContentRules(ContentChecks())
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks))
        var headers = MilterHeaders()
        for ordinal in 0..<count {
            Array(names[ordinal % 3].utf8).withUnsafeBytes { name in
                headers.append(name)
                filter.addHeader(name: name, value: UnsafeRawBufferPointer(start: nil, count: 0))
            }
        }
        filter.endHeaders()
        let edits = MilterEdits(
            verdict: filter.finish(), bodyStart: filter.count, recipients: [], parameters: [], takesParameters: false)
        var output = ByteBuffer()
        edits.write(to: &output, headers: headers, hasLeadingSpace: true)
        var found: [UInt32] = []
        while let length: UInt32 = output.readInteger(), var packet = output.readSlice(length: Int(length)) {
            #expect(packet.readInteger() == UInt8(ascii: "m"))
            found.append(packet.readInteger() ?? 0)
            #expect(packet.readString(length: packet.readableBytes) == "x-weir-verdict\0\0")
        }
        // Two of three have that name. The last one is deleted first, so the numbers of the others stay valid.
        let expected = (0..<count).filter { $0 % 3 != 2 }.indices.map { UInt32($0 + 1) }
        #expect(found == expected.reversed())
    }
}
