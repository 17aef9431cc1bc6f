// SPDX-License-Identifier: Apache-2.0
package import Sharing

/// The limits that this host shares with others: finds the lanes of accounts, and N in each.
///
/// The host's own use is in the windows of the accounts, as without sharing. The `SharedLedger` knows the pools.
/// Belongs to the ledger's thread.
package final class SharedCounts {
    package struct Settings: Equatable, Sendable {
        package var name: String
        package var hosts: [String]
        /// The part of N that is divided among the hosts, in thousandths.
        package var share: Int64
        /// How long a request waits for the engine, in milliseconds.
        package var timeout: Int64
        /// Whether each host admits N by itself while it has no engine.
        package var isOpenOnCutOff: Bool

        package init(name: String, hosts: [String], share: Int64, timeout: Int64, isOpenOnCutOff: Bool) {
            self.name = name
            self.hosts = hosts
            self.share = share
            self.timeout = timeout
            self.isOpenOnCutOff = isOpenOnCutOff
        }
    }

    package var ledger: SharedLedger
    var warnings: SharedWarnings
    private let settings: Settings
    /// The limits of the configuration, and of older ones whose terms may still hold on some host: their texts
    /// (`text(of:)`), and N by name and window.
    private var versions: [UInt64: (text: String, most: [String: Int64])] = [:]
    private var version: UInt64 = 0
    private var lastNumber = 0

    /// - Parameters:
    ///   - kept: of an earlier run; nil for a new ledger.
    ///   - versions: the texts of limits that an earlier run has stored.
    package init(_ settings: Settings, limits: [Limit], kept: KeptState?, versions: [String]) {
        self.settings = settings
        warnings = SharedWarnings(hosts: settings.hosts.count)
        let kept = kept ?? KeptState(mark: .random(in: 1 ... .max))
        ledger = SharedLedger(name: settings.name, kept: kept, timing: Self.timing(limits, settings))
        for text in versions { add(text) }
        configure(limits)
    }

    /// The limits of a start or of a reload.
    package func configure(_ limits: [Limit]) {
        warnings.forgetAll()
        ledger.timing = Self.timing(limits, settings)
        version = add(Self.text(of: limits))
        ledger.configure(Terms(hosts: settings.hosts, share: settings.share, limits: version))
    }

    private static func timing(_ limits: [Limit], _ settings: Settings) -> Timing {
        let windows = limits.filter(\.isShared).flatMap(\.rates).map(\.window.milliseconds)
        // A grant that is not spent is lost for others while it is valid.
        let validity = min(10_000, max(1000, (windows.min() ?? 0) / 20))
        return Timing(longestWindow: windows.max() ?? 1000, validity: validity, timeout: settings.timeout)
    }

    // MARK: Versions of the limits

    /// One line per window: limits of the same text have the same N for every key, as far as weir.yaml tells.
    private static func text(of limits: [Limit]) -> String {
        limits.filter(\.isShared).flatMap { limit in
            limit.rates.map { "\(limit.name) \($0.window.milliseconds) \($0.count) \(limit.signature)" }
        }.sorted().joined(separator: "\n")
    }

    @discardableResult
    private func add(_ text: String) -> UInt64 {
        var hash = SipHash(key: Self.hashKey)
        Array(text.utf8).withUnsafeBytes { hash.combine($0) }
        let version = hash.finalize()
        var most: [String: Int64] = [:]
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 3)
            if words.count > 2, let count = Int64(words[2]) { most["\(words[0]) \(words[1])"] = count }
        }
        versions[version] = (text, most)
        return version
    }

    /// What must be stored before an answer or a call leaves; nil if nothing has changed. `versions` replaces those
    /// that are stored; nil leaves them.
    package func takeUnsaved() -> (unsaved: SharedLedger.Unsaved, versions: [String]?)? {
        guard let unsaved = ledger.takeUnsaved() else { return nil }
        guard unsaved.state != nil else { return (unsaved, nil) }
        let active = Set(ledger.kept.active.map(\.limits) + [version])
        versions = versions.filter { active.contains($0.key) }
        return (unsaved, versions.values.map(\.text))
    }

    // MARK: Lanes

    /// All hosts hash alike.
    private static let hashKey = SipHash.Key(low: 0x7765_6972_2073_6861, high: 0x7265_6420_6c61_6e65)

    /// The beginning of the hash of a limit's lanes. The key follows.
    static func laneHash(ofLimit name: String) -> SipHash {
        var hash = SipHash(key: hashKey)
        Array(name.utf8).withUnsafeBytes { hash.combine($0) }
        return hash
    }

    private func lane(_ account: Account, _ index: Int) -> Lane { lane(account.limit, account.key, index) }

    private func lane(_ limit: LimitState, _ key: [UInt8], _ index: Int) -> Lane {
        var hash = limit.terms.laneHash
        key.withUnsafeBytes { hash.combine($0) }
        return Lane(key: hash.finalize(), window: limit.terms.lanes[index].milliseconds)
    }

    /// Forgets what this host has used of the pools of a key: a reset.
    func forget(_ key: [UInt8], of limit: LimitState) {
        ledger.forget((0..<limit.terms.refusedLane).map { lane(limit, key, $0) })
    }

    // MARK: Changes by administrators

    package var name: String { settings.name }

    /// Tells the other hosts of a change.
    ///
    /// - Parameter wall: the wall clock in milliseconds since 1970.
    func tell(
        _ kind: SharedChange.Kind, of account: Account, _ value: String, until: LedgerTime,
        by author: SharedChange.Author, wall: Int64
    ) {
        ledger.change(subject(kind, account), to: value, until: until.milliseconds, author: author, wall: wall)
    }

    /// Whether other hosts have been told of a change of this kind.
    func hasTold(_ kind: SharedChange.Kind, of account: Account) -> Bool {
        ledger.kept.changes[subject(kind, account)] != nil
    }

    private func subject(_ kind: SharedChange.Kind, _ account: Account) -> SharedChange.Subject {
        SharedChange.Subject(kind, limit: account.limit.limit.name, key: account.key)
    }

    func demand(_ account: Account, lane index: Int, units: UInt64, at now: LedgerTime) -> SharedRequest.Demand {
        let slot = account.limit.terms.slots[index]
        _ = account.used(lane: index)
        var own: [SlotCounts.Slot] = []
        account.windows.forEachSlot(lane: index, slot: slot) {
            own.append(SlotCounts.Slot(number: $0, units: Int64($1)))
        }
        let name = "\(account.limit.limit.name) \(account.limit.terms.lanes[index].milliseconds)"
        let isUsual = account.exception == nil
        // A version that lacks this window does not limit it.
        func most(_ own: UInt64) -> [(limits: UInt64, units: Int64)] {
            versions.map { version, limits in
                let isOther = version != self.version && isUsual
                return (limits: version, units: isOther ? limits.most[name] ?? Int64(own) : Int64(own))
            }
        }
        return SharedRequest.Demand(
            lane: lane(account, index), units: Int64(units), most: most(account.admitted(lane: index, at: now)),
            usual: isUsual ? nil : most(account.usual(lane: index)), own: own)
    }

    // MARK: Deciding

    /// Whether the host's share, or what the engine has granted, certainly holds `units` more, and nothing waits for
    /// units of the same lane. Most requests ask only this.
    func holds(_ units: UInt64, in account: Account, lane index: Int, at now: LedgerTime) -> Bool {
        if ledger.hasWaiting, ledger.isAwaited(lane(account, index)) { return false }
        let most = most(account, index, at: now)
        return shareHolds(units, in: account, lane: index, most)
            || ledger.grantsHold(Int64(clamping: units), of: lane(account, index), most, at: now.milliseconds)
    }

    private func shareHolds(_ units: UInt64, in account: Account, lane: Int, _ most: SharedLedger.Most) -> Bool {
        ledger.share(of: most).map { account.used(lane: lane) &+ units <= $0 } ?? false
    }

    private func most(_ account: Account, _ index: Int, at now: LedgerTime) -> SharedLedger.Most {
        let admitted = account.admitted(lane: index, at: now)
        let divided = account.exception == nil ? admitted : min(admitted, account.usual(lane: index))
        return SharedLedger.Most(limits: version, units: Int64(admitted), divided: Int64(divided))
    }

    /// Asks the engine for what the demands lack.
    ///
    /// - Returns: the number of the waiting request; nil if nothing is lacking, or nothing can be asked for.
    func ask(_ demands: [SharedRequest.Demand], at now: LedgerTime) -> Int? {
        lastNumber += 1
        let request = SharedRequest(number: lastNumber, demands: demands)
        guard case .waits = ledger.decide(request, at: now.milliseconds) else { return nil }
        return lastNumber
    }

    /// Whether a charge fits into the share and the grants. The caller knows that it fits under N.
    func hasRoom(_ account: Account, lane: Int, units: UInt64, at now: LedgerTime) -> Bool {
        let most = most(account, lane, at: now)
        if shareHolds(units, in: account, lane: lane, most) { return true }
        let key = self.lane(account, lane)
        if ledger.grantsHold(Int64(clamping: units), of: key, most, at: now.milliseconds) { return true }
        if settings.isOpenOnCutOff, !ledger.canAsk { return true }
        let demand = demand(account, lane: lane, units: units, at: now)
        let request = SharedRequest(number: 0, demands: [demand])
        guard case .admitted = ledger.decide(request, isLast: true, at: now.milliseconds) else { return false }
        return true
    }

    /// Whether `units` are more than the host can ever get at once.
    func isTooLarge(_ account: Account, lane: Int, units: UInt64, at now: LedgerTime) -> Bool {
        guard ledger.share(of: most(account, lane, at: now)) != nil else { return false }
        let demand = demand(account, lane: lane, units: units, at: now)
        return Int64(units) > ledger.share(demand) + ledger.pool(demand)
    }

    /// Charges to grants what the share does not hold. To be called before the account's windows are charged.
    func charge(_ units: UInt64, to account: Account, lane index: Int, at now: LedgerTime) {
        let most = most(account, index, at: now)
        if shareHolds(units, in: account, lane: index, most) { return }
        let lane = lane(account, index)
        if ledger.spendGrants(Int64(clamping: units), of: lane, most, at: now.milliseconds) { return }
        ledger.charge(demand(account, lane: index, units: units, at: now), at: now.milliseconds)
    }

    /// Counts a refused request in all pools of a key.
    func chargeRefused(_ units: UInt64, to account: Account, at now: LedgerTime) {
        for index in 0..<account.limit.terms.refusedLane {
            ledger.chargeRefused(Int64(clamping: units), to: lane(account, index), at: now.milliseconds)
        }
    }

    func giveBack(_ units: UInt64, to account: Account, chargedAt time: LedgerTime) {
        guard ledger.usesPools else { return }
        let limit = account.limit
        for index in 0..<limit.terms.refusedLane where time > limit.terms.added[index] {
            let lane = lane(account, index)
            ledger.giveBack(Int64(units), to: lane, slot: lane.slot(at: time.milliseconds))
        }
    }
}
