// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Dispatch
import Foundation
import LoadGenerator
import Loop
import NIOCore
import NIOPosix
import Synchronization

/// The course that a load takes.
enum LoadProfile: String, CaseIterable, ExpressibleByArgument {
    case steady, peak, day, trojan
}

/// What all loads have in common.
struct LoadArguments: ParsableArguments {
    @Option(help: ArgumentHelp("inet:HOST:PORT or unix:PATH.", valueName: "target"))
    var target: LoadTarget

    @Option(help: "Connections, all opened before the first operation.")
    var connections = 10

    @Option(
        help: ArgumentHelp(
            "steady; peak, with three times the rate in the middle third; day, --count over the curve of a working day, pressed into --duration; trojan, where one sender turns to spamming.",
            valueName: "profile"))
    var profile = LoadProfile.steady

    @Option(help: "Operations a second in all (default: as fast as they are answered).")
    var rate: Double?

    @Option(help: ArgumentHelp("How long, as 500ms, 10s, 5m or 1h.", valueName: "time"))
    var duration = TimeArgument(argument: "10s")!

    @Option(help: "Operations in all, if the duration does not end first (default: 10000000).")
    var count: Int?

    @Option(help: ArgumentHelp("How long to wait for an answer.", valueName: "time"))
    var timeout = TimeArgument(argument: "10s")!

    @Option(help: "Senders, each with a SASL login of the same name.")
    var senders = 10_000

    @Option(help: "Client addresses, fewer than \(PolicyRequest.clients).")
    var clients = 10_000

    @Option(help: "Exponent of the Zipf law that senders and clients are drawn by; 0 draws all alike.")
    var zipf = 1.1

    @Option(help: ArgumentHelp("When the trojan begins (default: after a third of the duration).", valueName: "time"))
    var trojanAfter: TimeArgument?

    @Option(help: "Operations a second of the trojan, beside --rate.")
    var trojanRate = 20.0

    @Option(help: "The same seed sends the same mail.")
    var seed: UInt64 = 1

    @Flag(help: "Do as Postfix when a connection is lost: wait a second, connect, send the same again.")
    var reconnect = false

    @Option(
        help: ArgumentHelp(
            "Load this target although it is not on this machine; it must be named once more.", valueName: "target"))
    var iOwn: LoadTarget?

    @Flag(help: "Print the figures as JSON.")
    var json = false

    @Option(help: ArgumentHelp("Write the figures of each second as CSV.", valueName: "file"))
    var csv: String?

    @Option(help: ArgumentHelp("Write a page with plots.", valueName: "file"))
    var html: String?

    @Option(
        name: .customLong("fail-if"),
        help: ArgumentHelp(
            "Exit with 1 where this holds, as 'p99>5ms', 'refused>1%', 'lost>0'; can be given again. Knows \(LoadBound.Figure.names).",
            valueName: "bound"))
    var bounds: [LoadBound] = []

    func validate() throws {
        guard 1...100_000 ~= connections else { throw ValidationError("--connections is 1 to 100000") }
        for (name, rate) in [("--rate", rate ?? 1), ("--trojan-rate", trojanRate)] {
            guard 0.001...10_000_000 ~= rate else { throw ValidationError("\(name) is 0.001 to 10000000") }
        }
        guard count ?? 1 > 0 else { throw ValidationError("--count is at least 1") }
        guard duration.amount <= .hours(24) else { throw ValidationError("--duration is up to 24h") }
        guard timeout.amount <= .hours(1) else { throw ValidationError("--timeout is up to 1h") }
        guard 1...10_000_000 ~= senders else { throw ValidationError("--senders is 1 to 10000000") }
        guard 1..<PolicyRequest.clients ~= clients else {
            throw ValidationError("--clients is 1 to \(PolicyRequest.clients - 1)")
        }
        guard 0...10 ~= zipf else { throw ValidationError("--zipf is 0 to 10") }
        switch profile {
        case .steady: break
        case .day:
            guard count != nil else { throw ValidationError("--profile day takes --count: the day's mail") }
            guard rate == nil else {
                throw ValidationError("--profile day takes no --rate: it follows from --count and --duration")
            }
        case .peak, .trojan:
            guard rate != nil else { throw ValidationError("--profile \(profile.rawValue) takes --rate") }
        }
        guard trojanStart < duration.amount else { throw ValidationError("--trojan-after is shorter than --duration") }
    }

    private var trojanStart: TimeAmount { trojanAfter?.amount ?? .nanoseconds(duration.amount.nanoseconds / 3) }

