// SPDX-License-Identifier: Apache-2.0
internal import Sharing

/// When this host asks the others what they have used of a key, to warn of what all have used together (`warn_at`).
///
/// All hosts together can have used that part of a window only if one of them has used as much as each would if they
/// were equal. So this is where a host asks first. Then what is still missing is divided equally, and each host gets
/// marks, one for each window: it asks again when it has used so much. As long as all hosts keep to the marks of the
/// same division, the sum can't pass `warn_at` without a host that asks. A host that has lost its marks would ask too
/// late, because the others still rely on them. So all keys with marks are then asked about again.
///
/// Belongs to the ledger's thread.
struct SharedWarnings {
    private struct Mark {
        /// What this host may have used of the window without asking; `UInt64.max` after a warning.
        let used: UInt64
        let until: LedgerTime
    }

    private struct Watch {
        /// By window; nil where this host has none yet.
        var marks: [Mark?]
        /// Until then, an answer is awaited.
        var awaits: LedgerTime
        /// The change of the key that the marks are newer than (`Ledger.lastChange`).
        var change: Int64
    }

    private let hosts: UInt64
    private var watches: [KeyHash: Watch] = [:]
    private var nextPurge = LedgerTime(milliseconds: .min)

    /// Milliseconds until a question that was not answered is asked again.
    private static let patience: Int64 = 2000
    private static let most = 10_000

    /// - Parameter hosts: how many share the limits.
    init(hosts: Int) { self.hosts = UInt64(max(1, hosts)) }

    /// Whether the other hosts must be asked, now that so much is used of a window.
    func isDue(_ account: Account, lane: Int, used: UInt64, admitted: UInt64, at now: LedgerTime) -> Bool {
        if !watches.isEmpty, let watch = watches[account.hash] {
            if now < watch.awaits { return false }
            if lane < watch.marks.count, let mark = watch.marks[lane], now < mark.until { return used >= mark.used }
        }
        // Each charge comes here, so nothing is divided.
        return used &* hosts &* 100 >= admitted &* account.limit.terms.limit.warnAt
    }

    /// The others are being asked.
    mutating func noteQuestion(_ account: Account, at now: LedgerTime) {
        change(account.hash, at: now) { $0.awaits = now + Self.patience }
    }

    /// - Parameters:
    ///   - marks: by the length of the window in milliseconds. A window that is not among them keeps its mark.
    ///   - change: the last one that the marks take into account.
    mutating func set(
        _ hash: KeyHash, _ marks: [Int64: UInt64], of limit: Limit, after change: Int64, at now: LedgerTime
    ) {
        self.change(hash, at: now) { watch in
            (watch.awaits, watch.change) = (now, change)
            let old = watch.marks
            watch.marks = limit.rates.indices.map { lane in
                let length = limit.rates[lane].window.milliseconds
                if let used = marks[length] { return Mark(used: used, until: now + length) }
                return lane < old.count ? old[lane] : nil
            }
        }
    }

    private mutating func change(_ hash: KeyHash, at now: LedgerTime, _ body: (inout Watch) -> Void) {
        if watches.count >= Self.most, watches[hash] == nil {
            if now >= nextPurge {
                watches = watches.filter { item in
                    now < item.value.awaits || item.value.marks.contains { $0.map { now < $0.until } ?? false }
                }
                nextPurge = now + 1000
            }
            // This host asks about it from the first mark on. If the others have marks, the warning may be late.
            if watches.count >= Self.most { watches.remove(at: watches.startIndex) }
        }
        body(&watches[hash, default: Watch(marks: [], awaits: now, change: 0)])
    }

    /// The limit of a key has changed on all hosts, or its counts.
    ///
    /// - Parameter change: marks that are newer than it stay.
    mutating func forget(_ hash: KeyHash, before change: Int64) {
        if let watch = watches[hash], watch.change < change { watches[hash] = nil }
    }

    /// The limits may have changed.
    mutating func forgetAll() { watches = [:] }
}

extension Ledger {
    /// What all hosts together have used of a key, as far as this host must know.
    package struct SharedUse: Sendable, Equatable {
        /// By the length of a window in milliseconds: this host asks again when it has used so much of it. It is
        /// `UInt64.max` if a host has warned of the window. A window that is not among them keeps its mark.
        package var marks: [Int64: UInt64]
        /// The last change of the key that the host knew which found this out.
        package var change: Int64

        package init(marks: [Int64: UInt64], change: Int64) {
            self.marks = marks
            self.change = change
        }
    }

    /// Takes note of what all hosts have used of a key. What was found out before an administrator's change is not true
    /// any more, and changes nothing.
    ///
    /// - Returns: whether this host has used enough meanwhile that it must ask again.
    package func note(_ use: SharedUse, ofKey key: [UInt8], in limit: LimitState) -> Bool {
        owner.check()
        guard let shared, limit.terms.isShared, use.change >= lastChange(ofKey: key, in: limit) else { return false }
        let hash = hash(of: key, of: limit)
        shared.warnings.set(hash, use.marks, of: limit.limit, after: use.change, at: now)
        guard let account = existingAccount(hash, of: limit) else { return false }
        let isDue = limit.limit.rates.indices.contains { lane in
            use.marks[limit.limit.rates[lane].window.milliseconds].map { account.used(lane: lane) >= $0 } ?? false
        }
        if isDue { shared.warnings.noteQuestion(account, at: now) }
        return isDue
    }

    /// The number of the last change that an administrator has made on any host to the counts or to the limit of a key;
    /// 0 if none is known. It is the same on all hosts that have heard of the change.
    package func lastChange(ofKey key: [UInt8], in limit: LimitState) -> Int64 {
        owner.check()
        guard let changes = shared?.ledger.kept.changes else { return 0 }
        return [SharedChange.Kind.reset, .raise].reduce(0) { last, kind in
            max(last, changes[SharedChange.Subject(kind, limit: limit.limit.name, key: key)]?.version.number ?? 0)
        }
    }
}
