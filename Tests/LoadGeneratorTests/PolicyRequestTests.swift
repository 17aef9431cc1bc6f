// SPDX-License-Identifier: Apache-2.0
import Foundation
import LoadGenerator
import Testing

@Suite struct PolicyRequestTests {
    private static var rcpt: PolicyRequest {
        PolicyRequest(
            instance: PolicyInstance(processID: 0x2C27, time: 0x6B03_45BF * 1_000_000 + 0xDE20B),
            sender: 1042, client: 70_000, clientPort: 45_044, recipient: 7, size: 41_435)
    }

    private static var endOfMessage: PolicyRequest {
        var request = rcpt
        request.state = .endOfMessage
        request.queueID = 0xA_00DE_20B0
        request.recipient = nil
        request.recipientCount = 12
        return request
    }

    @Test(arguments: [("rcpt", rcpt), ("end-of-message", endOfMessage)])
    func `writes a request byte for byte`(name: String, request: PolicyRequest) throws {
        let file = try #require(Bundle.module.url(forResource: "Fixtures/\(name)", withExtension: "request"))
        var bytes: [UInt8] = []
        request.write(to: &bytes)
        #expect(String(decoding: bytes, as: UTF8.self) == String(decoding: try Data(contentsOf: file), as: UTF8.self))
    }

    @Test(arguments: [0, 1, 9, 10, 255, 256, 0xFFFFF, UInt64.max])
    func `writes numbers as the standard library does`(number: UInt64) {
        var request = Self.rcpt
        request.instance.processID = number
        request.queueID = number
        request.size = Int(truncatingIfNeeded: number & UInt64(Int.max))
        var bytes: [UInt8] = []
        request.write(to: &bytes)
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        #expect(lines.contains("instance=\(String(number, radix: 16)).6b0345bf.de20b.0"))
        #expect(lines.contains("queue_id=\(String(number, radix: 16, uppercase: true))"))
        #expect(lines.contains("size=\(request.size)"))
    }
}
