// SPDX-License-Identifier: Apache-2.0
import Foundation
import Limits
import Report

/// What `weir top` shows on a terminal, and what its keys do.
struct TopView {
    enum Order: String, CaseIterable {
        case fullest, used, refused = "refused requests", key
    }

    /// What the caller has to do after a key.
    enum Command {
        case quit
        case change(TopChange)
    }

    /// A limit and a key of it.
    struct Selection: Hashable {
        let limit: String
        let key: String

        init(_ standing: KeyStanding) { (limit, key) = (standing.limit, standing.key) }
    }

    /// What is asked before a change.
    struct Question {
        enum Field { case confirmation, rates, duration }

        var change: TopChange
        let standing: KeyStanding
        var field: Field
        var typed: String
    }

    /// The line that says what became of a key press.
    struct Notice: Sendable {
        /// Cut if the line is too long.
        var subject = ""
        /// Never cut: the outcome, and how to undo it.
        var text: String
        var isFault = false
    }

    private(set) var order = Order.fullest
    private(set) var filter = ""
    private(set) var isTyping = false
    private(set) var showsHelp = false
    private(set) var selected: Selection?
    private(set) var question: Question?
    private(set) var notice: Notice?
    /// A change that the service has not answered yet, and where its key stood before.
    private var pending: (change: TopChange, standing: KeyStanding?)?
    private var undo: TopChange?
    /// Rows of keys on the last screen.
    var page = 10

    // MARK: Keys

    /// - Returns: nil if nothing is left to do.
    mutating func press(_ key: TopKey, _ figures: TopFigures) -> Command? {
        if key == .interrupt { return .quit }
        if showsHelp {
            showsHelp = false
            return nil
        }
        if question != nil { return answer(key) }
        if isTyping {
            type(key)
            return nil
        }
        notice = nil
        switch key {
        case .up: select(-1, in: figures)
        case .down: select(1, in: figures)
        case .pageUp: select(-page, in: figures)
        case .pageDown: select(page, in: figures)
        case .first: select(-figures.standings.count, in: figures)
        case .last: select(figures.standings.count, in: figures)
        case .escape: (filter, selected) = ("", nil)
        case .character(let character): return press(character, figures)
        case .enter, .backspace, .interrupt: break
        }
        return nil
    }

    private mutating func press(_ character: Unicode.Scalar, _ figures: TopFigures) -> Command? {
        switch character {
        case "q": return .quit
        case "?", "h": showsHelp = true
        case "s":
            let all = Order.allCases
            order = all[(all.firstIndex(of: order)! + 1) % all.count]
        case "/": (isTyping, filter) = (true, "")
        case "j": select(1, in: figures)
        case "k": select(-1, in: figures)
        case "g": select(-figures.standings.count, in: figures)
        case "G": select(figures.standings.count, in: figures)
        case "b": ask(.block, in: figures)
        case "u": ask(.unblock, in: figures)
        case "r": ask(.raise, in: figures)
        case "x": ask(.reset, in: figures)
        case "z":
            guard let undo else {
                notice = Notice(text: "Nothing to undo.")
                return nil
            }
            return begin(undo, from: nil)
        default: break
        }
        return nil
    }

    private mutating func type(_ key: TopKey) {
        switch key {
        case .enter: isTyping = false
        case .escape: (isTyping, filter) = (false, "")
        case .backspace: if !filter.isEmpty { filter.unicodeScalars.removeLast() }
        case .character(let character): filter.unicodeScalars.append(character)
        default: break
        }
    }

    /// The first row, without a selection. A selected key that has left the list counts as none.
    private mutating func select(_ step: Int, in figures: TopFigures) {
        let shown = shown(figures).map(Selection.init)
        guard !shown.isEmpty else { return selected = nil }
        let place = selected.flatMap { shown.firstIndex(of: $0) }.map { $0 + step }
        selected = shown[max(0, min(place ?? (step > 1 ? step - 1 : 0), shown.count - 1))]
    }

    // MARK: Changes

    private static let usualDuration = "1d"

    private mutating func ask(_ action: KeyAction, in figures: TopFigures) {
        guard pending == nil else { return notice = Notice(text: "The service has not answered yet.") }
        guard let standing = shown(figures).first(where: { Selection($0) == selected }) else {
            return notice = Notice(text: "Select a key first, with the arrows or j and k.")
        }
        let change = TopChange(action, of: standing)
        switch action {
        case .raise:
            let twice = standing.rates.map { "\(min($0.limit, SlidingWindows.largestAmount / 2) * 2)/\($0.window)" }
            question = Question(
                change: change, standing: standing, field: .rates, typed: twice.joined(separator: " "))
        case .block:
            question = Question(change: change, standing: standing, field: .duration, typed: Self.usualDuration)
        case .unblock where standing.blockedUntil == nil:
            notice = Notice(subject: standing.key, text: " is not blocked.")
        case .unblock, .reset, .unraise:
            question = Question(change: change, standing: standing, field: .confirmation, typed: "")
        }
    }

