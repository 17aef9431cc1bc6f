// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import LoadGenerator
import Loop
import NIOCore
import NIOPosix

struct LoadCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "Puts a measured load on a service.",
        discussion: """
            Exit status: 0 every operation was answered and no bound of --fail-if is broken, 1 some were not or one is, \
            68 the target's name is unknown, 69 the target cannot be reached or no connection to it is left, 74 a file or \
            standard output cannot be written, 130 interrupted.
            """,
        subcommands: [LoadPolicyCommand.self, LoadSMTPCommand.self, LoadMilterCommand.self])
}

struct LoadPolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy",
        abstract: "Asks a policy server as many smtpd processes would.",
        discussion: """
            Each connection is kept open and has one request outstanding, with the attributes that Postfix 3.7 sends. \
            Without --rate the next request follows the answer; with --rate requests are due at fixed times, and \
            latency counts from when a request was due, so that a stall shows.

            Example: weir load policy --target inet:127.0.0.1:10040 --connections 100 --rate 5000 --duration 30s
            """)

    @OptionGroup var load: LoadArguments

    @Option(help: "Which of rcpt, data and end-of-message to ask at.")
    var states = ProtocolStates(set: [.rcpt])

    @Option(help: "Recipients of each message.")
    var recipients = 1

    @Option(
        help: ArgumentHelp(
            "Append a line for each answered request: instance, sender, state, first word of the action.",
            valueName: "file"))
    var account: String?

    func validate() throws {
        guard 1...10_000 ~= recipients else { throw ValidationError("--recipients is 1 to 10000") }
    }

    func run() throws {
        var mix = PolicyMix()
        mix.population = load.population
        mix.states = states.set
        mix.recipients = recipients
        mix.seed = load.seed
        mix.account = account
        let (honestRate, instance) = (load.rate, PolicyInstance.first)
        try load.run(on: MultiThreadedEventLoopGroup.singleton.next()) { [mix] in
            try PolicyTraffic(mix, honestRate: honestRate, firstInstance: instance)
        }
    }
}

struct LoadSMTPCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "smtp",
        abstract: "Sends mail as many clients would, and looks at what arrives.",
        discussion: """
            Each connection is kept open and sends one message after the other. With --sink a server of this command \
            listens there, to be the last hop of what is tested; it checks that every accepted message arrives once, and as it was \
            sent: what stands above its first header line may be added on the way, and undisclosed-recipients headers taken out.

            Example: weir load smtp --target inet:127.0.0.1:10025 --sink inet:127.0.0.1:10026 --undisclosed 0.1

            Recipients are at --domain. See that the target hands their mail to the sink and nowhere else.
            """)

    @OptionGroup var load: LoadArguments
    @OptionGroup var messages: MessageArguments

    @Option(help: ArgumentHelp("Where a sink listens for what the target hands on.", valueName: "target"))
    var sink: LoadTarget?

    @Option(help: ArgumentHelp("How long to wait for what was accepted to arrive at the sink.", valueName: "time"))
    var drain = TimeArgument(argument: "30s")!

    func run() throws {
        let mix = try messages.mix(seed: load.seed)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let (population, honestRate, run, date) = (load.population, load.rate, LoadArguments.runName, messages.date)
        let arrivals = try eventLoop.submit {
            NIOLoopBound(Arrivals(mix, run: run, date: date), eventLoop: eventLoop)
        }.wait()
        if let sink {
            let address = try LoadArguments.address(of: sink, named: "--sink", iOwn: load.iOwn)
            do {
                _ = try SMTPSink.start(on: eventLoop, address: address, arrivals: arrivals).wait()
            } catch {
                LoadArguments.complain("cannot listen on \(sink): \(error.systemReason)")
                throw ExitCode(EX_UNAVAILABLE)
            }
        }
        try load.run(
            on: eventLoop,
            complete: { report, interruption in
                guard sink != nil else { return report }
                var report = report
                let deadline = NIODeadline.now() + drain.amount
                while !interruption.hasCome, NIODeadline.now() < deadline,
                    case let missing = try eventLoop.submit({ arrivals.value.missing }).wait(), missing > 0
                {
                    LoadSummary.showLine("waiting for \(missing) messages at the sink")
                    usleep(50_000)
                }
                report.sink = try eventLoop.submit { arrivals.value.finish() }.wait()
                return report
            },
            traffic: { SMTPTraffic(mix, population: population, honestRate: honestRate, arrivals: arrivals.value) })
    }
}