    var options: LoadOptions {
        var options = LoadOptions()
        options.connections = connections
        options.duration = duration.amount
        options.count = count ?? options.count
        options.timeout = timeout.amount
        options.reconnect = reconnect
        options.pace =
            switch profile {
            case .steady: rate.map { .steady(rate: $0, for: duration.amount) }
            case .peak: .peak(rate: rate ?? 1, for: duration.amount)
            case .day: .day(count: options.count, in: duration.amount)
            case .trojan: .rising(rate: rate ?? 1, by: trojanRate, after: trojanStart, for: duration.amount)
            }
        return options
    }

    var population: Population {
        var population = Population()
        population.senders = senders
        population.clients = clients
        population.zipf = zipf
        if profile == .trojan { population.trojan = .init(after: trojanStart, rate: trojanRate) }
        return population
    }

    /// Runs the load to its end, and prints and writes what came of it.
    ///
    /// - Parameter complete: adds what is known only after the last answer; ends at once where an interruption has come.
    func run<Traffic: LoadTraffic>(
        on eventLoop: any EventLoop,
        complete: (LoadReport, Interruption) throws -> LoadReport = { report, _ in report },
        traffic: @escaping @Sendable () throws -> Traffic
    ) throws -> Never {
        let address = try Self.address(of: target, named: "--target", iOwn: iOwn)
        Self.raiseDescriptorLimit()
        let load = RunningLoad.start(
            on: eventLoop, target: target, address: address, options: options,
            progress: LoadSummary.show, traffic: traffic)
        let interruption = Interruption()
        let interrupt = DispatchSource.makeSignalSource(signal: SIGINT)
        let isWatched = DispatchSemaphore(value: 0)
        interrupt.setRegistrationHandler { isWatched.signal() }
        interrupt.setEventHandler {
            interruption.come()
            load.interrupt()
        }
        interrupt.resume()
        // A signal that comes before ends the process; none that comes after is lost.
        isWatched.wait()
        do {
            var report = try complete(try load.report.wait(), interruption)
            if interruption.hasCome { report.endedBy = .interrupted }
            LoadSummary.clearLine()
            try StandardOutput.write(line: json ? LoadSummary.json(report) : LoadSummary.text(report))
            try csv.map { try write(LoadSummary.csv(report), to: $0) }
            try html.map { try write(LoadPage.html(report), to: $0) }
            if report.endedBy == .lost {
                Self.complain("no connection to \(target) is left\(report.lastError.map { ": \($0)" } ?? "")")
            }
            let isShort = report.connections < connections
            if isShort, report.endedBy != .interrupted {
                Self.complain(
                    "\(report.connections) of \(connections) connections could be made\(report.lastError.map { "; last error: \($0)" } ?? "")"
                )
            }
            let broken = bounds.filter { $0.isBroken(by: report) }
            for bound in broken { Self.complain("\(bound) holds: \(bound.measured(in: report))") }
            throw ExitCode(broken.isEmpty && !isShort ? report.exitStatus : max(report.exitStatus, EXIT_FAILURE))
        } catch let error as LoadError {
            Self.complain("\(error)")
            throw ExitCode(error.exitStatus)
        }
    }

    private func write(_ text: String, to path: String) throws {
        do {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        } catch {
            throw LoadError.account(path: path, reason: (error as NSError).localizedDescription)
        }
    }

    /// Where a load goes, or a sink listens: on this machine, or where the operator says so twice.
    static func address(of target: LoadTarget, named name: String, iOwn: LoadTarget?) throws -> SocketAddress {
        let address: SocketAddress
        do {
            address = try target.resolve()
        } catch {
            complain("cannot resolve \(target): \(error.systemReason)")
            throw ExitCode(EX_NOHOST)
        }
        guard address.isLoopback || iOwn == target else {
            throw ValidationError("\(name) \(target) is not on this machine; if you may load it, say --i-own \(target)")
        }
        return address
    }

    private static func raiseDescriptorLimit() {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    static func complain(_ message: String) {
        StandardError.write("weir load: \(message)\n")
    }

    /// Names a run: no other has the same.
    static var runName: String {
        let now = Date().timeIntervalSince1970
        return String(getpid(), radix: 16) + "x" + String(UInt64(now * 1_000_000), radix: 16)
    }
}

/// Whether Ctrl-C was pressed.
final class Interruption: Sendable {
    private let flag = Atomic(false)

    var hasCome: Bool { flag.load(ordering: .relaxed) }

    func come() { flag.store(true, ordering: .relaxed) }
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
        case .duration, .count: unanswered > 0 || sink?.hasFaults ?? false ? EXIT_FAILURE : EXIT_SUCCESS
        }
    }
}

extension LoadTarget: ExpressibleByArgument {
    public init?(argument: String) {
        self.init(argument)
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
