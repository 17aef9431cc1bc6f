// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Glibc
import Service

struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Shows live what the service does: rates, the keys nearest to their limits, refusals.",
        discussion: """
            Works over the admin socket. In a terminal: s changes the order of the keys, / filters them, q ends it. Into a pipe \
            it writes one line each interval.

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
        for look in 0..<(count ?? .max) {
            if look > 0 { try await Task.sleep(for: .seconds(interval)) }
            let snapshot = try await Admin.ask(options, by: "top") { try await $0.snapshot() }
            FileHandle.standardOutput.write(Data((TopText.line(snapshot) + "\n").utf8))
        }
    }

    private func runOnTerminal() async throws {
        let terminal = Terminal()
        defer { terminal.restore() }
        var view = TopText()
        for _ in 0..<(count ?? .max) {
            let (snapshot, standings) = try await Admin.ask(options, by: "top") { client in
                (try await client.snapshot(), try await client.fullest(1000, limit: limit))
            }
            let end = ContinuousClock.now + .seconds(interval)
            repeat {
                let size = terminal.size
                let screen = view.screen(snapshot, standings, columns: size.columns, rows: size.rows)
                terminal.show(screen)
                guard view.take(terminal.readKeys()) else { return }
                try await Task.sleep(for: .milliseconds(100))
            } while ContinuousClock.now < end
        }
    }
}

/// A terminal that gives its keys one by one.
private struct Terminal {
    private var original = termios()

    init() {
        tcgetattr(STDIN_FILENO, &original)
        var raw = original
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO)
        // A read takes what there is, and does not wait.
        withUnsafeMutableBytes(of: &raw.c_cc) { codes in
            codes[Int(VMIN)] = 0
            codes[Int(VTIME)] = 0
        }
        tcsetattr(STDIN_FILENO, TCSANOW, &raw)
        // The other screen, without a cursor.
        write("\u{1b}[?1049h\u{1b}[?25l")
    }

    func restore() {
        write("\u{1b}[?25h\u{1b}[?1049l")
        var original = original
        tcsetattr(STDIN_FILENO, TCSANOW, &original)
    }

    var size: (columns: Int, rows: Int) {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    func show(_ lines: [String]) {
        write("\u{1b}[H" + lines.map { $0 + "\u{1b}[K" }.joined(separator: "\r\n") + "\u{1b}[J")
    }

    func readKeys() -> [Character] {
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = read(STDIN_FILENO, &bytes, bytes.count)
        return count > 0 ? Array(String(decoding: bytes[..<count], as: UTF8.self)) : []
    }

    private func write(_ text: String) {
        FileHandle.standardOutput.write(Data(text.utf8))
    }
}

/// What `weir top` writes.
struct TopText {
    enum Order: String, CaseIterable {
        case fullest, used, tries = "refused tries", key
    }

    private var order = Order.fullest
    private var filter = ""
    private var isTyping = false

    /// - Returns: false where it is to end.
    mutating func take(_ keys: [Character]) -> Bool {
        for key in keys {
            switch key {
            case "\r", "\n", "\u{1b}": isTyping = false
            case "\u{7f}", "\u{8}": if isTyping, !filter.isEmpty { filter.removeLast() }
            case _ where isTyping: filter.append(key)
            case "q": return false
            case "s":
                let all = Order.allCases
                order = all[(all.firstIndex(of: order)! + 1) % all.count]
            case "/": (isTyping, filter) = (true, "")
            default: break
            }
        }
        return true
    }

    static func line(_ snapshot: AdminMessages.Snapshot) -> String {
        let passed = snapshot.passedPerSecond.last ?? 0
        let answered = snapshot.answeredPerSecond.last ?? 0
        let messages = snapshot.ways.map { way in
            way.name + " " + way.messages.sorted { $0.key < $1.key }.filter { $0.value > 0 }.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
        }
        return ([
            "dunno/s=\(passed) action/s=\(answered) p50=\(time(snapshot.medianAnswer)) p99=\(time(snapshot.slowAnswer)) keys=\(snapshot.status.keys) "
                + "ledger=\(snapshot.status.trouble == nil ? "ok" : "trouble")"
        ] + messages).joined(separator: "; ")
    }

    func screen(_ snapshot: AdminMessages.Snapshot, _ standings: [AdminMessages.Standing], columns: Int, rows: Int) -> [String] {
        var lines = [
            "Weir \(snapshot.version)  \(snapshot.status.trouble.map { "THE LEDGER CAN'T BE KEPT: \($0)" } ?? "ledger kept")",
            Self.line(snapshot), "",
            "LIMIT            USED/LIMIT         %  TRIES  KEY   (by \(order.rawValue)\(filter.isEmpty && !isTyping ? "" : ", filter /\(filter)\(isTyping ? "_" : "")"))",
        ]
        let shown = standings.filter { filter.isEmpty || $0.key.lowercased().contains(filter.lowercased()) }.sorted(by: comesFirst)
        let refusals = snapshot.refusals.prefix(max(3, rows / 3))
        for standing in shown.prefix(max(0, rows - lines.count - refusals.count - 2)) {
            let rate = Self.fullest(standing)
            let share = rate.used * 100 / max(1, rate.limit)
            let state = standing.blockedUntil == nil ? "" : "  BLOCKED"
            lines.append(
                Self.padded(standing.limit, 16) + " " + Self.padded("\(rate.used)/\(rate.limit) per \(rate.window)", 16) + " "
                    + Self.padded("\(share)", -3) + " " + Self.padded("\(standing.refusedTries)", -6) + "  " + standing.key + state)
        }
        lines += ["", "REFUSALS"]
        lines += refusals.map { "\($0.limit) \($0.key): \($0.reason), \($0.usage), room in \($0.retry) s, \($0.client)" }
        return lines.prefix(rows).map { Self.plain(String($0.prefix(columns))) }
    }

    private func comesFirst(_ one: AdminMessages.Standing, _ other: AdminMessages.Standing) -> Bool {
        func share(_ standing: AdminMessages.Standing) -> Double {
            let rate = Self.fullest(standing)
            return Double(rate.used) / Double(max(1, rate.limit))
        }
        return switch order {
        case .fullest: share(one) > share(other)
        case .used: Self.fullest(one).used > Self.fullest(other).used
        case .tries: one.refusedTries > other.refusedTries
        case .key: one.key < other.key
        }
    }

    /// Limits have a rate at least.
    private static func fullest(_ standing: AdminMessages.Standing) -> AdminMessages.Standing.Rate {
        standing.rates.max { $0.used * max(1, $1.limit) < $1.used * max(1, $0.limit) }!
    }

    private static func time(_ microseconds: Int64?) -> String {
        microseconds.map { $0 < 1000 ? "\($0)us" : "\(Double($0) / 1000)ms" } ?? "-"
    }

    /// A negative width stands for the right side.
    private static func padded(_ text: String, _ width: Int) -> String {
        let blanks = String(repeating: " ", count: max(0, abs(width) - text.count))
        return width < 0 ? blanks + text : text + blanks
    }

    /// What peers have sent moves no cursor.
    private static func plain(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 0x20 || 0x7f...0x9f ~= $0.value ? "?" : $0 }))
    }
}
