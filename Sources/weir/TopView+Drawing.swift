// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Foundation
import Report

/// The screen of `weir top`.
extension TopView {
    /// One line, and how it looks.
    private struct Line {
        enum Style: String {
            case plain = ""
            case heading = "1"
            case good = "32"
            case warning = "33"
            case bad = "31"
            case faint = "2"
        }

        var text: String
        var style = Style.plain
        var isSelected = false

        func onTerminal(_ columns: Int, colour: Bool) -> String {
            let text = TerminalCells.cut(EventLog.escaped(text), columns)
            // Reverse video is no colour: it stays where colour is unwanted.
            let codes = [isSelected ? "7" : "", colour ? style.rawValue : ""].filter { !$0.isEmpty }
            guard !codes.isEmpty, !text.isEmpty else { return text }
            return "\u{1b}[\(codes.joined(separator: ";"))m"
                + (isSelected ? TerminalCells.padded(text, columns) : text) + "\u{1b}[m"
        }
    }

    /// - Parameter fault: why the figures are not the latest.
    mutating func screen(_ figures: TopFigures, fault: String?, columns: Int, rows: Int, colour: Bool) -> [String] {
        let head = head(figures.snapshot, fault, columns)
        let foot = foot(columns)
        let room = max(0, rows - head.count - foot.count)
        var body = showsHelp ? Self.help.map { Line(text: $0) } : tables(figures, columns, room)
        body = Array(body.prefix(room))
        body += [Line](repeating: Line(text: ""), count: room - body.count)
        return (head + body + foot).prefix(rows).map { $0.onTerminal(columns, colour: colour) }
    }

    // MARK: Head and foot

    private func head(_ snapshot: AdminMessages.Snapshot, _ fault: String?, _ columns: Int) -> [Line] {
        let faults =
            (snapshot.status.trouble.map { ["LEDGER FAILURE: \($0)"] } ?? [])
            + (snapshot.status.engineTrouble.map { ["NO ENGINE: \($0.effect)"] } ?? [])
            + (snapshot.reload?.fault.map { ["RELOAD REJECTED: \($0)"] } ?? [])
        let state =
            if let fault {
                Line(text: "NO FIGURES SINCE \(TopView.time(snapshot.time)): \(fault)", style: .bad)
            } else {
                stateLine(snapshot, faults)
            }
        let (p50, p99) = (TopText.time(snapshot.medianAnswer), TopText.time(snapshot.slowAnswer))
        let rates =
            snapshot.answers.map { "\($0.action) \(Self.count($0.perSecond.last ?? 0))/s" } + [
                snapshot.medianAnswer == nil
                    ? "no answers in the last minute" : "last minute: p50 \(p50) p99 \(p99)",
                snapshot.status.keys == 1 ? "1 key" : "\(Self.count(UInt64(snapshot.status.keys))) keys",
            ]
        let ways = snapshot.ways.flatMap { way in
            TopText.messages(way).enumerated().map { index, one in
                (index == 0 ? "\(way.name): " : "") + "\(one.name) \(Self.count(one.count))"
            }
        }
        return [
            state, Line(text: TerminalCells.joined(rates, columns)), Line(text: TerminalCells.joined(ways, columns)),
        ]
    }

    private func stateLine(_ snapshot: AdminMessages.Snapshot, _ faults: [String]) -> Line {
        let hosts = snapshot.hosts?.hosts ?? []
        let missing = hosts.filter { !$0.hasAnswered }.map(\.name)
        // Without the engine, the others can't be asked: nobody knows whether they run.
        let all =
            missing.isEmpty
            ? "all \(hosts.count) hosts"
            : snapshot.hosts?.fault != nil
                ? "figures of this host alone"
                : "\(hosts.count - missing.count) of \(hosts.count) hosts, without \(missing.joined(separator: ", "))"
        let parts = ["Weir \(snapshot.version)"] + (faults.isEmpty ? ["ledger ok"] : faults)
        return Line(
            text: (parts + (hosts.isEmpty ? [] : [all])).joined(separator: "  "),
            style: !faults.isEmpty ? .bad : missing.isEmpty ? .good : .warning)
    }

    private func foot(_ columns: Int) -> [Line] {
        let keys =
            showsHelp
            ? ["any key: back"]
            : ["?:help", "b:block", "u:unblock", "r:raise", "x:reset", "z:undo", "/:filter", "s:sort", "q:quit"]
        return [statusLine(columns), Line(text: TerminalCells.joined(keys, columns), style: .faint)]
    }

