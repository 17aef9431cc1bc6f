// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import ArgumentParser
import Foundation
import Limits
import Report
import Settings

struct LimitsCommand: AsyncParsableCommand {
    private static let exitStatus = """
        Exit status: 0 success, 1 nothing changed or the service refused, 64 wrong arguments, 69 the service is \
        unreachable, 74 the answer can't be written, 75 the ledger can't be used now, 77 the user may not ask the \
        service, 78 the configuration does not say where the service listens.
        """

    static let configuration = CommandConfiguration(
        commandName: "limits",
        abstract: "Shows and changes usage, raises and blocks in the running service.",
        discussion: """
            Connects to the admin socket; run it as root or as a member of the socket's group. Changes take effect at \
            once, survive restarts, and are logged with 'audit:'.

            \(exitStatus)

            Example: weir limits show user@example.org
            """,
        subcommands: [
            List.self, Show.self, Reset.self, Raise.self, Unraise.self, Block.self, Unblock.self, Audit.self,
        ])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists the keys that are closest to their limits, or all that are blocked or raised.",
            discussion: """
                Where hosts share limits, the figures are of all hosts together. The last line says how old those of \
                each host are, and which hosts have not answered.

                \(exitStatus)

                Example: weir limits list --limit per-user --most 20
                Example: weir limits list --blocked --match '*@example.org'
                """)

        @OptionGroup var options: ConfigurationOptions
        @Option(help: ArgumentHelp("Only this limit.", valueName: "name"), completion: Completions.limits)
        var limit: String?
        @Flag(help: "Only blocked keys.") var blocked = false
        @Flag(help: "Only raised keys.") var raised = false
        @Option(
            help: ArgumentHelp("Only keys that have used this part of a window or more.", valueName: "percent"),
            transform: NumberArgument.within(1...1000))
        var over: Int?
        @Option(
            help: ArgumentHelp(
                "Only keys that match this shell pattern, in upper or lower case, such as '*@example.org'.",
                valueName: "pattern"))
        var match: String?
        @Option(
            help: ArgumentHelp("Maximum number of keys; the fullest come first (default: 50).", valueName: "number"),
            transform: NumberArgument.within(1...Ledger.mostFullest))
        var most = 50
        @Flag(help: "Print JSON.") var json = false

        func validate() throws {
            guard [blocked, raised, over != nil].count(where: { $0 }) <= 1 else {
                throw ValidationError("--blocked, --raised and --over exclude each other")
            }
        }

        /// What is printed instead of an empty list.
        private var none: String {
            let which = match == nil ? "key" : "key that matches"
            if let over { return "no \(which) has used \(over) % of a window" }
            return blocked ? "no \(which) is blocked" : raised ? "no \(which) is raised" : "no \(which)"
        }

        func run() async throws {
            let state = blocked ? "blocked" : raised ? "raised" : over.map(String.init)
            guard state == nil, match == nil else {
                let (listing, hosts) = try await Admin.ask(options) { client in
                    let listing = try await client.keys(in: state, limit: limit, match: match, most: most)
                    return (listing, try await client.hosts())
                }
                try Admin.print(listing.keys, json: json, whenEmpty: none)
                if json { return }
                let rest = listing.count - listing.keys.count
                if listing.isCut == true {
                    try StandardOutput.write(
                        line: "... and \(rest > 0 ? "at least \(rest)" : "perhaps") more: each host tells of "
                            + "\(Ledger.mostFullest) keys at most; --limit and --match narrow the list")
                } else if rest > 0 {
                    try StandardOutput.write(line: "... and \(rest) more")
                }
                return try Admin.print(hosts)
            }
            let (standings, keys, hosts) = try await Admin.ask(options) { client in
                let standings = try await client.fullest(most, limit: limit)
                let limits = try await standings.count < most ? [] : client.status().limits
                let keys = limits.reduce(0) { $1.name == limit ?? $1.name ? $0 + $1.keys : $0 }
                return (standings, keys, try await client.hosts())
            }
            try Admin.print(standings, json: json, whenEmpty: "no key has used any of its limits")
            if json { return }
            // Other hosts may have other keys, and the same ones.
            if keys > standings.count {
                try StandardOutput.write(
                    line: "... and \(hosts == nil ? "" : "at least ")\(keys - standings.count) more")
            }
            try Admin.print(hosts)
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Shows the usage of one key in every limit that counts it.",
            discussion: """
                Where hosts share a limit, the sum of all hosts comes first, then the part of each.

                \(exitStatus)

                Example: weir limits show user@example.org
                """)

        @OptionGroup var options: ConfigurationOptions
        @Argument(
            help: "Key, such as an address, login or domain: as weir limits list prints it, or as in a request.",
            completion: Completions.keys)
        var key: String
        @Option(help: ArgumentHelp("Only this limit.", valueName: "name"), completion: Completions.limits)
        var limit: String?
        @Flag(help: "Print JSON.") var json = false

        func run() async throws {
            let (standings, hosts) = try await Admin.ask(options) { client in
                (try await client.standings(ofKey: key, limit: limit), try await client.hosts())
            }
            try Admin.print(
                standings, json: json, withParts: true, whenEmpty: Admin.unknown(key, limit: limit))
            if !json, standings.isEmpty || hosts?.fault != nil { try Admin.print(hosts) }
        }
    }

    struct Reset: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Sets the usage of keys to zero and ends their blocks.",
            discussion: """
                \(exitStatus)

                Example: weir limits reset user@example.org
                Example: weir limits reset --all --limit per-user --yes
                """)

        @OptionGroup var keys: Keys

        func run() async throws { try await keys.intervene(.reset, saying: "reset") }
    }

    struct Raise: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Gives a key different rates for a while.",
            discussion: """
                Each rate replaces the limit's rate of the same window; other rates stay. A new raise replaces an \
                earlier one.

                \(exitStatus)

                Example: weir limits raise user@example.org 5000/1h 20000/1d --for 2d
                """)

        @Argument(help: "Key, as weir limits list prints it, or as in a request.", completion: Completions.keys)
        var key: String
        @Argument(help: "Rates, such as 5000/1h.") var rates: [String]
        @OptionGroup var target: Target
        @Option(
            name: .customLong("for"), help: ArgumentHelp("Duration, such as 2d (default: 1d).", valueName: "time"),
            transform: DurationArgument.parsed)
        var duration = DurationArgument(argument: "1d")!

        func run() async throws {
            try await target.intervene(.raise, key: key, rates: rates, duration: duration)
        }
    }

    struct Unraise: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Ends raises: the rates of the configuration apply again.",
            discussion: """
                \(exitStatus)

                Example: weir limits unraise user@example.org
                Example: weir limits unraise --match '*@example.org' --yes
                """)

        @OptionGroup var keys: Keys

        func run() async throws { try await keys.intervene(.unraise, saying: "ended the raises of") }
    }

    struct Block: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Refuses all requests of keys, with the answer of `block.over`.",
            discussion: """
                A key that no limit has counted yet needs --limit. --all and --match block keys that have been \
                counted, no later ones.

                \(exitStatus)

                Example: weir limits block user@example.org --for 12h
                Example: weir limits block --match '*@example.org' --limit per-user --for 1h
                """)

        @OptionGroup var keys: Keys
        @Option(
            name: .customLong("for"),
            help: ArgumentHelp("Duration, such as 12h (default: until unblocked).", valueName: "time"),
            transform: DurationArgument.parsed)
        var duration: DurationArgument?

        func run() async throws { try await keys.intervene(.block, saying: "blocked", duration: duration) }
    }

    struct Unblock: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Ends blocks, and forgets the refused requests that led to them.",
            discussion: """
                \(exitStatus)

                Example: weir limits unblock user@example.org
                Example: weir limits unblock --all --limit per-user
                """)

        @OptionGroup var keys: Keys

        func run() async throws { try await keys.intervene(.unblock, saying: "unblocked") }
    }

    struct Audit: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists the last hundred manual changes, newest first.",
            discussion: """
                \(exitStatus)

                Example: weir limits audit
                """)

        @OptionGroup var options: ConfigurationOptions
        @Flag(help: "Print JSON.") var json = false

        func run() async throws {
            let snapshot = try await Admin.ask(options) { try await $0.snapshot() }
            let entries = snapshot.audit
            if entries.isEmpty, let trouble = snapshot.status.trouble {
                Admin.complain("can't read the audit trail: \(trouble)")
                throw ExitCode(EX_TEMPFAIL)
            }
            if json { return try StandardOutput.write(line: JSONText.indented(entries)) }
            if entries.isEmpty { try StandardOutput.write(line: "no manual changes") }
            for entry in entries {
                let time = Date(timeIntervalSince1970: Double(entry.time)).formatted(.iso8601)
                try StandardOutput.write(line: "\(time) \(EventLog.escaped(entry.description))")
            }
        }
    }

    /// `90s`, `15m`, `12h`, `2d` or `1w`; from one second to ten years.
    struct DurationArgument {
        let seconds: Int64

        private static let longest: Int64 = 10 * 366 * 86_400

        init?(argument: String) {
            seconds = (Rate.duration(argument) ?? 0) / 1000
            guard 1...Self.longest ~= seconds else { return nil }
        }

        /// - Throws: `ValidationError`, with the units and bounds.
        static func parsed(_ text: String) throws -> DurationArgument {
            guard let duration = DurationArgument(argument: text) else {
                throw ValidationError(
                    "expected a whole number and a unit (s, m, h, d or w), such as 12h, from 1s to ten years (3660d)")
            }
            return duration
        }
    }

    /// The options of all interventions.
    struct Target: ParsableArguments {
        @OptionGroup var options: ConfigurationOptions
        @Option(help: ArgumentHelp("Only this limit.", valueName: "name"), completion: Completions.limits)
        var limit: String?
        @Option(help: ArgumentHelp("Reason, for the audit trail.", valueName: "text")) var reason: String?
        @Flag(help: "Print JSON.") var json = false

        func intervene(
            _ action: KeyAction, key: String, rates: [String]? = nil, duration: DurationArgument? = nil
        ) async throws {
            let message = AdminMessages.Intervention(
                action: action, key: key, limit: limit, rates: rates, duration: duration?.seconds, reason: reason)
            let standings = try await Admin.ask(options) { try await $0.intervene(message) }
            guard !standings.isEmpty else {
                let mayBeNew = [.block, .raise].contains(action)
                let hint = mayBeNew ? "; for a new key, choose a limit with --limit" : ""
                Admin.complain("nothing changed: \(Admin.unknown(key, limit: limit))\(hint)")
                throw ExitCode(1)
            }
            try Admin.print(standings, json: json, whenEmpty: "")
        }
    }

    /// One key, or many.
    struct Keys: ParsableArguments {
        /// More keys than this are changed only with `--yes`.
        private static let mostUnconfirmed = 10

        @Argument(help: "Key, as weir limits list prints it, or as in a request.", completion: Completions.keys)
        var key: String?
        @Flag(help: "All keys that this concerns.") var all = false
        @Option(
            help: ArgumentHelp(
                "All of these keys that match a shell pattern, in upper or lower case, such as '*@example.org'.",
                valueName: "pattern"))
        var match: String?
        @Flag(help: "Do it for more than 10 keys; without this, only say how many and which.") var yes = false
        @OptionGroup var target: Target

        func validate() throws {
            let given = [key != nil, all, match != nil].count(where: { $0 })
            guard given == 1 else {
                throw ValidationError(
                    "expected a key, --all, or --match with a pattern" + (given > 1 ? ", and only one of them" : ""))
            }
            guard key == nil || !yes else { throw ValidationError("--yes is for --all and --match") }
        }

        func intervene(_ action: KeyAction, saying done: String, duration: DurationArgument? = nil) async throws {
            if let key { return try await target.intervene(action, key: key, duration: duration) }
            let message = AdminMessages.SelectionIntervention(
                action: action, limit: target.limit, match: match, duration: duration?.seconds,
                reason: target.reason, most: yes ? nil : Self.mostUnconfirmed)
            let changed = try await Admin.ask(target.options) { try await $0.intervene(message) }
            if target.json {
                try StandardOutput.write(line: JSONText.indented(changed))
            } else {
                try print(changed, done)
            }
            guard !changed.isDone || changed.count == 0 else { return }
            // The refusal comes after the list, where it is seen.
            try StandardOutput.flush()
            Admin.complain(
                changed.isDone
                    ? "nothing changed: no such key"
                    : "nothing changed: \(action.rawValue) would change \(changed.count) keys; add --yes to do it")
            throw ExitCode(1)
        }

        private func print(_ changed: KeysChanged, _ done: String) throws {
            for key in changed.keys {
                try StandardOutput.write(line: "\(key.limit) \(EventLog.escaped(key.key))")
            }
            if changed.count > changed.keys.count {
                try StandardOutput.write(line: "... and \(changed.count - changed.keys.count) more")
            }
            guard changed.isDone, changed.count > 0 else { return }
            let note = changed.note.map { ": \(EventLog.escaped($0))" } ?? ""
            try StandardOutput.write(line: "\(done) \(quantity(changed.count, "key"))\(note)")
        }
    }
}
