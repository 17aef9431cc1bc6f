// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import ArgumentParser
import Foundation
import Glibc
import NIOCore
import Report
import Settings
import Synchronization
import UnixSignals

struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Shows live request rates, the keys closest to their limits, and refusals.",
        discussion: """
            Connects to the admin socket. On a terminal, ? lists the keys: the arrows or j and k select a key; b \
            blocks it, u unblocks it, r raises its limit, x resets its counts, each after a question, and z undoes; \
            / filters, Esc clears the filter and the selection, s changes the order, q quits. NO_COLOR turns colours \
            off.

            To a pipe, or with TERM=dumb, prints at each interval a line with the time and the rates, then the fullest \
            keys and the refusals since the last interval.

            Exit status: 0 success, 69 the service is unreachable, 77 the user may not ask the service, 78 the \
            configuration does not say where the service listens.

            Example: weir top --limit per-user
            """)

    @OptionGroup var options: ConfigurationOptions
    @Option(help: ArgumentHelp("Only this limit.", valueName: "name"), completion: Completions.limits)
    var limit: String?
    @Option(
        help: ArgumentHelp("Refresh interval (default: 1).", valueName: "seconds"),
        transform: NumberArgument.within(1...3600))
    var interval = 1
    @Option(
        help: ArgumentHelp("Number of refreshes (default: until q or Ctrl-C).", valueName: "number"),
        transform: NumberArgument.within(1...(.max)))
    var count: Int?

    func run() async throws {
        if Terminal.movesCursor(STDOUT_FILENO), isatty(STDIN_FILENO) == 1 {
            try await runOnTerminal()
        } else {
            try await runAsLines()
        }
    }

    private func runAsLines() async throws {
        var last = 0.0
        for refresh in 0..<(count ?? .max) {
            if refresh > 0 { try await Task.sleep(for: .seconds(interval)) }
            let figures = try await Admin.ask(options.readAdmin(), by: "top") {
                try await self.figures(of: $0, most: 10)
            }
            for line in TopText.lines(figures, since: last) { try StandardOutput.write(line: line) }
            try StandardOutput.flush()
            last = figures.snapshot.time
        }
    }

    private func runOnTerminal() async throws {
        // If the service is unreachable, print the error before switching screens.
        let configuration = try options.readAdmin()
        let first = try await Admin.ask(configuration, by: "top") { try await self.figures(of: $0, most: 1000) }
        let latest = LatestFigures(first, interval: interval)
        let poller = Task {
            for _ in 1..<(count ?? .max) {
                try await Task.sleep(for: .seconds(interval))
                await refresh(latest, configuration)
            }
            try await Task.sleep(for: .seconds(interval))
            latest.end()
        }
        defer { poller.cancel() }
        let searcher = Task { try await searchRepeatedly(latest, configuration) }
        defer { searcher.cancel() }
        // Trap signals before changing the terminal, so that none ends the process without restoring it.
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sighup, .sigint, .sigquit)
        let screen = TopScreen()
        defer { screen.restore() }
        let ending = Task {
            for await signal in signals {
                screen.restore()
                Glibc.exit(128 + signal.rawValue)
            }
        }
        defer { ending.cancel() }
        try await show(latest, on: screen) { change in
            Task {
                let outcome = await carryOut(change, configuration, latest)
                await refresh(latest, configuration)
                latest.set(outcome)
            }
        }
    }

    /// Draws the screen and takes keys until the end. Each screen has the terminal's size of that moment.
    private func show(
        _ latest: LatestFigures, on screen: TopScreen, _ start: (TopChange) -> Void
    ) async throws {
        let colour = Terminal.takesColour(STDOUT_FILENO)
        var view = TopView()
        var decoder = TopKeyDecoder()
        while case let state = latest.take(), !state.isOver {
            if let outcome = state.outcome { view.finish(outcome) }
            for key in decoder.keys(in: screen.readBytes()) {
                switch view.press(key, state.figures) {
                case .quit: return
                case .change(let change): start(change)
                case nil: break
                }
            }
            latest.set(filter: view.isTyping ? "" : view.filter)
            let size = Terminal.size(STDOUT_FILENO)
            try screen.show(
                view.screen(
                    state.figures, fault: state.fault, columns: size.columns, rows: size.rows, colour: colour))
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    private func refresh(_ latest: LatestFigures, _ configuration: Configuration) async {
        do {
            latest.set(try await figures(of: AdminClient(configuration), most: 1000))
        } catch {
            latest.set(failure: "\(error)")
        }
    }

    /// Looks for the keys that match the filter, among all keys and not only the fullest. The service has to look at
    /// each key, so this rests for nine times as long as the last search took.
    private func searchRepeatedly(_ latest: LatestFigures, _ configuration: Configuration) async throws {
        var searched = ""
        var next = ContinuousClock.now
        while true {
            try await Task.sleep(for: .milliseconds(100))
            let filter = latest.filter
            if filter.isEmpty { searched = "" }
            guard !filter.isEmpty, filter != searched || .now >= next else { continue }
            let began = ContinuousClock.now
            let listing = try? await AdminClient(configuration, timeout: .seconds(Self.searchTimeout))
                .keys(in: nil, limit: limit, match: TopView.pattern(of: filter), most: 1000)
            // Otherwise the refresh shows what is wrong.
            if let listing { latest.set(found: listing.keys, by: filter) }
            searched = filter
            next = .now + max(.seconds(interval), began.duration(to: .now) * 9)
        }
    }

    /// In seconds. A million keys take some.
    private static let searchTimeout: Int64 = 60
    /// Seconds for the answer to a change.
    private static let changeTimeout: Int64 = 10

    private func carryOut(
        _ change: TopChange, _ configuration: Configuration, _ latest: LatestFigures
    ) async -> TopOutcome {
        do {
            let standings = try await AdminClient(configuration, timeout: .seconds(Self.changeTimeout))
                .intervene(change.message)
            guard let standing = standings.first(where: { $0.limit == change.limit }) else { return .unknownKey }
            latest.replace(standing)
            return .done(note: standing.note)
        } catch let failure as AdminClient.Failure where failure.kind != .unreachable {
            return .refused(failure.description)
        } catch {
            return .noAnswer("\(error)")
        }
    }

    private func figures(of client: AdminClient, most: Int) async throws -> TopFigures {
        var snapshot = try await client.snapshot()
        if let limit {
            snapshot.refusals.removeAll { $0.limit != limit }
            snapshot.refusalGroups?.removeAll { $0.newest.limit != limit }
        }
        do {
            return TopFigures(snapshot: snapshot, standings: try await client.fullest(most, limit: limit))
        } catch let failure as AdminClient.Failure where failure.kind == .inTrouble {
            // The snapshot has the reason.
            return TopFigures(snapshot: snapshot, standings: [])
        }
    }
}

/// The figures of one refresh.
struct TopFigures: Sendable {
    let snapshot: AdminMessages.Snapshot
    private(set) var standings: [KeyStanding]

    /// Adds keys that are not among the fullest.
    mutating func add(_ found: [KeyStanding]) {
        guard !found.isEmpty else { return }
        let known = Set(standings.map(TopView.Selection.init))
        standings += found.filter { !known.contains(TopView.Selection($0)) }
    }
}

/// The latest figures and the answer to a change, shared by the tasks that ask the service and the screen.
private final class LatestFigures: Sendable {
    struct State {
        var figures: TopFigures
        /// Why the figures are not the latest.
        var fault: String?
        /// What became of the last change. It is taken once.
        var outcome: TopOutcome?
        var isOver = false
        fileprivate var filter = ""
        /// What a search for the filter has found.
        fileprivate var found: [KeyStanding] = []
        fileprivate var refreshed = ContinuousClock.now
    }

    private let shared: Mutex<State>
    /// The service counts as silent if it sends no figures for this long.
    private let patience: Duration

    init(_ first: TopFigures, interval: Int) {
        shared = Mutex(State(figures: first))
        patience = .seconds(interval + 2)
    }

    func take() -> State {
        shared.withLock { state in
            defer { state.outcome = nil }
            var taken = state
            taken.figures.add(state.found)
            let age = state.refreshed.duration(to: .now)
            if taken.fault == nil, age > patience {
                taken.fault = "no answer for \(Admin.duration(Int(age.components.seconds)))"
            }
            return taken
        }
    }

    func set(_ figures: TopFigures) {
        shared.withLock { ($0.figures, $0.fault, $0.refreshed) = (figures, nil, .now) }
    }

    /// Empty without a filter.
    var filter: String { shared.withLock { $0.filter } }

    func set(filter: String) {
        shared.withLock { if $0.filter != filter { ($0.filter, $0.found) = (filter, []) } }
    }

    func set(found: [KeyStanding], by filter: String) {
        shared.withLock { if $0.filter == filter { $0.found = found } }
    }

    /// A key that was found stands differently now.
    func replace(_ standing: KeyStanding) {
        shared.withLock { state in
            let place = state.found.firstIndex { TopView.Selection($0) == TopView.Selection(standing) }
            if let place { state.found[place] = standing }
        }
    }

    func set(failure: String) { shared.withLock { $0.fault = failure } }
    func set(_ outcome: TopOutcome) { shared.withLock { $0.outcome = outcome } }
    func end() { shared.withLock { $0.isOver = true } }
}