    /// The question, with a fault of the text that was typed; or the notice; or the filter that is typed.
    private func statusLine(_ columns: Int) -> Line {
        func line(_ subject: String, _ kept: String, _ style: Line.Style) -> Line {
            let (subject, kept) = (EventLog.escaped(subject), EventLog.escaped(kept))
            return Line(
                text: TerminalCells.cut(subject, max(8, columns - TerminalCells.width(kept))) + kept, style: style)
        }
        if let question, notice == nil {
            let target = "\(question.change.action.rawValue) \(question.change.key) of \(question.change.limit)"
            let rest =
                switch question.field {
                case .confirmation: "? y/n"
                case .rates: " to: \(question.typed)_"
                case .duration:
                    (question.change.rates.isEmpty ? "" : " to \(question.change.rates.joined(separator: " "))")
                        + " for (empty: no end): \(question.typed)_"
                }
            return line(target, rest, .heading)
        }
        if let notice { return line(notice.subject, notice.text, notice.isFault ? .bad : .heading) }
        return isTyping ? line("filter: \(filter)", "_", .heading) : Line(text: "")
    }

    // MARK: Tables

    private mutating func tables(_ figures: TopFigures, _ columns: Int, _ room: Int) -> [Line] {
        let groups = (figures.snapshot.refusalGroups ?? []).filter { matches($0.newest.key) }
        let shown = shown(figures)
        // The refusals get a third, and what the keys leave.
        let third = min(groups.count, max(3, room / 3))
        let refusals = min(groups.count, max(third, room - shown.count - 4))
        let below = room < 10 ? [] : refusalLines(Array(groups.prefix(refusals)), groups.count, columns)
        page = max(1, room - 1 - below.count)
        return keyLines(shown, columns) + below
    }

    /// Scrolls as far as the selected key needs.
    private func keyLines(_ shown: [KeyStanding], _ columns: Int) -> [Line] {
        let place = shown.firstIndex { Selection($0) == selected }
        let first = place.map { max(0, $0 - page + 1) } ?? 0
        let rows = Array(shown.dropFirst(first).prefix(page))
        let filtered = filter.isEmpty && !isTyping ? "" : ", filter /\(filter)\(isTyping ? "_" : "")"
        let lines = Self.table(of: rows, heading: "KEY (by \(order.rawValue)\(filtered))").lines(width: columns)
        return lines.enumerated().map { index, text in
            guard index > 0 else { return Line(text: text, style: .heading) }
            return Line(
                text: text, style: Self.style(of: rows[index - 1]), isSelected: place == first + index - 1)
        }
    }

    private static func table(of rows: [KeyStanding], heading: String) -> TopTable {
        func amount(_ number: UInt64, _ row: KeyStanding) -> String {
            row.count == "bytes" ? size(number) : count(number)
        }
        return TopTable(columns: [
            .numbers("%", rank: 1, rows.map { count(UInt64(min(1e12, $0.fullest.share * 100))) }),
            .numbers(
                "USED/LIMIT", rank: 2,
                rows.map {
                    "\(amount($0.fullest.used, $0))/\(amount($0.fullest.limit, $0)) per \($0.fullest.window)"
                }),
            .numbers("REFUSED", rank: 4, rows.map { count($0.refusedTries) }),
            .texts("COUNTS", rank: 5, least: 11, rows.map { .init(text: $0.count) }),
            .texts("LIMIT", rank: 3, least: 8, rows.map { .init(text: EventLog.escaped($0.limit)) }),
            .texts(
                heading, rank: 0, least: 28,
                rows.map { row in
                    let marks = [
                        row.mode == "shadow" ? "shadow" : nil, row.blockedUntil.map { _ in "BLOCKED" },
                        row.raisedUntil.map { _ in "raised" }, row.exempt ? "exempt" : nil,
                    ]
                    return .init(
                        text: EventLog.escaped(row.key), mark: marks.compactMap(\.self).map { "  \($0)" }.joined())
                }),
        ])
    }

