// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Foundation
import Report
import Rules

/// The output of `weir top`, for a terminal and for a pipe.
struct TopText {
    enum Order: String, CaseIterable {
        case fullest, used, refused = "refused requests", key
    }

    private var order = Order.fullest
    private var filter = ""
    private var isTyping = false

    // MARK: Keys

    /// - Returns: false to quit.
    mutating func handle(_ keys: String) -> Bool {
        // Keys such as arrows send Esc and more characters; the Esc key sends only Esc.
        if keys.unicodeScalars.count > 1, keys.unicodeScalars.first == "\u{1b}" { return true }
        for key in keys.unicodeScalars {
            switch key {
            case "\u{3}": return false
            case "\r", "\n": isTyping = false
            case "\u{1b}": (isTyping, filter) = (false, "")
            case "\u{7f}", "\u{8}": if isTyping, !filter.isEmpty { filter.removeLast() }
            case _ where isTyping: filter.unicodeScalars.append(key)
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

    // MARK: Pipe

    private static let mostRefusals = 10

    /// A line with the time and the rates, then an indented line for each key and each refusal.
    ///
    /// - Parameter time: of the last refresh; 0 for the first.
    static func lines(_ figures: TopFigures, since time: Double) -> [String] {
        let snapshot = figures.snapshot
        // Refusals of the current second may be incomplete: leave them for the next refresh.
        let refusals = snapshot.refusals.filter { time == 0 || $0.time >= time && $0.time < snapshot.time }.prefix(
            mostRefusals)
        return ["\(Date(timeIntervalSince1970: snapshot.time).formatted(.iso8601)) \(rates(snapshot))"]
            + figures.standings.map { "  \(Admin.description(of: $0))" }
            + refusals.map { "  refused: \(printable(text($0).utf8))" }
    }

    private static func rates(_ snapshot: AdminMessages.Snapshot) -> String {
        let answers = snapshot.answers.map { "\($0.action.lowercased())/s=\($0.perSecond.last ?? 0)" }.joined(
            separator: " ")
        let messages = snapshot.ways.map { way in
            way.name + " "
                + way.values.messages.sorted { $0.key < $1.key }.filter { $0.value > 0 }.map { "\($0.key)=\($0.value)" }
                .joined(separator: ",")
        }
        let latency = "p50/1m=\(time(snapshot.medianAnswer)) p99/1m=\(time(snapshot.slowAnswer))"
        let ledger =
            "keys=\(snapshot.status.keys) ledger=\(snapshot.status.trouble == nil ? "ok" : "trouble")"
            + (snapshot.reload?.fault == nil ? "" : " reload=rejected")
        return (["\(answers) \(latency) \(ledger)"] + messages).joined(separator: "; ")
    }

    private static func text(_ refusal: RefusedRequest) -> String {
        "\(refusal.limit)\(refusal.mode == "shadow" ? " (shadow)" : "") \(refusal.key): \(refusal.reason), "
            + "\(refusal.usage), room in \(Admin.duration(Int(refusal.retry))), \(refusal.client)"
    }

    private static func time(_ microseconds: Int64?) -> String {
        microseconds.map { $0 < 1000 ? "\($0)us" : "\(Double($0) / 1000)ms" } ?? "-"
    }

    // MARK: Terminal

    /// The columns beside the key. On a narrow terminal, the last ones are left out first.
    private enum Column: CaseIterable {
        case share, usage, limit, refused

        var width: Int {
            switch self {
            case .share: 4
            case .usage, .limit: 16
            case .refused: 7
            }
        }

        var heading: String {
            switch self {
            case .share: "   %"
            case .usage: "USED/LIMIT"
            case .limit: "LIMIT"
            case .refused: "REFUSED"
            }
        }

        func text(_ standing: KeyStanding) -> String {
            let rate = TopText.fullest(standing)
            return switch self {
            case .share: TopText.rightAligned("\(Int(TopText.share(standing) * 100))", width)
            case .usage: "\(rate.used)/\(rate.limit) per \(rate.window)"
            case .limit: standing.limit
            case .refused: TopText.rightAligned("\(standing.refusedTries)", width)
            }
        }

        /// From left to right.
        static let order: [Column] = [.limit, .usage, .share, .refused]

        static func fitting(_ width: Int) -> [Column] {
            var columns = Array(allCases)
            while !columns.isEmpty, columns.reduce(0, { $0 + $1.width + 1 }) + leastKeyWidth > width {
                columns.removeLast()
            }
            return order.filter(columns.contains)
        }

        private static let leastKeyWidth = 18
    }

    func screen(_ figures: TopFigures, failure: String?, columns: Int, rows: Int) -> [String] {
        let snapshot = figures.snapshot
        let state =
            (snapshot.status.trouble.map { "LEDGER FAILURE: \($0)" } ?? "ledger ok")
            + (snapshot.reload?.fault.map { "  RELOAD REJECTED: \($0)" } ?? "")
        let shownColumns = Column.fitting(columns)
        let keyWidth = columns - shownColumns.reduce(0) { $0 + $1.width + 1 }
        func row(_ cell: (Column) -> String, _ key: String) -> String {
            (shownColumns.map { Self.fitted(cell($0), $0.width) } + [key]).joined(separator: " ")
        }
        let filtered = filter.isEmpty && !isTyping ? "" : ", filter /\(filter)\(isTyping ? "_" : "")"
        var lines = [
            failure.map { "NO FIGURES SINCE \(Date(timeIntervalSince1970: snapshot.time).formatted(.iso8601)): \($0)" }
                ?? "Weir \(snapshot.version)  \(state)",
            Self.rates(snapshot), "", row(\.heading, "KEY (by \(order.rawValue)\(filtered))"),
        ]
        let shown = figures.standings.filter { filter.isEmpty || $0.key.lowercased().contains(filter.lowercased()) }
            .sorted(by: comesFirst)
        let refusals = snapshot.refusals.prefix(max(3, rows / 3))
        for standing in shown.prefix(max(0, rows - lines.count - refusals.count - 2)) {
            let mark = standing.blockedUntil == nil ? "" : "  BLOCKED"
            let key = mark.isEmpty ? standing.key : Self.cut(printable(standing.key.utf8), keyWidth - mark.count)
            lines.append(row({ $0.text(standing) }, key + mark))
        }
        lines += ["", "REFUSALS"]
        lines += refusals.map(Self.text)
        return lines.prefix(rows).map { Self.cut(printable($0.utf8), columns) }
    }

    private func comesFirst(_ one: KeyStanding, _ other: KeyStanding) -> Bool {
        /// A blocked key comes first, whatever it has used.
        func fullness(_ standing: KeyStanding) -> Double {
            standing.blockedUntil == nil ? Self.share(standing) : .infinity
        }
        return switch order {
        case .fullest: (fullness(one), other.key) > (fullness(other), one.key)
        case .used: (Self.fullest(one).used, other.key) > (Self.fullest(other).used, one.key)
        case .refused: (one.refusedTries, other.key) > (other.refusedTries, one.key)
        case .key: one.key < other.key
        }
    }

    private static func share(_ standing: KeyStanding) -> Double { share(fullest(standing)) }

    private static func share(_ rate: KeyStanding.Rate) -> Double {
        Double(rate.used) / Double(max(1, rate.limit))
    }

    /// The fullest rate. Every limit has at least one.
    private static func fullest(_ standing: KeyStanding) -> KeyStanding.Rate {
        standing.rates.max { share($0) < share($1) }!
    }

    // MARK: Widths

    private static func rightAligned(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    /// Exactly `width` cells.
    private static func fitted(_ text: String, _ width: Int) -> String {
        let text = cut(printable(text.utf8), width)
        return text + String(repeating: " ", count: width - text.unicodeScalars.reduce(0) { $0 + cells($1) })
    }

    /// At most `width` cells of a terminal.
    private static func cut(_ text: String, _ width: Int) -> String {
        var (cut, used) = (String.UnicodeScalarView(), 0)
        for scalar in text.unicodeScalars {
            used += cells(scalar)
            guard used <= width else { break }
            cut.append(scalar)
        }
        return String(cut)
    }

    /// The width of a character in terminal cells. wcwidth(3) depends on the locale.
    private static func cells(_ scalar: Unicode.Scalar) -> Int {
        guard !scalar.isASCII else { return 1 }
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format: return 0
        default: return scalar.properties.isEmojiPresentation || wide.contains { $0 ~= scalar.value } ? 2 : 1
        }
    }

    /// The blocks with East Asian Width W or F (Unicode Standard Annex 11).
    private static let wide: [ClosedRange<UInt32>] = [
        0x1100...0x115f, 0x2e80...0x303e, 0x3041...0x4dbf, 0x4e00...0xa4cf, 0xa960...0xa97f, 0xac00...0xd7a3,
        0xf900...0xfaff, 0xfe30...0xfe6f,
        0xff01...0xff60, 0xffe0...0xffe6, 0x16fe0...0x18dff, 0x1aff0...0x1b2ff, 0x1f200...0x1f2ff, 0x20000...0x3fffd,
    ]
}
