// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Loop
internal import Policy
internal import Report
internal import Settings

/// What this host tells the others of its ledger: the same as it tells its administrators, as far as hosts share it.
struct LocalKeys: Sendable {
    let host: LedgerHost
    /// How many hosts share the limits.
    let hosts: Int

    /// A host that does not know a limit or a key answers that it has counted nothing.
    ///
    /// - Throws: `LedgerUnavailable`, `TooManyWalks`: this host can't tell what it has counted.
    func answer(_ subject: HostQuestion.Subject, in answer: inout HostAnswer) async throws {
        let shared = try await sharedLimits()
        if case .figures = subject {
            let figures = try await figures()
            answer.limits = figures.limits.filter { shared.contains($0.key) }
            answer.refusals = figures.refusals.filter { shared.contains($0.newest.limit) }
            return
        }
        do {
            let told = try await standings(subject)
            answer.standings = told.standings.filter { shared.contains($0.limit) }
            (answer.count, answer.isCut) = (told.count, told.isCut)
        } catch AdministrationFault.walkEnded {
            throw AdministrationFault.walkEnded
        } catch is AdministrationFault {
        } catch is SelectionFault {}
    }

    /// The names of the limits that hosts share.
    func sharedLimits() async throws -> Set<String> {
        Set(try await limits().keys)
    }

    /// The limits that hosts share, by name.
    func limits() async throws -> [String: Limit] {
        try await host.loop.submit { [host] in
            Dictionary(
                host.configuration.limits.filter(\.isShared).map { ($0.name, $0) }, uniquingKeysWith: { one, _ in one })
        }
    }

    private func standings(
        _ subject: HostQuestion.Subject
    ) async throws -> (standings: [KeyStanding], count: Int, isCut: Bool) {
        switch subject {
        case .fullest(let most, let limit):
            let standings = try await host.fullest(min(most, Ledger.mostFullest), limit: limit)
            return (standings, standings.count, false)
        case .selection(let state, let limit, let match, let most):
            let selection = try KeySelection(state: state, limit: limit, match: match)
            let listing = try await host.keys(selection, most: min(most, Ledger.mostFullest))
            return (listing.keys, listing.count, listing.count > listing.keys.count)
        case .names(let names, let withHistory):
            let standings = try await host.standings(
                of: names, withHistory: withHistory && names.count <= AllHosts.mostHistories)
            return (standings, standings.count, false)
        case .key(let text, let limit):
            let standings = try await host.standings(ofKey: text, limit: limit)
            return (standings, standings.count, false)
        case .search(let text):
            let result = try await host.search(text)
            let standings = (result?.found ?? []).compactMap(\.standing)
            return (standings, standings.count, result?.isCut ?? true)
        case .figures: return ([], 0, false)
        }
    }

    private func figures() async throws -> (limits: [String: LimitPart], refusals: [RefusalGroup]) {
        try await host.loop.submit { [host] in
            let limits = try host.withLedger { $0.limits.prefix(AllHosts.mostLimits) }.map { state in
                (
                    state.limit.name,
                    LimitPart(
                        host: "", keys: state.accountCount, refusals: state.refusals, blocks: state.blocks)
                )
            }
            let refusals = host.withActivity { activity, _ in
                activity.refusalGroups.newestFirst(at: secondsSince1970())
            }
            return (
                Dictionary(limits, uniquingKeysWith: { one, _ in one }),
                Array(refusals.prefix(HostAnswer.mostRefusals))
            )
        }
    }
}