    private mutating func answer(_ key: TopKey) -> Command? {
        guard var asked = question else { return nil }
        notice = nil
        switch key {
        case .escape:
            question = nil
            notice = Notice(text: "Nothing was changed.")
        case .backspace:
            if !asked.typed.isEmpty { asked.typed.unicodeScalars.removeLast() }
            question = asked
        case .character(let character) where asked.field == .confirmation:
            question = nil
            if character == "y" || character == "Y" { return begin(asked.change, from: asked.standing) }
            notice = Notice(text: "Nothing was changed.")
        case .character(let character):
            asked.typed.unicodeScalars.append(character)
            question = asked
        case .enter: return enter(asked)
        default: break
        }
        return nil
    }

    /// The text of a field is complete.
    private mutating func enter(_ asked: Question) -> Command? {
        var asked = asked
        switch asked.field {
        case .confirmation: return nil
        case .rates:
            let rates = asked.typed.split { $0 == " " || $0 == "," }.map(String.init)
            if let wrong = rates.first(where: { Rate($0) == nil }) ?? (rates.isEmpty ? "" : nil) {
                notice = Notice(text: "'\(wrong)' is not a rate: write one such as 500/1h.", isFault: true)
                return nil
            }
            asked.change.rates = rates
            (asked.field, asked.typed) = (.duration, Self.usualDuration)
            question = asked
            return nil
        case .duration:
            let text = asked.typed.filter { $0 != " " }
            let duration = LimitsCommand.DurationArgument(argument: text)
            guard duration != nil || text.isEmpty else {
                notice = Notice(text: "'\(text)' is not a duration: write one such as 12h.", isFault: true)
                return nil
            }
            asked.change.duration = duration?.seconds
            question = nil
            return begin(asked.change, from: asked.standing)
        }
    }

    /// - Parameter standing: where the key stands; nil for an undo, which can't be undone.
    private mutating func begin(_ change: TopChange, from standing: KeyStanding?) -> Command? {
        guard pending == nil else {
            notice = Notice(text: "The service has not answered yet.")
            return nil
        }
        pending = (change, standing)
        undo = nil
        notice = Notice(subject: change.key, text: ": \(change.action.rawValue) ...")
        return .change(change)
    }

    /// The service has answered the change, or not at all.
    mutating func finish(_ outcome: TopOutcome) {
        guard let (change, standing) = pending else { return }
        pending = nil
        switch outcome {
        case .done(let note):
            undo = standing.flatMap(change.undo)
            let way = standing == nil ? "" : undo == nil ? ". This can't be undone" : ". z undoes it"
            notice = Notice(
                subject: "\(change.key) of \(change.limit)",
                text: " \(change.whatWasDone)\(note.map { "; \($0)" } ?? "")\(way).")
        case .unknownKey:
            notice = Notice(subject: change.key, text: ": not changed, the limit has no such key.", isFault: true)
        case .refused(let reason): notice = Notice(text: "Not changed: \(reason)", isFault: true)
        case .noAnswer(let reason): notice = Notice(text: "Not confirmed: \(reason)", isFault: true)
        }
    }

    // MARK: Rows

    func shown(_ figures: TopFigures) -> [KeyStanding] {
        figures.standings.filter { matches($0.key) }.sorted(by: comesFirst)
    }

    /// A shell pattern for the keys that a filter matches.
    static func pattern(of filter: String) -> String {
        "*\(filter.map { "*?[\\".contains($0) ? "\\\($0)" : String($0) }.joined())*"
    }

    func matches(_ key: String) -> Bool { filter.isEmpty || key.lowercased().contains(filter.lowercased()) }

    private func comesFirst(_ one: KeyStanding, _ other: KeyStanding) -> Bool {
        /// A blocked key comes first, whatever it has used.
        func fullness(_ standing: KeyStanding) -> Double {
            standing.blockedUntil == nil ? standing.fullest.share : .infinity
        }
        return switch order {
        case .fullest: (fullness(one), other.key) > (fullness(other), one.key)
        case .used: (one.fullest.used, other.key) > (other.fullest.used, one.key)
        case .refused: (one.refusedTries, other.key) > (other.refusedTries, one.key)
        case .key: one.key < other.key
        }
    }
}

/// What the service says to a change.
enum TopOutcome: Sendable {
    /// - Parameter note: a hint for the administrator.
    case done(note: String?)
    case unknownKey
    case refused(String)
    /// It may have been made.
    case noAnswer(String)
}

extension KeyStanding {
    /// The fullest rate. Every limit has at least one.
    var fullest: Rate { rates.max { $0.share < $1.share }! }
}

extension KeyStanding.Rate {
    var share: Double { Double(used) / Double(max(1, limit)) }
}
