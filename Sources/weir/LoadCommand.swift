// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import LoadGenerator
import Loop
import NIOCore
import NIOPosix
import Report

struct LoadCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "Generates load and measures throughput and latency.",
        discussion: """
            Exit status: 0 every operation was answered and no --fail-if bound is broken, 1 otherwise, 66 a message \
            can't be read, 68 the name of the target doesn't resolve, 69 the target is unreachable or all connections \
            were lost, 74 a file or standard output can't be written, 130 interrupted.
            """,
        subcommands: [LoadPolicyCommand.self, LoadSMTPCommand.self, LoadMilterCommand.self])
}

struct LoadPolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy",
        abstract: "Sends policy requests as smtpd does.",
        discussion: """
            Each connection stays open and has one request outstanding, with the attributes of Postfix 3.7. Without \
            --rate, a connection sends its next request when the last is answered (closed loop). With --rate, requests \
            are due at fixed times, and latency is measured from the time a request was due (open loop).

            Example: weir load policy --target inet:127.0.0.1:10040 --connections 100 --rate 5000 --duration 30s
            """)

    @OptionGroup var load: LoadArguments

    @Option(help: "Protocol states to send: a comma-separated list of rcpt, data and end-of-message.")
    var states = ProtocolStates(set: PolicyMix().states)

    @Option(help: "Recipients per message.")
    var recipients = PolicyMix().recipients

    @Option(
        help: ArgumentHelp(
            "Append a line per answered request: instance, sender, state, first word of the action.",
            valueName: "file"),
        completion: .file())
    var account: String?

    func validate() throws {
        guard 1...10_000 ~= recipients else { throw ValidationError("--recipients must be from 1 to 10000") }
    }

    func run() throws {
        var mix = PolicyMix()
        mix.population = load.population
        mix.states = states.set
        mix.recipients = recipients
        mix.seed = load.seed
        mix.account = account
        let instance = PolicyInstance.first
        try load.run(on: MultiThreadedEventLoopGroup.singleton.next()) { [mix] in
            try PolicyTraffic(mix, firstInstance: instance)
        }
    }
}

struct LoadSMTPCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "smtp",
        abstract: "Sends messages over SMTP and checks what arrives.",
        discussion: """
            Each connection stays open and sends one message after another. With --sink, this command also listens as \
            the last hop, and checks that every accepted message arrives exactly once for each accepted recipient, \
            unchanged, and that no refused message does. Lines added above its first header line and removed \
            undisclosed-recipients headers don't count as changes.

            Example: weir load smtp --target inet:127.0.0.1:10025 --sink inet:127.0.0.1:10026 --undisclosed 0.1

            Recipients are at --domain. Make sure that the target delivers their mail to the sink and nowhere else.
            """)

    @OptionGroup var load: LoadArguments
    @OptionGroup var messages: MessageArguments

    @Option(help: ArgumentHelp("Listen here for the mail that the target delivers.", valueName: "target"))
    var sink: LoadTarget?

    @Option(help: ArgumentHelp("How long to wait for accepted messages to arrive at the sink.", valueName: "time"))
    var drain = TimeArgument(argument: "30s")!

    func run() throws {
        let mix = try messages.mix(seed: load.seed)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let (population, run, date) = (load.population, LoadArguments.runName, messages.date)
        let arrivals = try eventLoop.submit {
            NIOLoopBound(Arrivals(mix, run: run, date: date), eventLoop: eventLoop)
        }.wait()
        if let sink {
            let address = try sink.localAddress(option: "--sink", command: "load", iOwn: load.iOwn)
            do {
                _ = try SMTPSink.start(on: eventLoop, address: address, arrivals: arrivals).wait()
            } catch {
                LoadArguments.complain("can't listen on \(sink): \(error.systemReason)")
                throw ExitCode(EX_UNAVAILABLE)
            }
        }
        try load.run(
            on: eventLoop,
            complete: { report, interruption in
                guard sink != nil else { return report }
                var report = report
                let deadline = NIODeadline.now() + drain.amount
                while !interruption.isSet, NIODeadline.now() < deadline,
                    case let missing = try eventLoop.submit({ arrivals.value.missing }).wait(), missing > 0
                {
                    LoadSummary.showLine("waiting for \(missing) messages at the sink")
                    usleep(50_000)
                }
                report.sink = try eventLoop.submit { arrivals.value.finish() }.wait()
                return report
            },
            traffic: { SMTPTraffic(mix, population: population, arrivals: arrivals.value) })
    }
}

