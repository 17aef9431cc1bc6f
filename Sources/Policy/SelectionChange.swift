// SPDX-License-Identifier: Apache-2.0
package import Limits
package import Report

/// An administrator's change to all keys of a selection. Its steps are short, so that requests are answered in between.
package struct SelectionChange {
    package enum Step {
        case more
        /// There are more keys than the administrator expects, and none has changed. Nothing is left to do.
        case tooMany
        /// The last keys have changed.
        case done
    }

    let change: KeyChange
    private let selection: KeySelection
    /// nil for any number.
    private let most: Int?
    private var walk: SelectionWalk?
    private var isSearching = true
    private var waiting: ArraySlice<Account> = []
    private var author: ChangeAuthor
    /// Whether other hosts are not told.
    private var isHere = false
    package private(set) var changed = KeysChanged(count: 0, keys: [], isDone: true)
    /// The limits of the changed keys.
    private(set) var limits: Set<String> = []

    /// Steps of a `SelectionWalk` in one go. Fewer than in other walks: a pattern is compared with each key.
    static let stepsPerPiece = 512
    /// The most names of keys in an answer. Nobody finds a key in a longer list.
    static let mostNames = 100
    private static let changesPerPiece = 256
    /// More keys than this are changed on this host alone: other hosts are told of each key.
    private static let mostShared = 1000

    /// - Parameter most: nil for any number.
    package init(_ change: KeyChange, to selection: KeySelection, most: Int?) {
        self.change = change
        self.selection = selection
        self.most = most
        author = .everywhere(user: change.user, reason: change.reason)
    }

    /// - Throws: `AdministrationFault`. What was changed before stays so.
    package mutating func step(in ledger: Ledger) throws(AdministrationFault) -> Step {
        var current = if let begun = walk.take() { begun } else { try ledger.selectionWalk(selection) }
        defer { walk = current }
        if isSearching {
            isSearching = try ledger.advance(&current, steps: Self.stepsPerPiece)
            guard !isSearching else { return .more }
            waiting = current.takeFound()[...]
            if waiting.count > Self.mostShared { (author, isHere) = (.here, true) }
            if let most, waiting.count > most {
                changed.add(waiting)
                changed.isDone = false
                return .tooMany
            }
        }
        let done = try ledger.intervene(
            change.intervention(at: ledger.now), on: waiting.prefix(Self.changesPerPiece), foundBy: current, by: author)
        waiting = waiting.dropFirst(Self.changesPerPiece)
        changed.add(done)
        limits.formUnion(done.map(\.limit.limit.name))
        return waiting.isEmpty ? .done : .more
    }

    /// What the administrator should know of other hosts.
    ///
    /// - Parameter note: what holds if they are told; nil if no other host shares the limits.
    package func note(onOthers note: String?) -> String? {
        guard note != nil, isHere else { return note }
        return "on this host only, because these are more than \(Self.mostShared) keys"
    }
}

extension KeysChanged {
    fileprivate mutating func add(_ accounts: some Collection<Account>) {
        count += accounts.count
        keys += accounts.prefix(SelectionChange.mostNames - keys.count).map {
            FoundKey(
                limit: $0.limit.limit.name, key: String(decoding: $0.key, as: UTF8.self), isKnown: true)
        }
    }
}
