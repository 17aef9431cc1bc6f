// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import Patterns
internal import Synchronization

/// The result of a lookup.
package struct Match: Sendable {
    /// The number of the rule in its list.
    package let rule: Int
    /// The right-hand side, with `$n` replaced. Postfix treats an empty one as an error of the table.
    package let text: [UInt8]
    /// The bytes of the key that the pattern has matched; nil where that is not known.
    package var hit: Range<Int>?
}

/// A rule whose pattern exceeded a limit. It counts as no match, and the log tells the operator.
package struct GivenUp: Sendable {
    package let rule: Int
    package let reason: String
}

/// What lookups may take of an event loop.
package struct LoopShare: Sendable {
    /// Backtracking steps of one attempt, from all positions of the key.
    package var steps: UInt32 = 200_000
    /// The part of each period. Both are in nanoseconds.
    package var time: UInt64 = 2_000_000
    package var period: UInt64 = 10_000_000

    package init() {}
}

/// What the lookups of one message have taken and reported, with whichever matchers they were made.
package final class MessageLookups {
    /// Nanoseconds of the message's time budget.
    fileprivate var spent: UInt64 = 0
    fileprivate var budgetIsReported = false
    /// The rules already reported.
    fileprivate var reported: Set<RuleLocation> = []

    package init() {}

    /// Begins another message.
    package func reset() {
        spent = 0
        budgetIsReported = false
        if !reported.isEmpty { reported = [] }
    }
}

