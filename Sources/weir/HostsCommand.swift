// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Engine
import Glibc
import Rules
import Settings
import Sharing

struct HostsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hosts",
        abstract: "Shows the hosts that share limits, and tells the engine which one is gone.",
        discussion: """
            Asks the engine that weir.yaml names in `shared`. The service need not run. Run it as root, or as a user \
            who may read weir.yaml and the file with the password.

            Exit status: 0 done, 1 nothing changed, 69 the engine can't be used, 78 the configuration has errors or \
            no `shared`.

            Example: weir hosts
            """,
        subcommands: [List.self, Gone.self], defaultSubcommand: List.self)

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists the hosts of weir.yaml, and others that the engine knows.",
            discussion: """
                For each host: when the engine last heard it, and whether its limits, share and list of hosts are the \
                same as those of this host.

                Example: weir hosts list --json
                """)

        @OptionGroup var options: ConfigurationOptions
        @Flag(help: "Print JSON.") var json = false

        func run() throws {
            let engine = try SharedEngine(options)
            let table = HostTable(try engine.ask { try $0.hosts() }, engine)
            try StandardOutput.write(line: json ? JSONText.indented(table) : table.text)
        }
    }

    struct Gone: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Tells the engine to wait no longer for a host that will not come back.",
            discussion: """
                After the engine has restarted, it waits for all hosts, because each of them knows what it has used of \
                the limits. For a host that is gone, nobody waits. What that host has used counts as unused, so the \
                other hosts may admit more than the limit until the longest window has passed. Do this only for a host \
                whose Weir has stopped. If the host connects again, it counts again.

                Example: weir hosts gone mx3 --yes
                """)

        @OptionGroup var options: ConfigurationOptions
        @Argument(help: "Name of the host, as in shared.hosts.", completion: Completions.hosts) var name: String
        @Flag(help: "Do it; without this, only say what it means.") var yes = false

        func run() throws {
            let engine = try SharedEngine(options)
            let known = try engine.ask { try $0.hosts() }
            try check(known, engine)
            guard try engine.ask({ try $0.declareGone(name, in: known) }) else {
                throw refusal("the engine has restarted meanwhile; try again")
            }
            try StandardOutput.write(line: "nobody waits for \(name)")
            guard engine.settings.hosts.contains(name) else { return }
            try StandardOutput.write(
                line: "Remove \(name) from shared.hosts on all hosts: until then, it keeps its share, and the engine "
                    + "waits for it again after a restart.")
        }

        private func check(_ known: KnownHosts, _ engine: SharedEngine) throws {
            let host = known.hosts.first { $0.name == name }
            guard !known.epochID.isEmpty else {
                throw refusal("no host has connected to the engine since it was started")
            }
            guard host != nil || engine.settings.hosts.contains(name) else {
                let names = Set(known.hosts.map(\.name) + engine.settings.hosts).sorted().joined(separator: ", ")
                throw refusal("there is no host \(name); the hosts are \(names)")
            }
            if let host, host.isConnected {
                throw refusal("\(name) is connected to the engine; stop Weir there first")
            }
            if host?.isGone == true { throw refusal("\(name) is gone already") }
            guard yes else {
                throw refusal(
                    "for a host that is gone, nobody waits, and what it has used counts as unused: the other hosts may "
                        + "admit more than the limits until the longest window has passed. If Weir on \(name) has "
                        + "stopped for good, add --yes")
            }
        }

        private func refusal(_ reason: String) -> ExitCode {
            StandardError.complain(printable("nothing changed: \(reason)".utf8), by: "hosts")
            return ExitCode(1)
        }
    }
}

/// The engine that a configuration names.
private struct SharedEngine {
    let settings: Configuration.Shared
    let address: EngineAddress

    init(_ options: ConfigurationOptions) throws {
        settings = try options.read().configuration.shared
        guard let address = settings.engine else {
            StandardError.complain("\(options.config) has no shared.engine: this host shares no limits", by: "hosts")
            throw ExitCode(EX_CONFIG)
        }
        self.address = address
    }

    func ask<T>(_ body: (EngineInquiry) throws -> T) throws -> T {
        do {
            let inquiry = try EngineInquiry(address, settings.login)
            if let fault = try inquiry.info().fault { throw fault }
            return try body(inquiry)
        } catch let fault as EngineFault {
            StandardError.complain("can't use the engine \(address): \(fault.message)", by: "hosts")
            throw ExitCode(EX_UNAVAILABLE)
        }
    }
}

/// The hosts as the command prints them.
private struct HostTable: Encodable {
    struct Host: Encodable {
        let name: String
        let isThisHost: Bool
        let isConfigured: Bool
        let isConnected: Bool
        /// nil if the engine has not heard the host since it was started.
        let lastHeardSeconds: Int?
        /// What is other than on this host: limits, share, hosts; nil if either host is unknown.
        let differences: [String]?
        let isGone: Bool
        /// Whether another host calls itself so, too.
        let hasSecondLedger: Bool
    }

    let engine: String
    let hosts: [Host]

    init(_ known: KnownHosts, _ engine: SharedEngine) {
        let settings = engine.settings
        self.engine = "\(engine.address)"
        let own = known.hosts.first { $0.name == settings.name }?.terms
        let others = known.hosts.map(\.name).filter { !settings.hosts.contains($0) }
        hosts = (settings.hosts + others).map { name in
            let host = known.hosts.first { $0.name == name }
            return Host(
                name: name, isThisHost: name == settings.name, isConfigured: settings.hosts.contains(name),
                isConnected: host?.isConnected ?? false, lastHeardSeconds: host?.silence.map { Int($0 / 1000) },
                differences: own.flatMap { own in host?.terms.map { $0.differences(from: own) } },
                isGone: host?.isGone ?? false, hasSecondLedger: host?.hasSecondLedger ?? false)
        }
    }

    var text: String {
        let rows = [["HOST", "LAST HEARD", "LIMITS AND HOSTS", ""]] + hosts.map { $0.cells }
        let widths = (0..<3).map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { cells in
            let padded = zip(cells, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
            var line = (padded + [cells[3]]).joined(separator: "  ")
            while line.last == " " { line.removeLast() }
            return line
        }.joined(separator: "\n")
    }
}

extension HostTable.Host {
    /// Name, when it was heard, how it agrees, remarks.
    fileprivate var cells: [String] {
        // The engine takes a host for connected until it has missed some of its calls.
        let heard =
            lastHeardSeconds.map { "\(Admin.duration($0)) ago\(isConnected ? ", connected" : "")" }
            ?? "not since engine start"
        let agreement =
            switch differences {
            case nil: "unknown"
            case []: "same"
            case let differences?: "different: \(differences.joined(separator: ", "))"
            }
        let remarks = [
            (isThisHost, "this host"), (isGone, "gone"), (!isConfigured, "not in weir.yaml"),
            (hasSecondLedger, "another host has this name, too"),
        ].filter(\.0).map(\.1)
        return [name, heard, agreement, remarks.joined(separator: ", ")]
    }
}
