// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Limits
import Service

struct LimitsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "limits",
        abstract: "Shows and changes where senders stand with their limits, in the running service.",
        discussion: """
            Works over the admin socket: as root, or as a member of the group that the socket belongs to. What is \
            changed takes effect at once, is kept over restarts, and leaves a line in the log that begins with 'audit:'.

            Example: weir limits show user@example.org
            """,
        subcommands: [List.self, Show.self, Reset.self, Raise.self, Block.self, Unblock.self, Audit.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists the keys that are nearest to their limits.",
            discussion: "Example: weir limits list --limit per-user --most 20")

        @OptionGroup var options: ConfigurationOptions
        @Option(help: "Only this limit.") var limit: String?
        @Option(help: "How many keys, the fullest first.") var most = 50
        @Flag(help: "Print JSON.") var json = false

        func validate() throws {
            guard (1...100_000).contains(most) else { throw ValidationError("--most takes a number from 1 to 100000") }
        }

        func run() async throws {
            let standings = try await Admin.ask(options) { try await $0.fullest(most, limit: limit) }
            try Admin.print(standings, json: json, whenEmpty: "no key has used anything of a limit")
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Shows where one key stands with every limit that knows it.",
            discussion: "Example: weir limits show user@example.org")

        @OptionGroup var options: ConfigurationOptions
        @Argument(help: "The key: an address, a login, a domain, as `weir limits list` writes it.") var key: String
        @Option(help: "Only this limit.") var limit: String?
        @Flag(help: "Print JSON.") var json = false

        func run() async throws {
            let standings = try await Admin.ask(options) { try await $0.standings(ofKey: key, limit: limit) }
            try Admin.print(standings, json: json, whenEmpty: "no limit knows \(key): nothing has been counted for it lately")
        }
    }

    struct Reset: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Forgets what has been counted for a key, and ends a block.",
            discussion: "Example: weir limits reset user@example.org")

        @OptionGroup var target: Target

        func run() async throws { try await target.intervene(.reset) }
    }

    struct Raise: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Gives a key other rates for a time.",
            discussion: """
                Each rate replaces the one of the same window; the others stay.

                Example: weir limits raise user@example.org 5000/1h 20000/1d --for 2d
                """)

        @OptionGroup var target: Target
        @Argument(help: "Rates, such as 5000/1h.") var rates: [String]
        @Option(name: .customLong("for"), help: "For how long, such as 2d.") var duration = "1d"

        func run() async throws { try await target.intervene(.raise, rates: rates, duration: duration) }
    }

    struct Block: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Refuses everything from a key.",
            discussion: """
                A key that no limit knows yet needs --limit.

                Example: weir limits block user@example.org --for 12h
                """)

        @OptionGroup var target: Target
        @Option(name: .customLong("for"), help: "For how long, such as 12h; without it, until it is unblocked.")
        var duration: String?

        func run() async throws { try await target.intervene(.block, duration: duration) }
    }

    struct Unblock: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Ends a block.", discussion: "Example: weir limits unblock user@example.org")

        @OptionGroup var target: Target

        func run() async throws { try await target.intervene(.unblock) }
    }

    struct Audit: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists what was changed by hand, the last hundred changes, newest first.",
            discussion: "Example: weir limits audit")

        @OptionGroup var options: ConfigurationOptions
        @Flag(help: "Print JSON.") var json = false

        func run() async throws {
            let entries = try await Admin.ask(options) { try await $0.snapshot() }.audit
            if json { return try Admin.printJSON(entries) }
            if entries.isEmpty { print("nothing was changed by hand") }
            for entry in entries {
                let time = Date(timeIntervalSince1970: Double(entry.time)).formatted(.iso8601)
                print("\(time) \(Admin.printable(entry.description))")
            }
        }
    }

    /// What an intervention is about.
    struct Target: ParsableArguments {
        @OptionGroup var options: ConfigurationOptions
        @Argument(help: "The key, as `weir limits list` writes it.") var key: String
        @Option(help: "Only this limit.") var limit: String?
        @Option(help: "Why, for the audit trail.") var reason: String?
        @Flag(help: "Print JSON.") var json = false

        func intervene(
            _ action: AdminMessages.Intervention.Action, rates: [String]? = nil, duration: String? = nil
        ) async throws {
            var seconds: Int64?
            if let duration {
                guard let milliseconds = Rate.duration(duration), milliseconds >= 1000 else {
                    throw ValidationError("'\(duration)' is no duration; write such as 90s, 15m, 12h, 2d, 1w")
                }
                seconds = milliseconds / 1000
            }
            let message = AdminMessages.Intervention(
                action: action, key: key, limit: limit, rates: rates, duration: seconds, reason: reason)
            let standings = try await Admin.ask(options) { try await $0.intervene(message) }
            guard !standings.isEmpty else {
                Admin.complain(
                    limit == nil
                        ? "no limit knows \(key), so nothing was changed; name the limit that is meant with --limit"
                        : "there is no limit \(limit ?? "")")
                throw ExitCode(1)
            }
            try Admin.print(standings, json: json, whenEmpty: "")
        }
    }
}

/// The way to the running service, and of its answers to a person.
enum Admin {
    /// - Parameter command: what faults are said by.
    static func ask<T>(
        _ options: ConfigurationOptions, by command: String = "limits", _ body: (AdminClient) async throws -> T
    ) async throws -> T {
        let configuration = try options.readAdmin()
        do {
            return try await body(AdminClient(configuration))
        } catch let failure as AdminClient.Failure {
            complain(failure.description, by: command)
            // EX_UNAVAILABLE, EX_TEMPFAIL of sysexits.h.
            switch failure.kind {
            case .unreachable: throw ExitCode(69)
            case .inTrouble: throw ExitCode(75)
            case .refused: throw ExitCode(1)
            }
        }
    }

    static func complain(_ text: String, by command: String = "limits") {
        FileHandle.standardError.write(Data("weir \(command): \(text)\n".utf8))
    }

    static func print(_ standings: [AdminMessages.Standing], json: Bool, whenEmpty: String) throws {
        if json { return try printJSON(standings) }
        if standings.isEmpty { return Swift.print(whenEmpty) }
        for standing in standings { Swift.print(description(of: standing)) }
    }

    static func printJSON(_ value: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        Swift.print(String(decoding: try encoder.encode(value), as: UTF8.self))
    }

    /// What a peer may have sent moves no cursor.
    static func printable(_ text: String) -> String {
        text.unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : String($0) }.joined()
    }

    /// `per-user user@example.org: recipients 12/100 per 1m, 540/1000 per 1h, room in 35s; 4 tries refused`
    private static func description(of standing: AdminMessages.Standing) -> String {
        let now = Date().timeIntervalSince1970
        func seconds(_ time: Double) -> String { "\(max(1, Int((time - now).rounded(.up))))s" }
        let rates = standing.rates.map { rate in
            "\(rate.used)/\(rate.limit) per \(rate.window)" + (rate.freesAt.map { ", room in \(seconds($0))" } ?? "")
        }
        var parts = ["\(standing.limit) \(printable(standing.key)): \(standing.count) \(rates.joined(separator: ", "))"]
        if standing.refusedTries > 0 {
            parts.append("\(standing.refusedTries) \(standing.refusedTries == 1 ? "try" : "tries") refused")
        }
        if let until = standing.blockedUntil { parts.append("blocked for \(seconds(until))") }
        if let until = standing.raisedUntil { parts.append("raised for \(seconds(until))") }
        if standing.exempt { parts.append("exempt") }
        if standing.mode == "shadow" { parts.append("shadow") }
        return parts.joined(separator: "; ")
    }
}
