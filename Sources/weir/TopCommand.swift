// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import ArgumentParser
import Foundation
import Glibc
import Report
import Synchronization
import UnixSignals

struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Shows live request rates, the keys closest to their limits, and refusals.",
        discussion: """
            Connects to the admin socket. Keys on a terminal: s changes the order, / filters, Esc clears the filter, \
            q quits. To a pipe, prints at each interval a line with the time and the rates, then the fullest keys and \
            the refusals since the last interval.

            Example: weir top --limit per-user
            """)

    @OptionGroup var options: ConfigurationOptions
    @Option(help: "Only this limit.", completion: Completions.limits) var limit: String?
    @Option(help: "Refresh interval in seconds.") var interval = 1
    @Option(help: "Number of refreshes (default: until q or Ctrl-C).") var count: Int?

    func validate() throws {
        guard (1...3600).contains(interval) else { throw ValidationError("--interval must be from 1 to 3600") }
        if let count, count < 1 { throw ValidationError("--count must be at least 1") }
    }

    func run() async throws {
        if isatty(STDOUT_FILENO) == 1, isatty(STDIN_FILENO) == 1 {
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
        let latest = LatestFigures(first)
        let poller = Task {
            for _ in 1..<(count ?? .max) {
                try await Task.sleep(for: .seconds(interval))
                do {
                    latest.set(try await figures(of: AdminClient(configuration), most: 1000))
                } catch {
                    latest.set(failure: "\(error)")
                }
            }
            try await Task.sleep(for: .seconds(interval))
            latest.end()
        }
        defer { poller.cancel() }
        // Trap signals before changing the terminal, so that none ends the process without restoring it.
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sighup, .sigint, .sigquit)
        let screen = Screen()
        defer { screen.restore() }
        let ending = Task {
            for await signal in signals {
                screen.restore()
                Glibc.exit(128 + signal.rawValue)
            }
        }
        defer { ending.cancel() }
        var view = TopText()
        while view.handle(screen.readKeys()), case let state = latest.state, !state.isOver {
            let size = Terminal.size(STDOUT_FILENO)
            try screen.show(view.screen(state.figures, failure: state.failure, columns: size.columns, rows: size.rows))
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    private func figures(of client: AdminClient, most: Int) async throws -> TopFigures {
        var snapshot = try await client.snapshot()
        if let limit { snapshot.refusals.removeAll { $0.limit != limit } }
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
    let standings: [KeyStanding]
}

/// The latest figures, shared by the poller and the screen.
private final class LatestFigures: Sendable {
    struct State {
        var figures: TopFigures
        /// Why the last refresh failed.
        var failure: String?
        var isOver = false
    }

    private let shared: Mutex<State>

    init(_ first: TopFigures) { shared = Mutex(State(figures: first)) }

    var state: State { shared.withLock { $0 } }

    func set(_ figures: TopFigures) { shared.withLock { ($0.figures, $0.failure) = (figures, nil) } }
    func set(failure: String) { shared.withLock { $0.failure = failure } }
    func end() { shared.withLock { $0.isOver = true } }
}

/// A terminal in non-canonical mode, without echo, signals (Ctrl-C is a key) and cursor, on the alternate screen.
/// `restore` puts it back into its original state.
private final class Screen: Sendable {
    private let original: termios
    private let isRestored = Mutex(false)

    init() {
        var original = termios()
        tcgetattr(STDIN_FILENO, &original)
        self.original = original
        var raw = original
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG)
        // read(2) returns at once with the available bytes.
        withUnsafeMutableBytes(of: &raw.c_cc) { codes in
            codes[Int(VMIN)] = 0
            codes[Int(VTIME)] = 0
        }
        tcsetattr(STDIN_FILENO, TCSANOW, &raw)
        try? put("\u{1b}[?1049h\u{1b}[?25l")
    }

    func restore() {
        isRestored.withLock { isRestored in
            guard !isRestored else { return }
            isRestored = true
            try? put("\u{1b}[?25h\u{1b}[?1049l")
            var original = original
            tcsetattr(STDIN_FILENO, TCSANOW, &original)
        }
    }

    func show(_ lines: [String]) throws {
        try isRestored.withLock { isRestored in
            guard !isRestored else { return }
            try put("\u{1b}[H" + lines.map { $0 + "\u{1b}[K" }.joined(separator: "\r\n") + "\u{1b}[J")
        }
    }

    func readKeys() -> String {
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = read(STDIN_FILENO, &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : ""
    }

    private func put(_ text: String) throws {
        try StandardOutput.write(text)
        try StandardOutput.flush()
    }
}
