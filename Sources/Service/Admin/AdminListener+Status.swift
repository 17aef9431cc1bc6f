// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Exchange
internal import Hummingbird
internal import Limits
internal import Loop
internal import Messages
internal import NIOCore
internal import NIOPosix
internal import Policy
internal import Report

/// What the service is doing: health checks, metrics, and the figures of the page and `weir top`.
extension AdminListener {
    private static let notResponding = "the ledger's event loop is not responding\n"

    func addHealthRoutes(to router: Router<AdminContext>) {
        router.get("healthz") { [self] _, _ in
            await isAlive()
                ? AdminResponse.text("alive\n")
                : AdminResponse.text(Self.notResponding, status: .serviceUnavailable)
        }
        router.get("readyz") { [self] _, _ in
            guard await isAlive() else {
                return AdminResponse.text(Self.notResponding, status: .serviceUnavailable)
            }
            let trouble = try await host.loop.submit { [host] in host.troubleText }
            guard let trouble else { return AdminResponse.text("ready\n") }
            return AdminResponse.text("\(trouble)\n", status: .serviceUnavailable)
        }
    }

    func addStatusRoutes(to router: Router<AdminContext>) {
        router.get("status") { [host, policy] _, _ in
            try AdminResponse.json(try await host.status(of: policy))
        }
        router.get("protections") { [sandbox] _, _ in try AdminResponse.json(sandbox.protections) }
        router.get("snapshot") { [self] request, _ in
            try await cache.response(to: request) { try await self.snapshot().snapshot }
        }
        // Not cached: the page takes old data for a service that hangs.
        router.get("overview") { [self] _, _ in try AdminResponse.json(try await overview()) }
        router.get("rules/unused") { [self] request, _ in
            try await cache.response(to: request) { self.content?.rulesWithoutHits() ?? [] }
        }
        router.get("metrics") { [self] _, _ in
            let (snapshot, latency) = try await snapshot()
            var metrics = Metrics()
            metrics.add(snapshot, latency: latency)
            if let hosts = snapshot.hosts { metrics.add(hosts, snapshot.status) }
            metrics.add(
                "weir_alerts_failed_total", .counter,
                "Alert notices that a channel did not deliver at once; the log has them.", alerts.failedNotices)
            metrics.add(
                "weir_log_lines_dropped_total", .counter, "Log lines dropped because the log was too slow.",
                log.droppedLines)
            metrics.add(lastReload.figures)
            metrics.addProcess()
            return AdminResponse.text(metrics.text, as: "text/plain; version=0.0.4")
        }
    }

    private func snapshot() async throws -> (snapshot: AdminMessages.Snapshot, latency: LatencyHistogram) {
        var (snapshot, latency) = try await host.snapshot(of: policy, version: WeirVersion.current)
        snapshot.reload = lastReload.figures
        snapshot.ways = content?.ways ?? []
        await add(to: &snapshot)
        if let figures = content?.ruleFigures() {
            (snapshot.rules, snapshot.rulesWithoutHits, snapshot.tags) = figures
        }
        return (snapshot, latency)
    }

    /// Adds what other hosts have told of the limits that they share.
    private func add(to snapshot: inout AdminMessages.Snapshot) async {
        guard let told = await allHosts.askForFigures() else { return }
        snapshot.hosts = allHosts.hosts
        told.addParts(to: &snapshot.status.limits)
        snapshot.refusals = (snapshot.refusals + told.refusals.joined().map(\.newest)).sorted { $0.time > $1.time }
        let groups = RefusalGroups.merged([snapshot.refusalGroups ?? []] + told.refusals)
        snapshot.refusalGroups = Array(groups.prefix(AdminOverview.Bounds.refusals))
    }

    /// Whether the event loop that answers Postfix still runs.
    private func isAlive() async -> Bool {
        let promise = MultiThreadedEventLoopGroup.singleton.next().makePromise(of: Bool.self)
        // A promise keeps its first result.
        let timeout = promise.futureResult.eventLoop.scheduleTask(in: Bounds.healthTimeout) { promise.succeed(false) }
        host.loop.execute { promise.succeed(true) }
        defer { timeout.cancel() }
        return (try? await promise.futureResult.get()) ?? false
    }
}
