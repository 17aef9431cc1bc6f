// SPDX-License-Identifier: Apache-2.0

/// The changes that hold on all hosts, as one host knows them: the newest of each subject.
///
/// Each host keeps them, and tells the engine in each epoch those that it has not told yet. The engine numbers what it
/// learns (`position`), and answers each call with what came after the position that the host has seen. A block or a
/// raise that has ended is kept until all hosts have seen that: an older one that some host has not told yet would come
/// back otherwise. Resets are kept as long as there is room: who forgets one would carry it out again when it is told
/// again.
package struct SharedChanges: Sendable {
    /// The most resets that a host keeps, and the most others. Of more, those go first that end first.
    package static let most = 10_000
    /// The largest number of a version: the engine's library counts with floating point.
    static let largestNumber: Int64 = 1 << 52
    private static let surplus = most / 20
    private static let pruningInterval: Int64 = 10_000
    /// In milliseconds: twenty years. A block without an end has ten.
    private static let longestLeft: Int64 = 20 * 366 * 86_400_000
    /// An open call may have told this many of `untold`, and is about to remove them.
    private static let mostUnderWay = 1000

    struct Entry {
        var change: SharedChange
        /// In this epoch; 0 if the engine has not told it.
        var position: Int64
    }

    /// A change on its way.
    package struct Told: Equatable, Sendable {
        package let subject: String
        package let version: SharedChange.Version
        /// The time until it ends.
        package let left: Int64
        package let content: String

        package init(subject: String, version: SharedChange.Version, left: Int64, content: String) {
            self.subject = subject
            self.version = version
            self.left = left
            self.content = content
        }
    }

    /// What the engine tells.
    package struct News: Equatable, Sendable {
        /// All hosts have seen what came up to this position.
        package var stable: Int64 = 0
        /// This host has seen what came up to this one.
        package var position: Int64 = 0
        package var changes: [(position: Int64, told: Told)] = []

        package init(stable: Int64 = 0, position: Int64 = 0, changes: [(position: Int64, told: Told)] = []) {
            self.stable = stable
            self.position = position
            self.changes = changes
        }

        package static func == (a: News, b: News) -> Bool {
            a.stable == b.stable && a.position == b.position && a.changes.elementsEqual(b.changes, by: ==)
        }
    }

    private(set) var entries: [SharedChange.Subject: Entry] = [:]
    /// The largest number of a version that this host knows.
    package private(set) var number: Int64 = 0
    /// The newest reset that this host has forgotten. It carries out no older ones.
    package private(set) var forgotten = SharedChange.Version(number: 0, mark: 0)
    private var resetCount = 0
    /// What the engine must still be told, in that order. A subject that has changed again may be in it more than once.
    private(set) var untold: [SharedChange.Subject] = []
    /// The position that this host has seen in this epoch.
    var position: Int64 = 0
    /// The subjects that have changed since `takeUnsaved`.
    private var touched: Set<SharedChange.Subject> = []
    private var pruned: Int64 = .min / 2

    init() {}

    init(_ changes: [SharedChange], _ numbers: Numbers) {
        for change in changes { entries[change.subject] = Entry(change: change, position: 0) }
        resetCount = entries.keys.count { $0.kind == .reset }
        number = max(numbers.newest, changes.map(\.version.number).max() ?? 0)
        forgotten = numbers.forgotten
        tellAgain()
    }

    package var all: [SharedChange] { entries.values.map(\.change) }

    package subscript(subject: SharedChange.Subject) -> SharedChange? { entries[subject]?.change }

    /// A new epoch, or a start: the engine may know none of them.
    mutating func tellAgain() {
        untold = entries.keys.sorted()
        position = 0
        for subject in untold { entries[subject]?.position = 0 }
    }

    /// A change that is made on this host.
    ///
    /// - Parameter wall: the wall clock in milliseconds since 1970.
    mutating func make(
        _ subject: SharedChange.Subject, value: String, until: Int64, author: SharedChange.Author, mark: UInt64,
        wall: Int64
    ) {
        number = max(number + 1, min(wall, Self.largestNumber))
        let version = SharedChange.Version(number: number, mark: mark)
        put(SharedChange(subject, version, until: until, value: value, author: author), position: 0)
        untold.append(subject)
        if untold.count > 4 * Self.most { compactUntold() }
    }

    /// Keeps each change that is to be told once, at its last place.
    private mutating func compactUntold() {
        var seen: Set<SharedChange.Subject> = []
        let rest = untold.dropFirst(Self.mostUnderWay).reversed().filter {
            entries[$0] != nil && seen.insert($0).inserted
        }
        untold = Array(untold.prefix(Self.mostUnderWay)) + rest.reversed()
    }

    /// - Returns: the change, if it is newer than what this host knows. A block or raise that has ended, and of which
    ///   this host knows nothing, changes nothing here: it is only kept.
    mutating func take(_ told: Told, position: Int64, at now: Int64, rules: SharingRules) -> SharedChange? {
        guard let subject = SharedChange.Subject(text: told.subject), told.version.number <= Self.largestNumber,
            let change = SharedChange(
                subject, told.version, until: now + min(told.left, Self.longestLeft), content: told.content)
        else { return nil }
        number = max(number, told.version.number)
        if let own = entries[subject]?.change.version {
            if own == told.version { entries[subject]?.position = position }
            guard own != told.version, own < told.version || !rules.contains(.newestWins) else { return nil }
        } else if subject.kind == .reset, told.version <= forgotten {
            return nil
        }
        let isUnknown = entries[subject] == nil
        put(change, position: position)
        let hasOnlyEnded = subject.kind != .reset && told.left == 0 && !change.value.isEmpty
        return isUnknown && hasOnlyEnded ? nil : change
    }

    private mutating func put(_ change: SharedChange, position: Int64) {
        let isReset = change.subject.kind == .reset
        let isNew = entries.updateValue(Entry(change: change, position: position), forKey: change.subject) == nil
        if isReset, isNew { resetCount += 1 }
        touched.insert(change.subject)
        let surplus = (isReset ? resetCount : entries.count - resetCount) - Self.most
        guard surplus > Self.surplus else { return }
        let alike = entries.values.map(\.change).filter { ($0.subject.kind == .reset) == isReset }
        for change in alike.sorted(by: { ($0.until, $0.version) < ($1.until, $1.version) }).prefix(surplus) {
            if isReset { forgotten = max(forgotten, change.version) }
            remove(change.subject)
        }
    }

    private mutating func remove(_ subject: SharedChange.Subject) {
        entries[subject] = nil
        touched.insert(subject)
        if subject.kind == .reset { resetCount -= 1 }
    }

    /// Removes what has ended and all hosts have seen, except resets.
    ///
    /// - Parameter stable: the position that all hosts have seen.
    mutating func prune(stable: Int64, at now: Int64, rules: SharingRules) {
        guard now - pruned >= Self.pruningInterval else { return }
        pruned = now
        let over = entries.filter { entry in
            let isKnown = entry.value.position > 0 && entry.value.position <= stable
            return entry.key.kind != .reset && entry.value.change.until <= now
                && (isKnown || !rules.contains(.keepEnded))
        }
        for subject in over.keys { remove(subject) }
    }

    // MARK: Telling

    /// The next that are told.
    func next(_ count: Int, at now: Int64) -> [Told] {
        untold.prefix(count).compactMap { entries[$0]?.change }.map { change in
            Told(
                subject: change.subject.text, version: change.version, left: max(0, change.until - now),
                content: change.content)
        }
    }

    /// The engine has those that `next(count)` has returned.
    mutating func told(_ count: Int) { untold.removeFirst(min(count, untold.count)) }

    // MARK: Storing

    package struct Numbers: Sendable {
        /// The largest number of a version.
        package let newest: Int64
        package let forgotten: SharedChange.Version

        package init(newest: Int64 = 0, forgotten: SharedChange.Version = SharedChange.Version(number: 0, mark: 0)) {
            self.newest = newest
            self.forgotten = forgotten
        }
    }

    package struct Unsaved: Sendable {
        package let numbers: Numbers
        package let changes: [SharedChange]
        package let removed: [SharedChange.Subject]
    }

    /// What must be stored; nil if nothing has changed.
    mutating func takeUnsaved() -> Unsaved? {
        guard !touched.isEmpty else { return nil }
        defer { touched.removeAll() }
        return Unsaved(
            numbers: Numbers(newest: number, forgotten: forgotten),
            changes: touched.compactMap { entries[$0]?.change },
            removed: touched.filter { entries[$0] == nil })
    }

    mutating func touchAll(_ removed: [SharedChange.Subject]) {
        touched.formUnion(entries.keys)
        touched.formUnion(removed)
    }
}