/// Looks keys up in rule lists. A matcher belongs to one thread and serves any number of lists and messages.
///
/// The lookups of a message share a time budget. Once it is used up, rules count as no match. Messages that take turns
/// with a matcher each set `message` before their lookups.
///
/// On an event loop, a lookup that would take more than the `LoopShare` is suspended: it returns nil, and
/// `takeSuspension` returns true. It has to be repeated with a matcher that has no share, on another thread.
package final class Matcher {
    let scratch: Scratch
    let scan = ScanScratch()
    private let clock: @Sendable () -> UInt64
    private let budget: UInt64
    private let limits: MatchLimits
    /// nil away from event loops.
    private let share: LoopShare?
    /// What lookups took since `periodStart`.
    private var loopTime: UInt64 = 0
    private var periodStart: UInt64 = 0
    private var isSuspended = false
    private let isAbandoned = Atomic(false)
    /// The message that the next lookups belong to.
    package var message = MessageLookups()
    /// The rules given up since the last `takeGivenUp`.
    package private(set) var givenUp: [GivenUp] = []
    /// By rule number, the last result of an `if` and the key that it is for.
    private var conditions: [(key: UInt64, holds: Bool)] = []
    /// The number of the current key.
    private var key: UInt64 = 0
    private var attempts = 0

    /// Without a fast pass, one try in this many is timed, and its time counts this many times.
    private static let samplingInterval = 64
    /// On an event loop, the time is checked after this many.
    private static let loopInterval = 8

    /// `budget` is per message; `clock` is monotonic. Both are in nanoseconds.
    package init(
        limits: MatchLimits = MatchLimits(), budget: UInt64 = .max, share: LoopShare? = nil,
        clock: @escaping @Sendable () -> UInt64 = monotonicNanoseconds
    ) {
        self.limits = limits
        var own = limits
        if let share { (own.stepsOfAll, own.leastSteps) = (min(limits.stepsOfAll, share.steps), 1) }
        scratch = Scratch(limits: own, isOnLoop: share != nil)
        self.share = share
        self.budget = budget
        self.clock = clock
    }

    /// Whether lookups are suspended if they take long.
    package var isOnLoop: Bool { share != nil }

    /// Whether a lookup was suspended since the last call.
    package func takeSuspension() -> Bool {
        guard isSuspended else { return false }
        isSuspended = false
        return true
    }

    /// Makes lookups in progress end soon, without a match. May be called on any thread.
    package func abandon() { isAbandoned.store(true, ordering: .relaxed) }

    /// Returns and clears the rules that were given up. Each is reported once per message.
    package func takeGivenUp() -> [GivenUp] {
        defer { givenUp = [] }
        return givenUp
    }

    /// Whether the loop's share of this period is used up. A new period begins if the last one is over.
    private func isOverShare(more: UInt64) -> Bool {
        guard let share, loopTime + more >= share.time else { return false }
        let now = clock()
        if now &- periodStart >= share.period {
            (periodStart, loopTime) = (now, 0)
            return false
        }
        isSuspended = true
        return true
    }

    /// Whether the message has used up its time budget, or the lookup is suspended. The first rule that the budget
    /// affects is reported.
    private func mustStop(at rule: Int, _ list: RuleList, more: UInt64 = 0) -> Bool {
        if isOverShare(more: more) || isAbandoned.load(ordering: .relaxed) { return true }
        guard message.spent + more >= budget else { return false }
        if !message.budgetIsReported, rule < list.entries.count {
            message.budgetIsReported = true
            giveUp(rule, "the message's time budget is spent", list)
        }
        return true
    }

    // MARK: - Sequential lookup

    /// The first rule that applies to `key`. Tries each in turn, as Postfix does.
    package func firstMatch(_ key: UnsafeRawBufferPointer, in list: RuleList) -> Match? {
        guard !mustStop(at: 0, list) else { return nil }
        let key = Self.upToNUL(key)
        let start = clock()
        defer { spend(clock() &- start) }
        var index = 0
        while index < list.entries.count, !isSuspended {
            let entry = list.entries[index]
            guard let expression = entry.statement.expression else {
                index += 1
                continue
            }
            attempts += 1
            let isSample = attempts % Self.samplingInterval == 0
            if isSample || share != nil && attempts % Self.loopInterval == 0,
                mustStop(at: index, list, more: clock() &- start)
            {
                return nil
            }
            let applies =
                isSample
                ? sampled(index, expression, key, list) : applies(index, expression, key, list)
            switch entry.statement.operation {
            case .match(let replacement) where applies && secondApplies(index, key, list):
                return match(index, replacement, key, list)
            case .if where !applies:
                index = entry.elsewhere
            case .match, .if, .endif:
                index += 1
            }
        }
        return nil
    }

    private func sampled(
        _ rule: Int, _ expression: Expression, _ key: UnsafeRawBufferPointer, _ list: RuleList
    ) -> Bool {
        let start = clock()
        defer {
            let time = (clock() &- start) * UInt64(Self.samplingInterval)
            list.counters.add(time: time, to: rule)
        }
        return applies(rule, expression, key, list)
    }

    // MARK: - Lookup among candidates

    /// The first rule that applies to `key`. Of the rules that `pass` covers, only the patterns of `candidates` (in
    /// ascending order) can match.
    func firstMatch(
        _ wholeKey: UnsafeRawBufferPointer, in list: RuleList, pass: FastPass,
        candidates: UnsafeBufferPointer<UInt32>
    ) -> Match? {
        guard !mustStop(at: 0, list) else { return nil }
        let key = Self.upToNUL(wholeKey)
        self.key &+= 1
        if conditions.count < list.entries.count {
            conditions = Array(repeating: (0, false), count: list.entries.count)
        }
        // Merges two ascending lists: the rules that the scan found, and those that it can't exclude.
        var (found, always) = (0, 0)
        while !isSuspended, found < candidates.count || always < pass.always.count {
            let next: UInt32
            if always == pass.always.count
                || (found < candidates.count && candidates[found] < pass.always[always])
            {
                next = candidates[found]
                found += 1
            } else {
                next = pass.always[always]
                always += 1
                if found < candidates.count, candidates[found] == next { found += 1 }
            }
            let rule = Int(next)
            guard case .match(let replacement) = list.entries[rule].statement.operation,
                isReached(rule, key, list, pass, candidates),
                holds(rule, key, list, pass, candidates), secondApplies(rule, key, list)
            else { continue }
            return match(rule, replacement, key, list)
        }
        return nil
    }

    /// Whether all `if`s around the rule hold.
    private func isReached(
        _ rule: Int, _ key: UnsafeRawBufferPointer, _ list: RuleList, _ pass: FastPass,
        _ candidates: UnsafeBufferPointer<UInt32>
    ) -> Bool {
        guard let condition = list.entries[rule].enclosing else { return true }
        if conditions[condition].key == self.key { return conditions[condition].holds }
        let result =
            isReached(condition, key, list, pass, candidates)
            && holds(condition, key, list, pass, candidates)
        conditions[condition] = (self.key, result)
        return result
    }

    private func holds(
        _ rule: Int, _ key: UnsafeRawBufferPointer, _ list: RuleList, _ pass: FastPass,
        _ candidates: UnsafeBufferPointer<UInt32>
    ) -> Bool {
        guard let expression = list.entries[rule].statement.expression else { return false }
        if pass.covers(rule), !candidates.contains(sorted: UInt32(rule)) {
            guard expression.negated else { return false }
            guard pass.mayExceed(limits, rule: rule, expression, keyLength: key.count) else { return true }
        }
        guard !mustStop(at: rule, list) else { return false }
        let start = clock()
        let result = applies(rule, expression, key, list)
        let time = clock() &- start
        spend(time)
        list.counters.add(time: time, to: rule)
        return result
    }

    private func spend(_ time: UInt64) {
        message.spent += time
        loopTime &+= time
    }

    // MARK: - Results

    private func applies(
        _ rule: Int, _ expression: Expression, _ key: UnsafeRawBufferPointer, _ list: RuleList
    ) -> Bool {
        guard let result = expression.applies(to: key, using: scratch) else {
            if share != nil, scratch.failedAtLimit { isSuspended = true } else { giveUp(rule, scratch.failure, list) }
            return false
        }
        return result
    }

    private func secondApplies(
        _ rule: Int, _ key: UnsafeRawBufferPointer, _ list: RuleList
    ) -> Bool {
        let statement = list.entries[rule].statement
        guard let second = statement.second, let first = statement.expression else { return true }
        // The groups come from the first pattern, so it is matched again after the second.
        return applies(rule, second, key, list) && applies(rule, first, key, list)
    }

    private func giveUp(_ rule: Int, _ reason: String, _ list: RuleList) {
        list.counters.addLimit(to: rule)
        // Once per rule and message, not once per line.
        if message.reported.insert(list.location(of: rule)).inserted {
            givenUp.append(GivenUp(rule: rule, reason: reason))
        }
    }

    private func match(
        _ rule: Int, _ replacement: Replacement, _ key: UnsafeRawBufferPointer, _ list: RuleList
    ) -> Match {
        list.counters.addHit(at: clock(), to: rule)
        let expression = list.entries[rule].statement.expression
        let hit = expression?.hit(in: scratch)
        if let literal = replacement.literal { return Match(rule: rule, text: literal, hit: hit) }
        var text: [UInt8] = []
        for segment in replacement.segments {
            switch segment {
            case .literal(let bytes): text += bytes
            case .group(let group):
                if let range = expression?.capture(group, in: scratch) { text += key[range] }
            }
        }
        return Match(rule: rule, text: text, hit: hit)
    }

    /// The bytes before the first NUL: Postfix keeps keys as C strings.
    static func upToNUL(_ key: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard let base = key.baseAddress, let end = memchr(base, 0, key.count) else { return key }
        return UnsafeRawBufferPointer(start: base, count: UnsafeRawPointer(end) - base)
    }
}

extension UnsafeBufferPointer<UInt32> {
    /// Binary search.
    func contains(sorted element: UInt32) -> Bool {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if self[middle] < element { low = middle + 1 } else { high = middle }
        }
        return low < count && self[low] == element
    }
}
