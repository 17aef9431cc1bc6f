// SPDX-License-Identifier: Apache-2.0

/// The rules that keep what hosts promise: a limit stays within N over all of them, and they agree on changes. A host
/// follows all of them. The simulator takes out one at a time, and must then find a run that breaks a promise: so each
/// rule is needed, and the simulator can fail.
package struct SharingRules: OptionSet, Sendable {
    package let rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// A new epoch grants nothing before every host has registered, or all that an absent host could hide has passed.
    package static let waitForAll = SharingRules(rawValue: 1 << 0)
    /// On a server with another run id than the epoch's, a new epoch begins.
    package static let newEpoch = SharingRules(rawValue: 1 << 1)
    /// A host never uses an epoch older than one it has been in.
    package static let noWayBack = SharingRules(rawValue: 1 << 2)
    /// A grant counts as used, in the last slot in which it may be spent, until its host has reported.
    package static let countGrants = SharingRules(rawValue: 1 << 3)
    /// A host counts the time of a grant from when it asked, and stops earlier by what clocks may drift.
    package static let stopEarly = SharingRules(rawValue: 1 << 4)
    /// A host's report of a lane names what its open grants have left, beside what it has used.
    package static let registerGrants = SharingRules(rawValue: 1 << 5)
    /// The engine ignores a call of a connection that its host has given up.
    package static let numberCalls = SharingRules(rawValue: 1 << 6)
    /// A longer time than a cap between two calls does not count: the engine's clock may have been set.
    package static let cappedTime = SharingRules(rawValue: 1 << 7)
    /// While terms change, each host uses the smallest share and the smallest pool of all terms that may hold anywhere.
    package static let smallerTerms = SharingRules(rawValue: 1 << 8)
    /// New terms hold once every host has confirmed them and what was used under older ones has expired.
    package static let waitForTerms = SharingRules(rawValue: 1 << 9)
    /// Hosts that return to terms obey the others until that has been confirmed, too.
    package static let confirmReturn = SharingRules(rawValue: 1 << 20)
    /// The engine grants only to a host that the terms settled last name, or all of their hosts. So each of these waits
    /// for it in a new epoch.
    package static let beKnown = SharingRules(rawValue: 1 << 21)
    /// A change is in the host's ledger before an answer or a call leaves.
    package static let keepFirst = SharingRules(rawValue: 1 << 10)
    /// After a reboot, whose length no clock knows, no grant is open.
    package static let endAtReboot = SharingRules(rawValue: 1 << 11)

    /// An epoch has an identifier beside its number. Two servers, or one that was flushed, can begin two of
    /// one number.
    package static let identifyEpochs = SharingRules(rawValue: 1 << 12)

    /// A change replaces older ones only (`SharedChange.Version`).
    package static let newestWins = SharingRules(rawValue: 1 << 13)
    /// In a new epoch, each host tells all changes that it knows.
    package static let tellAgain = SharingRules(rawValue: 1 << 14)
    /// A change that has ended is kept until all hosts have seen it.
    package static let keepEnded = SharingRules(rawValue: 1 << 15)
    /// What a host has used and asks for goes to the engine after its changes, and the engine grants nothing to a host
    /// that has not seen all changes. Otherwise units would be granted again that a reset has freed on some hosts only.
    package static let changesFirst = SharingRules(rawValue: 1 << 16)
    /// A grant of a larger pool than the present one is not used: a raise has ended since.
    package static let ownPool = SharingRules(rawValue: 1 << 17)
    /// A raise enlarges the pool only. Shares are rounded down, so with shares of a raised N, the pool could be larger
    /// under a smaller N: the shares of one N and the pool of another would then be more than either.
    package static let fixedShares = SharingRules(rawValue: 1 << 18)

    /// The engine hears of refused requests that count: who keeps trying stays refused on all hosts.
    package static let tellRefused = SharingRules(rawValue: 1 << 19)

    package static let all = SharingRules(rawValue: 1 << 22 - 1)

    /// By the names that the design and the simulator's command use.
    package static let names: [(name: String, rule: SharingRules)] = [
        ("wait-for-all", .waitForAll), ("new-epoch", .newEpoch), ("no-way-back", .noWayBack),
        ("count-grants", .countGrants), ("stop-early", .stopEarly), ("register-grants", .registerGrants),
        ("number-calls", .numberCalls), ("capped-time", .cappedTime), ("smaller-terms", .smallerTerms),
        ("wait-for-terms", .waitForTerms), ("confirm-return", .confirmReturn), ("be-known", .beKnown),
        ("keep-first", .keepFirst), ("end-at-reboot", .endAtReboot), ("identify-epochs", .identifyEpochs),
        ("newest-wins", .newestWins), ("tell-again", .tellAgain), ("keep-ended", .keepEnded),
        ("changes-first", .changesFirst), ("own-pool", .ownPool), ("fixed-shares", .fixedShares),
        ("tell-refused", .tellRefused),
    ]
}