struct LoadMilterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "milter",
        abstract: "Shows mail to a milter as many smtpd processes would.",
        discussion: """
            Each connection is kept open and shows one message after the other, with the macros of Postfix. The trojan of \
            --profile trojan is known by its login.

            Example: weir load milter --target inet:127.0.0.1:10041 --connections 20 --rate 500
            """)

    @OptionGroup var load: LoadArguments
    @OptionGroup var messages: MessageArguments

    func run() throws {
        let mix = try messages.mix(seed: load.seed)
        let (population, honestRate, run, date) = (load.population, load.rate, LoadArguments.runName, messages.date)
        try load.run(on: MultiThreadedEventLoopGroup.singleton.next()) {
            MilterTraffic(mix, population: population, honestRate: honestRate, run: run, date: date)
        }
    }
}

/// What the messages are like.
struct MessageArguments: ParsableArguments {
    @Option(help: "Plain text of so many bytes (default: a mix of texts, HTML and attachments, 28 KB on the average).")
    var size: Int?

    @Option(help: ArgumentHelp("Send the .eml files of this folder.", valueName: "folder"))
    var messages: String?

    @Option(
        help: ArgumentHelp("Share of messages with a To: undisclosed-recipients:;, from 0 to 1.", valueName: "share"))
    var undisclosed = 0.0

    @Option(help: ArgumentHelp("Share of messages with the header of --hit-header, from 0 to 1.", valueName: "share"))
    var hits = 0.0

    @Option(help: ArgumentHelp("A header that the rules under test look for.", valueName: "name: value"))
    var hitHeader: String?

    @Option(help: "Recipients of a message that has several.")
    var recipients = 1

    @Option(
        help: ArgumentHelp(
            "Share of messages that have --recipients of them, from 0 to 1; the others have one.", valueName: "share"))
    var multi = 1.0

    @Option(help: "The domain of all recipients.")
    var domain = "example.org"

    func validate() throws {
        guard 1...100_000_000 ~= size ?? 1 else { throw ValidationError("--size is 1 to 100000000") }
        guard size == nil || messages == nil else { throw ValidationError("--size and --messages exclude each other") }
        for (name, share) in [("--undisclosed", undisclosed), ("--hits", hits), ("--multi", multi)] {
            guard 0...1 ~= share else { throw ValidationError("\(name) is 0 to 1") }
        }
        guard 1...10_000 ~= recipients else { throw ValidationError("--recipients is 1 to 10000") }
        guard hits == 0 || hitHeader != nil else { throw ValidationError("--hits takes --hit-header") }
        guard (hitHeader ?? "a: b").wholeMatch(of: /[!-9;-~]+:[ -~]*/) != nil else {
            throw ValidationError("--hit-header is 'name: value'")
        }
        guard domain.wholeMatch(of: /[A-Za-z0-9.-]+/) != nil else { throw ValidationError("--domain is a domain") }
    }

    func mix(seed: UInt64) throws -> MessageMix {
        var mix = MessageMix()
        if let size { mix.content = .text(size: size) }
        if let messages { mix.content = .files(try Self.files(in: messages)) }
        mix.undisclosed = undisclosed
        mix.hits = hits
        mix.hitLine = hitHeader ?? ""
        mix.recipients = recipients
        mix.multi = multi
        mix.domain = domain
        mix.seed = seed
        return mix
    }

    private static func files(in folder: String) throws -> [[UInt8]] {
        do {
            let names = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".eml") }
                .sorted()
            guard !names.isEmpty else { throw ValidationError("there is no .eml file in \(folder)") }
            return try names.map { Array(try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\($0)"))) }
        } catch let error as CocoaError {
            throw ValidationError("can't read \(folder): \(error.localizedDescription)")
        }
    }

    /// As in a Date: header, in UTC.
    var date: String {
        var now = time(nil)
        var parts = tm()
        gmtime_r(&now, &parts)
        var text = [CChar](repeating: 0, count: 64)
        let length = strftime(&text, text.count, "%a, %d %b %Y %H:%M:%S +0000", &parts)
        return String(decoding: text[..<length].map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

extension PolicyInstance {
    fileprivate static var first: PolicyInstance {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return PolicyInstance(
            processID: UInt64(getpid()), time: UInt64(now.tv_sec) * 1_000_000 + UInt64(now.tv_nsec) / 1000)
    }
}

/// A comma-separated list of states, as an argument.
struct ProtocolStates: ExpressibleByArgument, CustomStringConvertible {
    var set: Set<ProtocolState>

    init(set: Set<ProtocolState>) {
        self.set = set
    }

    init?(argument: String) {
        set = []
        for name in argument.split(separator: ",", omittingEmptySubsequences: false) {
            guard let state = ProtocolState(rawValue: name.uppercased()) else { return nil }
            set.insert(state)
        }
    }

    var description: String {
        ProtocolState.allCases.filter(set.contains).map { $0.rawValue.lowercased() }.joined(separator: ",")
    }
}