    /// Red is what Weir refuses, yellow what it may refuse soon, or would refuse without shadow mode.
    private static func style(of row: KeyStanding) -> Line.Style {
        if row.blockedUntil != nil { return .bad }
        let share = row.fullest.share
        if row.mode == "shadow" { return share >= 1 ? .warning : .faint }
        return share >= 1 ? .bad : share >= 0.8 || row.raisedUntil != nil ? .warning : .plain
    }

    private func refusalLines(_ groups: [RefusalGroup], _ count: Int, _ columns: Int) -> [Line] {
        let more = count > groups.count ? ", the newest \(groups.count) of \(count)" : ""
        let heading = [
            Line(text: ""),
            Line(text: "REFUSALS" + (groups.isEmpty ? ": none since the start" : more), style: .heading),
        ]
        guard !groups.isEmpty else { return heading }
        let lines = table(of: groups).lines(width: columns)
        return heading
            + lines.enumerated().map { index, text in
                guard index > 0 else { return Line(text: text, style: .heading) }
                return Line(text: text, style: groups[index - 1].newest.mode == "shadow" ? .faint : .plain)
            }
    }

    private func table(of groups: [RefusalGroup]) -> TopTable {
        let newest = groups.map(\.newest)
        func texts(_ text: (RefusedRequest) -> String) -> [TopTable.Cell] {
            newest.map { .init(text: EventLog.escaped(text($0))) }
        }
        return TopTable(columns: [
            .numbers("COUNT", rank: 1, groups.map { Self.count($0.count) }),
            .numbers("FIRST", rank: 4, groups.map { Self.clock($0.first) }),
            .numbers("LAST", rank: 2, newest.map { Self.clock($0.time) }),
            .texts("LIMIT", rank: 5, least: 8, texts(\.limit)),
            .texts(
                "KEY", rank: 0, least: 16,
                newest.map { .init(text: EventLog.escaped($0.key), mark: $0.mode == "shadow" ? "  shadow" : "") }),
            .texts("ANSWER", rank: 3, least: 15, texts(\.action)),
            .texts("WHY", rank: 6, least: 24, texts { "\($0.reason), \($0.usage)" }),
            .texts("CLIENT", rank: 7, least: 24, texts(\.client)),
        ])
    }

    // MARK: Numbers and times, as the page shows them

    /// `9999`, `12.3 k`, `200 M`
    private static func count(_ number: UInt64) -> String {
        guard number >= 10_000 else { return "\(number)" }
        var value = Double(number)
        for unit in ["k", "M", "G", "T", "P"] {
            value /= 1000
            guard value >= 999.5 else {
                let isSmall = value < 99.95
                let text = isSmall ? String(format: "%.1f", value) : "\(Int(value.rounded()))"
                return (text.hasSuffix(".0") ? String(text.dropLast(2)) : text) + " \(unit)"
            }
        }
        return "\(Int((value / 1000).rounded())) E"
    }

    private static func size(_ bytes: UInt64) -> String { bytes < 10_000 ? "\(bytes) B" : count(bytes) + "B" }

    /// `2026-11-28T05:01:02Z`
    private static func time(_ seconds: Double) -> String {
        Date(timeIntervalSince1970: seconds).formatted(.iso8601)
    }

    /// `05:01:02Z`, or the date of an earlier day. UTC, as in the rest of Weir.
    private static func clock(_ seconds: Double) -> String {
        let (text, now) = (time(seconds), time(secondsSince1970()))
        return String(text.prefix(10) == now.prefix(10) ? text.dropFirst(11) : text.prefix(10))
    }

    // MARK: Help

    private static let help = [
        "arrows j k   select a key; PgUp, PgDn, g and G go further; Esc ends it",
        "b            block the selected key of its limit: asks for how long",
        "u            unblock it",
        "r            raise its limit: asks to which rates, and for how long",
        "x            reset its counts to 0, and end its block",
        "z            undo the last change, except a reset",
        "s            change the order: fullest, used, refused requests, key",
        "/            show only keys that contain a text; Esc shows all again",
        "q Ctrl-C     quit",
        "",
        "USED/LIMIT is the fullest window, % the used part, REFUSED the refused requests",
        "of the longest window. k, M, G are thousands, millions, thousand millions.",
        "Figures of shared limits are of all hosts that the first line counts.",
        "red: over or blocked   yellow: 80 % used, raised, or over a shadow limit",
        "faint: a shadow limit, which refuses nothing.   Times are UTC.",
    ]
}
