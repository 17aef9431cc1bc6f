// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Dispatch
import Foundation
import LoadGenerator
import Loop
import NIOCore
import NIOPosix
import Report
import Synchronization

/// How the rate of a load changes over time.
enum LoadProfile: String, CaseIterable, ExpressibleByArgument {
    case steady, peak, day, trojan
}

/// The options of all loads. Defaults are those of `LoadOptions` and `Population`.
struct LoadArguments: ParsableArguments {
    @Option(help: ArgumentHelp("Target, as inet:HOST:PORT or unix:PATH.", valueName: "target"))
    var target: LoadTarget

    @Option(help: "Number of connections; all are opened before the first operation.")
    var connections = LoadOptions().connections

    @Option(
        help: ArgumentHelp(
            """
            Rate over time: steady; peak (three times --rate in the middle third); day (--count operations along the \
            curve of a working day, compressed into --duration); trojan (one sender starts to spam).
            """,
            valueName: "profile"))
    var profile = LoadProfile.steady

    @Option(help: "Operations per second over all connections (default: as fast as they are answered).")
    var rate: Double?

    @Option(help: ArgumentHelp("Duration, such as 500ms, 10s, 5m or 1h.", valueName: "time"))
    var duration = TimeArgument(LoadOptions().duration)

    @Option(help: "Maximum number of operations (default: \(LoadOptions().count)).")
    var count: Int?

    @Option(help: ArgumentHelp("How long to wait for a connection or an answer.", valueName: "time"))
    var timeout = TimeArgument(LoadOptions().timeout)

    @Option(help: "Number of senders; each has a SASL login of the same name.")
    var senders = Population().senders

    @Option(help: "Number of client addresses, below \(PolicyRequest.clients).")
    var clients = Population().clients

    @Option(help: "Exponent of the Zipf distribution of senders and clients; 0 is uniform.")
    var zipf = Population().zipf

    @Option(help: ArgumentHelp("When the trojan starts (default: after a third of --duration).", valueName: "time"))
    var trojanAfter: TimeArgument?

    @Option(help: "Operations per second of the trojan, in addition to --rate.")
    var trojanRate = 20.0

    @Option(help: "Seed; the same seed sends the same mail.")
    var seed: UInt64 = 1

    @Flag(help: "After a lost connection do as Postfix does: wait a second, reconnect, send the operation again.")
    var reconnect = false

    @Option(
        help: ArgumentHelp(
            "Allow a target on another machine; repeat the target to confirm.", valueName: "target"))
    var iOwn: LoadTarget?

    @Flag(help: "Print the figures as JSON.")
    var json = false

    @Option(help: ArgumentHelp("Write the figures of each second as CSV.", valueName: "file"), completion: .file())
    var csv: String?

    @Option(help: ArgumentHelp("Write an HTML page with plots.", valueName: "file"), completion: .file())
    var html: String?

    @Option(
        name: .customLong("fail-if"),
        help: ArgumentHelp(
            """
            Exit with status 1 if this is true of the result, such as 'p99>5ms', 'refused>1%' or 'lost>0'; may be \
            repeated. Figures: \(LoadBound.Figure.names).
            """,
            valueName: "bound"))
    var bounds: [LoadBound] = []

    func validate() throws {
        guard 1...100_000 ~= connections else { throw ValidationError("--connections must be from 1 to 100000") }
        for (name, rate) in [("--rate", rate ?? 1), ("--trojan-rate", trojanRate)] {
            guard 0.001...10_000_000 ~= rate else { throw ValidationError("\(name) must be from 0.001 to 10000000") }
        }
        guard count ?? 1 > 0 else { throw ValidationError("--count must be at least 1") }
        guard duration.amount <= .hours(24) else { throw ValidationError("--duration must be at most 24h") }
        guard timeout.amount <= .hours(1) else { throw ValidationError("--timeout must be at most 1h") }
        guard 1...10_000_000 ~= senders else { throw ValidationError("--senders must be from 1 to 10000000") }
        guard 1..<PolicyRequest.clients ~= clients else {
            throw ValidationError("--clients must be from 1 to \(PolicyRequest.clients - 1)")
        }
        guard 0...10 ~= zipf else { throw ValidationError("--zipf must be from 0 to 10") }
        switch profile {
        case .steady: break
        case .day:
            guard count != nil else { throw ValidationError("--profile day needs --count, the messages of the day") }
            guard rate == nil else {
                throw ValidationError("--profile day has no --rate: --count and --duration determine it")
            }
        case .peak, .trojan:
            guard rate != nil else { throw ValidationError("--profile \(profile.rawValue) needs --rate") }
        }
        guard trojanStart < duration.amount else {
            throw ValidationError("--trojan-after must be shorter than --duration")
        }
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
        population.honestRate = rate
        if profile == .trojan { population.trojan = .init(after: trojanStart, rate: trojanRate) }
        return population
    }

