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
        abstract: "Shows live what the service does: rates, the keys nearest to their limits, refusals.",
        discussion: """
            Works over the admin socket. In a terminal: s changes the order of the keys, / filters them, Esc shows all again, q ends it. \
            Into a pipe it writes at each look a line with the time and the rates, then the fullest keys and what was refused since the \
            last look.

            Example: weir top --limit per-user
            """)

    @OptionGroup var options: ConfigurationOptions
    @Option(help: "Only this limit.") var limit: String?
    @Option(help: "Seconds between two looks.") var interval = 1
    @Option(help: "How many looks; without it, until q or Ctrl-C.") var count: Int?

    func validate() throws {
        guard (1...3600).contains(interval) else { throw ValidationError("--interval takes a number from 1 to 3600") }
        if let count, count < 1 { throw ValidationError("--count takes a number from 1") }
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
        for look in 0..<(count ?? .max) {
            if look > 0 { try await Task.sleep(for: .seconds(interval)) }
            let figures = try await Admin.ask(options.readAdmin(), by: "top") {
                try await self.figures(of: $0, most: 10)
            }
            for line in TopText.lines(figures, since: last) { try StandardOutput.write(line: line) }
            try StandardOutput.flush()
            last = figures.snapshot.time
        }
    }

    private func runOnTerminal() async throws {
        // Who can't be asked at all is told of on the terminal as it was.
        let configuration = try options.readAdmin()
        let first = try await Admin.ask(configuration, by: "top") { try await self.figures(of: $0, most: 1000) }
        let watch = TopWatch(first)
        let looker = Task {
            for _ in 1..<(count ?? .max) {
                try await Task.sleep(for: .seconds(interval))
                do {
                    watch.set(try await figures(of: AdminClient(configuration), most: 1000))
                } catch {
                    watch.set(fault: "\(error)")
                }
            }
            try await Task.sleep(for: .seconds(interval))
            watch.end()
        }
        defer { looker.cancel() }
        // In this order: a signal that comes before is of no harm to the terminal, and none that comes after is lost.
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
        while view.take(screen.readKeys()), case let state = watch.state, !state.isOver {
            let size = Terminal.size(STDOUT_FILENO)
            try screen.show(view.screen(state.figures, fault: state.fault, columns: size.columns, rows: size.rows))
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    private func figures(of client: AdminClient, most: Int) async throws -> TopFigures {
        var snapshot = try await client.snapshot()
        if let limit { snapshot.refusals.removeAll { $0.limit != limit } }
        do {
            return TopFigures(snapshot: snapshot, standings: try await client.fullest(most, limit: limit))
        } catch let failure as AdminClient.Failure where failure.kind == .inTrouble {
            // The snapshot says what the trouble is.
            return TopFigures(snapshot: snapshot, standings: [])
        }
    }
}

/// What one look brought.
struct TopFigures: Sendable {
    let snapshot: AdminMessages.Snapshot
    let standings: [AdminMessages.Standing]
}

/// What the last look brought, for whoever draws it.
private final class TopWatch: Sendable {
    struct State {
        var figures: TopFigures
        /// Why the last look brought nothing.
        var fault: String?
        var isOver = false
    }

    private let shared: Mutex<State>

    init(_ first: TopFigures) { shared = Mutex(State(figures: first)) }

    var state: State { shared.withLock { $0 } }

    func set(_ figures: TopFigures) { shared.withLock { ($0.figures, $0.fault) = (figures, nil) } }
    func set(fault: String) { shared.withLock { $0.fault = fault } }
    func end() { shared.withLock { $0.isOver = true } }
}

/// A terminal that gives its keys one by one, Ctrl-C among them, and has its other screen on, without a cursor. It is as it
/// was after `restore`.
private final class Screen: Sendable {
    private let original: termios
    private let isRestored = Mutex(false)

    init() {
        var original = termios()
        tcgetattr(STDIN_FILENO, &original)
        self.original = original
        var raw = original
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG)
        // A read takes what there is, and does not wait.
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
