// SPDX-License-Identifier: Apache-2.0
import Foundation
import Rules
import Testing
import Wire

/// The dialogue without I/O. The transcripts of Fixtures/Milter have these lines:
///
///     | YAML                the configuration
///     header_checks LINE    a line of a PCRE table; body_checks, too
///     without EDIT          the MTA does not grant this edit
///     > EVENT               see `MilterDialoguePlayer.play`
///     ACTION                an action of the dialogue: all lines up to the next event
///
/// In a body, `\n` is CRLF.
@Suite struct MilterDialogueTests {
    static let transcripts = Fixture.names("Milter", "transcript")

    @Test(arguments: transcripts)
    func transcript(_ name: String) throws {
        let lines = try Fixture.lines("Milter/\(name).transcript")
        let directory = try TemporaryDirectory()
        var player = try MilterDialoguePlayer(lines.map { $0.text }, directory)
        var actions: [String] = []
        for (number, line) in lines where !MilterDialoguePlayer.isHead(line) {
            if line.hasPrefix("> ") {
                #expect(actions == [], "\(name), before line \(number)")
                actions = player.play(String(line.dropFirst(2)))
            } else {
                #expect((actions.isEmpty ? nil : actions.removeFirst()) == line, "\(name), line \(number)")
            }
        }
        #expect(actions == [], "\(name), at the end")
    }

    /// Events that lead to each state.
    private static let ways: [(state: String, events: [String])] = [
        ("idle", []),
        ("envelope", ["mail <a@example.org>"]),
        ("askingRecipient", ["mail <a@example.org>", "recipient <b@example.com>"]),
        ("headers", ["mail <a@example.org>", "header Subject: x"]),
        ("body", ["mail <a@example.org>", "body x\\n"]),
        ("writingBody", ["mail <a@example.org>", "body to the disk"]),
        ("settling", ["mail <a@example.org>", "body drop\\nx\\n", "end"]),
        ("concluding", ["mail <a@example.org>", "body drop\\nx\\n", "end", "answer DUNNO"]),
        ("buildingBody", ["mail <a@example.org>", "body drop\\nx\\n", "end", "answer DUNNO", "written"]),
        ("sendingBody", ["mail <a@example.org>", "body drop\\nx\\n", "end", "answer DUNNO", "written", "piece read"]),
        ("closed", ["close"]),
    ]

    private static let events = [
        "connect client.example.org 192.0.2.1 40000", "helo client.example.org", "mail <c@example.org>",
        "recipient <d@example.com>", "header Subject: y", "body y\\n", "body to the disk", "end", "abort", "close",
        "answer DUNNO", "answer 550 5.7.1 no", "charged", "written", "piece appended", "piece read", "drained",
        "read failed EIO",
    ]

    @Test func everyEventInEveryState() throws {
        let head = [
            "| limits: [ { name: sender, key: sender, rates: [ 1/1h ] } ]", "body_checks /^drop/ IGNORE",
        ]
        let directory = try TemporaryDirectory()
        var table: [String] = []
        for (state, way) in Self.ways {
            table.append("\(state):")
            for event in Self.events {
                var player = try MilterDialoguePlayer(head, directory)
                for step in way { _ = player.play(step) }
                let actions = player.play(event).joined(separator: ", ")
                table.append("    \(event): \(actions)\(player.isWaiting ? "; waits" : "")")
            }
        }
        let expected = try Fixture.lines("Milter/states.table").map { $0.text }
        #expect(table == expected)
    }
}
