// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import ArgumentParser
import Foundation
import Limits
import Report
import Rules
import Settings

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
        @Argument(
            help: "The key: an address, a login, a domain, as `weir limits list` writes it, or as a request has it.")
        var key: String
        @Option(help: "Only this limit.") var limit: String?
        @Flag(help: "Print JSON.") var json = false

        func run() async throws {
            let standings = try await Admin.ask(options) { try await $0.standings(ofKey: key, limit: limit) }
            try Admin.print(
                standings, json: json, whenEmpty: "no limit knows \(key): nothing has been counted for it lately")
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
                Each rate replaces the one of the same window; the others stay. Rates of an earlier raise end.

                Example: weir limits raise user@example.org 5000/1h 20000/1d --for 2d
                """)

        @OptionGroup var target: Target
        @Argument(help: "Rates, such as 5000/1h.") var rates: [String]
        @Option(name: .customLong("for"), help: "For how long, such as 2d.") var duration = DurationArgument(
            argument: "1d")!

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
        var duration: DurationArgument?

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
            let snapshot = try await Admin.ask(options) { try await $0.snapshot() }
            let entries = snapshot.audit
            if entries.isEmpty, let trouble = snapshot.status.trouble {
                Admin.complain("what was changed by hand can't be told while the ledger can't be kept: \(trouble)")
                throw ExitCode(75)
            }
            if json { return try Admin.printJSON(entries) }
            if entries.isEmpty { try StandardOutput.write(line: "nothing was changed by hand") }
            for entry in entries {
                let time = Date(timeIntervalSince1970: Double(entry.time)).formatted(.iso8601)
                try StandardOutput.write(line: "\(time) \(printable(entry.description.utf8))")
            }
        }
    }

    /// `90s`, `15m`, `12h`, `2d` or `1w`, from a second on.
    struct DurationArgument: ExpressibleByArgument {
        let seconds: Int64
        let defaultValueDescription: String

        init?(argument: String) {
            guard let milliseconds = Rate.duration(argument), milliseconds >= 1000 else { return nil }
            seconds = milliseconds / 1000
            defaultValueDescription = argument
        }
    }

    /// What an intervention is about.
    struct Target: ParsableArguments {
        @OptionGroup var options: ConfigurationOptions
        @Argument(help: "The key, as `weir limits list` writes it, or as a request has it.") var key: String
        @Option(help: "Only this limit.") var limit: String?
        @Option(help: "Why, for the audit trail.") var reason: String?
        @Flag(help: "Print JSON.") var json = false

        func intervene(
            _ action: AdminMessages.Intervention.Action, rates: [String]? = nil, duration: DurationArgument? = nil
        ) async throws {
            let message = AdminMessages.Intervention(
                action: action, key: key, limit: limit, rates: rates, duration: duration?.seconds, reason: reason)
            let standings = try await Admin.ask(options) { try await $0.intervene(message) }
            guard !standings.isEmpty else {
                Admin.complain(
                    "no limit knows \(key), so nothing was changed; name the limit that is meant with --limit")
                throw ExitCode(1)
            }
            try Admin.print(standings, json: json, whenEmpty: "")
        }
    }
}

extension AdminClient.Failure {
    fileprivate var exitStatus: Int32 {
        switch kind {
        case .unreachable: EX_UNAVAILABLE
        case .inTrouble: EX_TEMPFAIL
        case .notPermitted: EX_NOPERM
        case .refused: EXIT_FAILURE
        }
    }
}

/// The way to the running service, and of its answers to a person.
enum Admin {
    /// Seconds; a block that has no end is one of ten years.
    private static let endless = 9.0 * 365 * 86_400

    /// - Parameter command: what faults are said by.
    static func ask<T>(
        _ options: ConfigurationOptions, by command: String = "limits", _ body: (AdminClient) async throws -> T
    ) async throws -> T {
        try await ask(options.readAdmin(), by: command, body)
    }

    static func ask<T>(
        _ configuration: Configuration, by command: String, _ body: (AdminClient) async throws -> T
    ) async throws -> T {
        do {
            return try await body(AdminClient(configuration))
        } catch let failure as AdminClient.Failure {
            complain(failure.description, by: command)
            throw ExitCode(failure.exitStatus)
        }
    }

    static func complain(_ text: String, by command: String = "limits") {
        StandardError.write("weir \(command): \(printable(text.utf8))\n")
    }

    static func print(_ standings: [AdminMessages.Standing], json: Bool, whenEmpty: String) throws {
        if json { return try printJSON(standings) }
        if standings.isEmpty { return try StandardOutput.write(line: whenEmpty) }
        for standing in standings { try StandardOutput.write(line: description(of: standing)) }
    }

    static func printJSON(_ value: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        try StandardOutput.write(line: String(decoding: encoder.encode(value), as: UTF8.self))
    }

    /// `2d`, `1h 30m`: the two largest units, rounded up.
    static func duration(_ seconds: Int) -> String {
        let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)]
        let seconds = max(1, seconds)
        let index = units.firstIndex { seconds >= $0.1 }!
        let (unit, length) = units[index]
        let (smallUnit, smallLength) = units[min(index + 1, units.count - 1)]
        let rounded = (seconds + smallLength - 1) / smallLength * smallLength
        guard rounded == seconds else { return duration(rounded) }
        let rest = seconds % length / smallLength
        return "\(seconds / length)\(unit)" + (rest > 0 ? " \(rest)\(smallUnit)" : "")
    }

    /// `per-user user@example.org: recipients 12/100 per 1m, 540/1000 per 1h, room in 35s; 4 tries refused`
    static func description(of standing: AdminMessages.Standing) -> String {
        let now = Date().timeIntervalSince1970
        func rest(_ time: Double) -> String { duration(Int((time - now).rounded())) }
        let rates = standing.rates.map { rate in
            "\(rate.used)/\(rate.limit) per \(rate.window)" + (rate.freesAt.map { ", room in \(rest($0))" } ?? "")
        }
        var parts = [
            "\(standing.limit) \(printable(standing.key.utf8)): \(standing.count) \(rates.joined(separator: ", "))"
        ]
        if standing.refusedTries > 0 {
            parts.append("\(standing.refusedTries) \(standing.refusedTries == 1 ? "try" : "tries") refused")
        }
        if let until = standing.blockedUntil {
            parts.append(until - now > endless ? "blocked until unblocked" : "blocked for \(rest(until))")
        }
        if let until = standing.raisedUntil { parts.append("raised for \(rest(until))") }
        if standing.exempt { parts.append("exempt") }
        if standing.mode == "shadow" { parts.append("shadow") }
        if let note = standing.note { parts.append(printable(note.utf8)) }
        return parts.joined(separator: "; ")
    }
}
