// SPDX-License-Identifier: Apache-2.0
import Foundation
import NIOCore
import Testing
import Wire

/// Plays transcripts of a state machine. Lines:
///
///     ! EVENT      an event for the machine
///     > ACTION     an action that it returns; all of them, in order
///     = AWAITED    which side it now waits for
///     # a comment
enum DialogueTranscript {
    static func names(in folder: String) -> [String] {
        Bundle.module.urls(forResourcesWithExtension: "transcript", subdirectory: "Fixtures/\(folder)")!
            .compactMap { $0.lastPathComponent }.map { String($0.dropLast(".transcript".count)) }.sorted()
    }

    /// - Parameter tell: passes an event to the machine, and returns the actions.
    static func play(
        _ name: String, in folder: String, awaited: () -> String, tell: (String) -> [String]
    ) throws {
        let lines = try text(name, "transcript", in: folder).split(separator: "\n")
        var actions: [String] = []
        for (index, line) in lines.enumerated() where !line.hasPrefix("#") {
            let place: Comment = "\(folder)/\(name), command \(index + 1): \(line)"
            let text = String(line.dropFirst(2))
            switch line.prefix(2) {
            case "! ":
                #expect(actions == [], "\(place): before this")
                actions = tell(text)
            case "> ":
                let action = actions.isEmpty ? nil : actions.removeFirst()
                #expect(action == text, place)
            case "= ": #expect(awaited() == text, place)
            default: Issue.record("\(place): not a line of a transcript")
            }
        }
        #expect(actions == [], "\(folder)/\(name): at the end")
    }

    static func text(_ name: String, _ type: String, in folder: String) throws -> String {
        let url = Bundle.module.url(forResource: name, withExtension: type, subdirectory: "Fixtures/\(folder)")!
        return try String(contentsOf: url, encoding: .utf8)
    }
}

extension SMTPReply {
    /// From `250 2.0.0 Ok`.
    init(text: Substring) {
        let words = text.split(separator: " ", maxSplits: 1)
        self.init(Int(words[0])!, words.count > 1 ? String(words[1]) : "")
    }
}

extension SMTPClientSession.Command {
    init(named name: Substring) {
        self =
            switch name {
            case "greeting": .greeting
            case "ehlo": .ehlo
            case "helo": .helo
            case "xforward": .xforward
            case "mail": .mail
            case "recipient": .recipient
            case "data": .data
            case "end-of-data": .endOfData
            case "reset": .reset
            case "quit": .quit
            default: preconditionFailure("no command: \(name)")
            }
    }
}
