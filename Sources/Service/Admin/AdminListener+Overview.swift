// SPDX-License-Identifier: Apache-2.0
internal import Exchange
internal import Glibc
internal import Limits
internal import Loop
internal import Messages
internal import Policy
internal import Report
internal import Settings
internal import Wire

/// The data of the page.
extension AdminListener {
    func overview() async throws -> AdminOverview {
        var overview = try await host.loop.submit { [self] in presentOverview() }
        let latest = await pageKeys.latest(with: overview.standings.map { KeyName($0) })
        let over = overview.standings.map { latest.named[KeyName($0)] ?? $0 }
        let names = Set(over.map { KeyName($0) })
        overview.standings = over + latest.fullest.filter { !names.contains(KeyName($0)) }
        overview.hosts = allHosts.hosts
        if let told = latest.told {
            told.addParts(to: &overview.limits)
            let groups = RefusalGroups.merged([overview.refusals] + told.refusals)
            overview.refusals = Array(groups.prefix(AdminOverview.Bounds.refusals))
        }
        overview.ways = Array((content?.ways ?? []).prefix(AdminOverview.Bounds.listeners))
        if let figures = content?.ruleFigures() {
            overview.rules = Array(figures.rules.prefix(AdminOverview.Bounds.rules))
            overview.rulesWithoutHits = figures.withoutHits
            overview.tags = figures.tags
        }
        return overview
    }

    func page(ofKey text: String) async throws -> AdminKeyPage {
        let limits = try await allHosts.standings(ofText: text, most: AdminListener.Bounds.limitsOfKey)
        let keys = Set(limits.map(\.key)).union([text])
        let (refusals, audit) = try await host.loop.submit { [host] in
            let refusals = host.withActivity { activity, _ in
                activity.refusalGroups.newestFirst(at: secondsSince1970())
            }
            return (refusals, host.audit.newestFirst)
        }
        return AdminKeyPage(
            limits: limits,
            refusals: Array(refusals.filter { keys.contains($0.newest.key) }.prefix(AdminOverview.Bounds.refusals)),
            audit: audit.filter { keys.contains($0.key) })
    }

    private func presentOverview() -> AdminOverview {
        let configuration = host.configuration
        let limits = (try? host.withLedger(\.limits)) ?? []
        return host.withActivity { activity, second in
            let time = secondsSince1970()
            let lastMinute = activity.latencyOfLastMinute(at: second)
            let refusals = Array(activity.refusalGroups.newestFirst(at: time).prefix(AdminOverview.Bounds.refusals))
            let refused = refusals.sorted { $0.lastMinute > $1.lastMinute }.prefix(AdminOverview.Bounds.keys)
            return AdminOverview(
                host: hostName(), version: WeirVersion.current, time: time,
                uptime: Double(microseconds(of: CLOCK_BOOTTIME) - started) / 1e6,
                trouble: host.troubleText, engineTrouble: host.engineTrouble, reload: lastReload.figures,
                listeners: .init(configuration.listen),
                requests: host.requests, connections: policy.openConnections,
                faults: policy.faults, answers: activity.answers(at: second),
                p50: lastMinute.bound(ofShare: 0.5), p99: lastMinute.bound(ofShare: 0.99),
                ledger: host.presentLedger(), keys: limits.reduce(0) { $0 + $1.accountCount },
                limits: Self.mostRefusing(limits).map { LimitFigures($0) }, limitCount: limits.count,
                refusals: refusals, standings: (try? host.standings(of: Array(refused))) ?? [], ways: [], rules: [],
                rulesWithoutHits: 0, tags: [], audit: host.audit.newestFirst)
        }
    }

    /// At most `AdminOverview.Bounds.limits`, in the order of the configuration among those that have refused as much.
    private static func mostRefusing(_ limits: [LimitState]) -> [LimitState] {
        var chosen: [LimitState] = []
        for limit in limits {
            if chosen.count == AdminOverview.Bounds.limits {
                guard limit.refusals > chosen[chosen.count - 1].refusals else { continue }
                chosen.removeLast()
            }
            let place = chosen.lastIndex { $0.refusals >= limit.refusals }.map { $0 + 1 } ?? 0
            chosen.insert(limit, at: place)
        }
        return chosen
    }
}

extension AdminOverview.Listeners {
    fileprivate init(_ listen: Configuration.Listen) {
        let most = AdminOverview.Bounds.listeners
        policy = listen.policy.prefix(most).map(\.description)
        milter = listen.milter.prefix(most).map(\.description)
        filter = listen.filter.prefix(most).map { "\($0.listen)" }
    }
}
