// SPDX-License-Identifier: Apache-2.0

/// When this host asks the others what they have used of a key, to warn of what all have used together (`warn_at`).
///
/// All hosts together can have used that part of a limit only if one of them has used as much as each would if they
/// were equal. So this is where a host asks first. Then what is still missing is divided equally, and each host gets
/// marks: it asks again when it has used so much. Without a mark that some host has reached, there is nothing to warn
/// of.
///
/// Belongs to the ledger's thread.
struct SharedWarnings {
    private struct Watch {
        /// By window, what this host may have used without asking. All are `UInt64.max` while an answer is awaited, and
        /// after a warning.
        var marks: [UInt64]
        let until: LedgerTime
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
        if !watches.isEmpty, let watch = watches[account.hash], now < watch.until, lane < watch.marks.count {
            return used >= watch.marks[lane]
        }
        return used >= first(admitted, of: account.limit.limit)
    }

    /// What this host has used when it asks for the first time.
    func first(_ admitted: UInt64, of limit: Limit) -> UInt64 {
        (Limit.leastToWarn(of: admitted, at: limit.warnAt) - 1) / hosts + 1
    }

    /// The others are being asked.
    mutating func noteQuestion(_ account: Account, at now: LedgerTime) {
        let lanes = account.limit.terms.refusedLane
        set(account.hash, [UInt64](repeating: .max, count: lanes), until: now + Self.patience, at: now)
    }

    /// - Parameter marks: by window.
    mutating func set(_ hash: KeyHash, _ marks: [UInt64], until: LedgerTime, at now: LedgerTime) {
        if watches.count >= Self.most, watches[hash] == nil {
            if now >= nextPurge {
                watches = watches.filter { now < $0.value.until }
                nextPurge = now + 1000
            }
            // A key that is dropped is asked about from the first mark on.
            if watches.count >= Self.most { watches.remove(at: watches.startIndex) }
        }
        watches[hash] = Watch(marks: marks, until: until)
    }

    /// The limit of a key has changed, or its counts.
    mutating func forget(_ account: Account) { watches[account.hash] = nil }
}

extension Ledger {
    /// What all hosts together have used of a key, as far as this host must know.
    package enum SharedUse: Sendable, Equatable {
        /// Less than `warn_at` percent of each window. This host asks again when it has used so much of one, by the
        /// length of the window in milliseconds.
        case marks([Int64: UInt64])
        /// One host has warned. Nobody asks again within the longest window.
        case warned
    }

    /// Takes note of what all hosts have used of a key.
    ///
    /// - Returns: whether this host has used enough meanwhile that it must ask again.
    package func note(_ use: SharedUse, ofKey key: [UInt8], in limit: LimitState) -> Bool {
        owner.check()
        guard let shared, limit.terms.isShared, let longest = limit.limit.rates.map(\.window.milliseconds).max() else {
            return false
        }
        let hash = hash(of: key, of: limit)
        let first = { shared.warnings.first($0, of: limit.limit) }
        let marks = limit.limit.rates.map { rate -> UInt64 in
            guard case .marks(let marks) = use else { return .max }
            // The host that has asked does not know this window.
            return marks[rate.window.milliseconds] ?? first(rate.count)
        }
        shared.warnings.set(hash, marks, until: now + longest, at: now)
        guard case .marks = use, let account = existingAccount(hash, of: limit) else { return false }
        let isDue = marks.indices.contains { account.used(lane: $0) >= marks[$0] }
        if isDue { shared.warnings.noteQuestion(account, at: now) }
        return isDue
    }
}
