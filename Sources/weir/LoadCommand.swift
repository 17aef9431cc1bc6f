// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Dispatch
import Glibc
import LoadGenerator
import NIOCore
import NIOPosix

struct LoadCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "Put a measured load on a service.",
        subcommands: [LoadPolicyCommand.self])
}

struct LoadPolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy",
        abstract: "Ask a policy server as many smtpd processes would.",
        discussion: """
            Each connection is kept open and has one request outstanding, with the attributes that Postfix 3.7 sends. \
            Without --rate the next request follows the answer; with --rate requests are due at fixed times, and \
            latency counts from when a request was due, so that a stall shows.

              weir load policy --target inet:127.0.0.1:10040 --connections 100 --rate 5000 --duration 30s

            Exit status: 0 every request was answered, 1 some were not, 69 the target cannot be reached or closed \
            every connection, 130 interrupted.
            """)

    @Option(help: ArgumentHelp("inet:HOST:PORT or unix:PATH.", valueName: "target"))
    var target: LoadTarget

    @Option(help: "Connections, all opened before the first request.")
    var connections = 10

    @Option(help: "Requests a second in all (default: as fast as they are answered).")
    var rate: Double?

    @Option(help: ArgumentHelp("How long, as 500ms, 10s, 5m or 1h.", valueName: "time"))
    var duration = TimeArgument(argument: "10s")!

    @Option(help: "Requests in all, if the duration does not end first.")
    var count = 10_000_000

    @Option(help: ArgumentHelp("How long to wait for an answer.", valueName: "time"))
    var timeout = TimeArgument(argument: "10s")!

    @Option(help: "Senders, each with a SASL login of the same name.")
    var senders = 10_000

    @Option(help: "Client addresses, at most \(PolicyRequest.clients).")
    var clients = 10_000

    @Option(help: "Exponent of the Zipf law that senders and clients are drawn by; 0 draws all alike.")
    var zipf = 1.1

    @Option(help: "Which of rcpt, data and end-of-message to ask at.")
    var states = ProtocolStates(set: [.rcpt])

    @Option(help: "Recipients of each message.")
    var recipients = 1

    @Option(help: "The same seed sends the same mail.")
    var seed: UInt64 = 1

    @Flag(help: "Do as Postfix when a connection is lost: wait a second, connect, send the same request again.")
    var reconnect = false

    @Option(help: ArgumentHelp(
        "Append a line for each answered request: instance, sender, state, first word of the action.",
        valueName: "file"))
    var account: String?

    @Option(help: ArgumentHelp(
        "Load this target although it is not on this machine; it must be named once more.", valueName: "target"))
    var iOwn: LoadTarget?

    @Flag(help: "Print the figures as JSON.")
    var json = false

    func validate() throws {
        guard 1...100_000 ~= connections else { throw ValidationError("--connections is 1 to 100000") }
        guard rate.map({ 0.001...10_000_000 ~= $0 }) ?? true else {
            throw ValidationError("--rate is 0.001 to 10000000")
        }
        guard count > 0 else { throw ValidationError("--count is at least 1") }
        guard duration.amount <= .hours(24) else { throw ValidationError("--duration is up to 24h") }
        guard timeout.amount <= .hours(1) else { throw ValidationError("--timeout is up to 1h") }
        guard 1...10_000_000 ~= senders else { throw ValidationError("--senders is 1 to 10000000") }
        guard 1...PolicyRequest.clients ~= clients else {
            throw ValidationError("--clients is 1 to \(PolicyRequest.clients)")
        }
        guard 0...10 ~= zipf else { throw ValidationError("--zipf is 0 to 10") }
        guard 1...10_000 ~= recipients else { throw ValidationError("--recipients is 1 to 10000") }
    }

    func run() throws {
        let address = try resolvedAddress()
        raiseDescriptorLimit()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer { try? group.syncShutdownGracefully() }
        let showsProgress = isatty(STDERR_FILENO) == 1
        let load = PolicyLoad(options: options, mix: mix).start(
            on: group.any(), target: target, address: address, firstInstance: firstInstance,
            progress: { if showsProgress { LoadSummary.show($0) } })
        let interrupt = DispatchSource.makeSignalSource(signal: SIGINT)
        signal(SIGINT, SIG_IGN)
        interrupt.setEventHandler(handler: load.interrupt)
        interrupt.resume()
        let report: LoadReport
        do {
            report = try load.report.wait()
        } catch let error as LoadError {
            complain("\(error)")
            throw ExitCode(error.exitStatus)
        }
        if showsProgress { LoadSummary.clearLine() }
        try print(json ? LoadSummary.json(report) : LoadSummary.text(report))
        if report.endedBy == .lost { complain("\(target) closed every connection") }
        throw ExitCode(report.exitStatus)
    }

    private var options: LoadOptions {
        var options = LoadOptions()
        options.connections = connections
        options.rate = rate
        options.duration = duration.amount
        options.count = count
        options.timeout = timeout.amount
        options.reconnect = reconnect
        return options
    }

    private var mix: PolicyMix {
        var mix = PolicyMix()
        mix.senders = senders
        mix.clients = clients
        mix.zipf = zipf
        mix.states = states.set
        mix.recipients = recipients
        mix.seed = seed
        mix.account = account
        return mix
    }

    private var firstInstance: PolicyInstance {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return PolicyInstance(
            processID: UInt64(getpid()), time: UInt64(now.tv_sec) * 1_000_000 + UInt64(now.tv_nsec) / 1000)
    }

    private func resolvedAddress() throws -> SocketAddress {
        let address: SocketAddress
        do {
            address = try target.resolve()
        } catch {
            complain("cannot resolve \(target): \(error)")
            throw ExitCode(EX_NOHOST)
        }
        guard address.isLoopback || iOwn == target else {
            throw ValidationError("\(target) is not on this machine; if you may load it, say --i-own \(target)")
        }
        return address
    }

    private func raiseDescriptorLimit() {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    private func complain(_ message: String) {
        StandardError.write("weir load: \(message)\n")
    }
}

extension LoadError {
    /// As sysexits.h has it.
    fileprivate var exitStatus: Int32 {
        switch self {
        case .unreachable: EX_UNAVAILABLE
        case .account: EX_IOERR
        }
    }
}

extension LoadReport {
    fileprivate var exitStatus: Int32 {
        switch endedBy {
        case .lost: EX_UNAVAILABLE
        case .interrupted: 128 + SIGINT
        case .duration, .count: unanswered > 0 ? EXIT_FAILURE : EXIT_SUCCESS
        }
    }
}

extension LoadTarget: ExpressibleByArgument {
    public init?(argument: String) {
        self.init(argument)
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

/// A time as an argument: 500ms, 10s, 5m, 1h, or a number of seconds.
struct TimeArgument: ExpressibleByArgument, CustomStringConvertible {
    let description: String
    let amount: TimeAmount

    init?(argument: String) {
        let digits = argument.prefix { $0.isNumber }
        guard let number = Int64(digits), 1...1_000_000 ~= number else { return nil }
        switch argument.dropFirst(digits.count) {
        case "ms": amount = .milliseconds(number)
        case "s", "": amount = .seconds(number)
        case "m": amount = .minutes(number)
        case "h": amount = .hours(number)
        default: return nil
        }
        description = argument
    }
}