    /// Runs the load and reports its figures.
    ///
    /// - Parameter complete: adds figures that are known only after the last answer; returns early when interrupted.
    func run<Traffic: LoadTraffic>(
        on eventLoop: any EventLoop,
        complete: (LoadReport, Interruption) throws -> LoadReport = { report, _ in report },
        traffic: @escaping @Sendable () throws -> Traffic
    ) throws -> Never {
        let address = try target.localAddress(option: "--target", command: "load", iOwn: iOwn)
        Self.raiseDescriptorLimit()
        let load = RunningLoad.start(
            on: eventLoop, target: target, address: address, options: options,
            progress: LoadSummary.show, traffic: traffic)
        let interruption = Interruption()
        let signalSource = DispatchSource.makeSignalSource(signal: SIGINT)
        let isRegistered = DispatchSemaphore(value: 0)
        signalSource.setRegistrationHandler { isRegistered.signal() }
        signalSource.setEventHandler {
            interruption.set()
            load.interrupt()
        }
        signalSource.resume()
        // Until here SIGINT ends the process; from here on it ends the load.
        isRegistered.wait()
        do {
            var report = try complete(try load.report.wait(), interruption)
            if interruption.isSet { report.endedBy = .interrupted }
            throw ExitCode(try publish(report))
        } catch let error as LoadError {
            Self.complain("\(error)")
            throw ExitCode(error.exitStatus)
        } catch let failure as OutputFile.Failure {
            Self.complain(failure.description)
            throw ExitCode(EX_IOERR)
        }
    }

    /// Prints the report and writes the files of --csv and --html.
    ///
    /// - Returns: the exit status.
    private func publish(_ report: LoadReport) throws -> Int32 {
        LoadSummary.clearLine()
        try StandardOutput.write(line: json ? JSONText.figures(report) : LoadSummary.text(report))
        if let csv { try OutputFile.write(LoadSummary.csv(report), to: csv) }
        if let html { try OutputFile.write(LoadPage.html(report), to: html) }
        if report.endedBy == .lost {
            Self.complain("all connections to \(target) are lost\(report.lastError.map { ": \($0)" } ?? "")")
        }
        let isIncomplete = report.connections < connections
        if isIncomplete, report.endedBy != .interrupted {
            Self.complain(
                "only \(report.connections) of \(connections) connections succeeded"
                    + (report.lastError.map { "; last error: \($0)" } ?? ""))
        }
        let broken = bounds.filter { $0.isBroken(by: report) }
        for bound in broken { Self.complain("--fail-if \(bound): \(bound.measured(in: report))") }
        return broken.isEmpty && !isIncomplete ? report.exitStatus : max(report.exitStatus, EXIT_FAILURE)
    }

    private static func raiseDescriptorLimit() {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    static func complain(_ message: String) {
        StandardError.complain(message, by: "load")
    }

    /// A unique name of this run.
    static var runName: String {
        String(getpid(), radix: 16) + "x" + String(microseconds(of: CLOCK_REALTIME), radix: 16)
    }
}

/// Whether Ctrl-C was pressed.
final class Interruption: Sendable {
    private let flag = Atomic(false)

    var isSet: Bool { flag.load(ordering: .relaxed) }

    func set() { flag.store(true, ordering: .relaxed) }
}

extension LoadError {
    /// From sysexits.h.
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

/// A duration: 500ms, 10s, 5m, 1h, or a number of seconds.
struct TimeArgument: ExpressibleByArgument, CustomStringConvertible {
    let description: String
    let amount: TimeAmount

    /// - Parameter amount: whole seconds.
    init(_ amount: TimeAmount) {
        description = "\(amount.nanoseconds / 1_000_000_000)s"
        self.amount = amount
    }

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
