// SPDX-License-Identifier: Apache-2.0
import Foundation
import LoadGenerator
import NIOCore
import Testing

@Suite struct PolicyDialogueTests {
    static let firstInstance = PolicyInstance(processID: 1, time: 1_700_000_000_000_000)

    /// The attributes of a request.
    private func attributes(_ buffer: ByteBuffer) -> [String: String] {
        let lines = String(buffer: buffer).split(separator: "\n")
        return Dictionary(
            uniqueKeysWithValues: lines.map { line in
                let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                return (String(parts[0]), String(parts[1]))
            })
    }

    /// The requests after these replies, as `state/recipient_count`, with `|` between messages.
    private func requests(_ mix: PolicyMix, replies: [String]) throws -> String {
        var dialogue = try PolicyTraffic(mix, firstInstance: Self.firstInstance).makeDialogue()
        var text = ""
        var instance = ""
        for reply in replies {
            var output = ByteBuffer()
            dialogue.begin(into: &output, at: .zero)
            let sent = attributes(output)
            if !instance.isEmpty { text += sent["instance"] == instance ? " " : " | " }
            instance = try #require(sent["instance"])
            text += "\(sent["protocol_state"] ?? "")/\(sent["recipient_count"] ?? "")"
            #expect(sent["recipient"]?.isEmpty == (Int(sent["recipient_count"] ?? "") ?? 0 > 1))
            var input = ByteBuffer(string: "action=\(reply)\n\n")
            #expect(try dialogue.receive(&input) == .answered)
            #expect(input.readableBytes == 0)
        }
        return text
    }

    @Test(arguments: [
        ("rcpt", 1, "DUNNO DUNNO", "RCPT/0 | RCPT/0"),
        ("rcpt", 2, "DUNNO DUNNO DUNNO", "RCPT/0 RCPT/0 | RCPT/0"),
        ("rcpt,data,end-of-message", 1, "DUNNO OK DUNNO DUNNO", "RCPT/0 DATA/1 END-OF-MESSAGE/1 | RCPT/0"),
        ("rcpt,end-of-message", 3, "DUNNO DEFER DUNNO DUNNO DUNNO", "RCPT/0 RCPT/0 RCPT/0 END-OF-MESSAGE/2 | RCPT/0"),
        ("rcpt,end-of-message", 2, "REJECT 450 DUNNO", "RCPT/0 RCPT/0 | RCPT/0"),
        ("rcpt,data", 1, "DEFER_IF_PERMIT DUNNO", "RCPT/0 | RCPT/0"),
        ("rcpt,data,end-of-message", 1, "DUNNO reject DUNNO", "RCPT/0 DATA/1 | RCPT/0"),
        ("data", 3, "DUNNO DUNNO", "DATA/3 | DATA/3"),
        ("end-of-message", 1, "DUNNO DEFER DUNNO", "END-OF-MESSAGE/1 | END-OF-MESSAGE/1 | END-OF-MESSAGE/1"),
        ("data,end-of-message", 2, "DUNNO DUNNO DUNNO", "DATA/2 END-OF-MESSAGE/2 | DATA/2"),
    ])
    func `asks what smtpd would ask`(states: String, recipients: Int, replies: String, requests: String) throws {
        var mix = PolicyMix()
        mix.states = Set(states.split(separator: ",").compactMap { ProtocolState(rawValue: $0.uppercased()) })
        mix.recipients = recipients
        let texts = replies.split(separator: " ").map { "\($0) 4.7.1 text" }
        #expect(try self.requests(mix, replies: texts) == requests)
    }

    @Test func `repeats a request until it is answered`() throws {
        var dialogue = try PolicyTraffic(PolicyMix(), firstInstance: Self.firstInstance).makeDialogue()
        var first = ByteBuffer(), again = ByteBuffer(), next = ByteBuffer()
        dialogue.begin(into: &first, at: .zero)
        dialogue.begin(into: &again, at: .zero)
        #expect(first == again)
        var input = ByteBuffer(string: "action=DUNNO\n\n")
        _ = try dialogue.receive(&input)
        dialogue.begin(into: &next, at: .zero)
        #expect(next != first)
    }

    @Test func `the same seed sends the same mail`() throws {
        func mail(seed: UInt64, first: PolicyInstance) throws -> [[String: String]] {
            var mix = PolicyMix()
            mix.seed = seed
            var dialogue = try PolicyTraffic(mix, firstInstance: first).makeDialogue()
            return try (0..<20).map { _ in
                var output = ByteBuffer()
                dialogue.begin(into: &output, at: .zero)
                var input = ByteBuffer(string: "action=DUNNO\n\n")
                _ = try dialogue.receive(&input)
                var attributes = attributes(output)
                attributes["instance"] = nil
                return attributes
            }
        }
        let later = PolicyInstance(processID: 2, time: 1_800_000_000_000_000)
        #expect(try mail(seed: 5, first: Self.firstInstance) == mail(seed: 5, first: later))
        #expect(try mail(seed: 5, first: later) != mail(seed: 6, first: later))
    }

    @Test func `counts answers by their first word and writes the account file`() throws {
        let file = FileManager.default.temporaryDirectory.appending(path: "weir-account-\(UUID())")
        defer { try? FileManager.default.removeItem(at: file) }
        var mix = PolicyMix()
        mix.population.senders = 1
        mix.account = file.path
        let traffic = try PolicyTraffic(mix, firstInstance: Self.firstInstance)
        var dialogue = traffic.makeDialogue()
        for reply in ["DUNNO", "450 4.7.1 later", "DUNNO", "DEFER_IF_PERMIT later", "HOLD"] {
            var output = ByteBuffer()
            dialogue.begin(into: &output, at: .zero)
            var input = ByteBuffer(string: "action=\(reply)\n\n")
            _ = try dialogue.receive(&input)
        }
        try traffic.save()
        #expect(traffic.outcomes.counts == ["DUNNO": 2, "450": 1, "DEFER_IF_PERMIT": 1, "HOLD": 1])
        #expect(traffic.outcomes.refusals == 2)
        let time = String(1_700_000_000, radix: 16)
        let words = ["DUNNO", "450", "DUNNO", "DEFER_IF_PERMIT", "HOLD"]
        let lines = words.enumerated().map { "1.\(time).\($0).0 user0@customer0.example RCPT \($1)\n" }
        #expect(try String(contentsOf: file, encoding: .utf8) == lines.joined())
    }

    @Test func `counts words beyond the maximum together`() {
        var tally = OutcomeTally()
        for number in 0..<1000 {
            _ = tally.count(Array("W\(number)".utf8).span, isRefusal: { _ in false })
        }
        #expect(tally.counts.count == OutcomeTally.maximumWords + 1)
        #expect(tally.counts[OutcomeTally.other] == 1000 - OutcomeTally.maximumWords)
    }
}

extension PolicyDialogue {
    /// Receives a reply; a policy client sends nothing after it.
    fileprivate mutating func receive(_ input: inout ByteBuffer) throws -> LoadStep {
        var output = ByteBuffer()
        defer { #expect(output.readableBytes == 0) }
        return try receive(&input, into: &output, at: .zero)
    }
}