struct LoadMilterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "milter",
        abstract: "Sends messages over the milter protocol as smtpd does.",
        discussion: """
            Each connection stays open and sends one message after another, with the macros of Postfix. The sender of \
            --profile trojan is identified by its SASL login.

            Example: weir load milter --target inet:127.0.0.1:10041 --connections 20 --rate 500
            """)

    @OptionGroup var load: LoadArguments
    @OptionGroup var messages: MessageArguments

    func run() throws {
        let mix = try messages.mix(seed: load.seed)
        let (population, run, date) = (load.population, LoadArguments.runName, messages.date)
        try load.run(on: MultiThreadedEventLoopGroup.singleton.next()) {
            MilterTraffic(mix, population: population, run: run, date: date)
        }
    }
}

/// The options for the content and recipients of messages. Defaults are those of `MessageMix`.
struct MessageArguments: ParsableArguments {
    @Option(help: "Send plain text of this many bytes (default: text, HTML and attachments, 28 KB on average).")
    var size: Int?

    @Option(
        help: ArgumentHelp("Send the .eml files of this directory.", valueName: "directory"), completion: .directory)
    var messages: String?

    @Option(
        help: ArgumentHelp("Share of messages with a To: undisclosed-recipients:; header, 0 to 1.", valueName: "share"))
    var undisclosed = MessageMix().undisclosed

    @Option(help: ArgumentHelp("Share of messages with the header of --hit-header, 0 to 1.", valueName: "share"))
    var hits = MessageMix().hits

    @Option(help: ArgumentHelp("Header that the tested rules match.", valueName: "name: value"))
    var hitHeader: String?

    @Option(help: "Recipients of a message with several recipients.")
    var recipients = MessageMix().recipients

    @Option(
        help: ArgumentHelp(
            "Share of messages with --recipients recipients, 0 to 1; the others have one.", valueName: "share"))
    var multi = MessageMix().multi

    @Option(help: "Domain of all recipients.")
    var domain = MessageMix().domain

    func validate() throws {
        guard 1...100_000_000 ~= size ?? 1 else { throw ValidationError("--size must be from 1 to 100000000") }
        guard size == nil || messages == nil else { throw ValidationError("use either --size or --messages, not both") }
        for (name, share) in [("--undisclosed", undisclosed), ("--hits", hits), ("--multi", multi)] {
            guard 0...1 ~= share else { throw ValidationError("\(name) must be from 0 to 1") }
        }
        guard 1...10_000 ~= recipients else { throw ValidationError("--recipients must be from 1 to 10000") }
        guard hits == 0 || hitHeader != nil else { throw ValidationError("--hits needs --hit-header") }
        guard (hitHeader ?? "a: b").wholeMatch(of: /[!-9;-~]+:[ -~]*/) != nil else {
            throw ValidationError("--hit-header must be 'name: value'")
        }
        guard domain.wholeMatch(of: /[A-Za-z0-9.-]+/) != nil else {
            throw ValidationError("--domain must be a domain name")
        }
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
        let files: [[UInt8]]
        do {
            files = try MessageFiles.contents(of: Array(folder.utf8)) { $0.suffix(4).elementsEqual(".eml".utf8) }
        } catch {
            LoadArguments.complain("\(error)")
            throw ExitCode(EX_NOINPUT)
        }
        guard !files.isEmpty else { throw ValidationError("no .eml files in \(folder)") }
        return files
    }

    /// The value of a Date: header.
    var date: String { utcText(time(nil), format: "%a, %d %b %Y %H:%M:%S +0000") }
}

extension PolicyInstance {
    fileprivate static var first: PolicyInstance {
        PolicyInstance(processID: UInt64(getpid()), time: UInt64(microseconds(of: CLOCK_REALTIME)))
    }
}

/// A comma-separated list of protocol states.
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
