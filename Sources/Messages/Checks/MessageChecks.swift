// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Limits
internal import Loop
internal import NIOPosix
internal import Patterns
internal import Report
internal import Rules

/// The filters and the matcher that the connections of one loop share. Belongs to that loop.
final class MessageChecks {
    /// The rules in force; called for each message.
    let rules: @Sendable () -> ContentRules
    let counters: MessageCounters
    let probes: ProbeBoard
    private let loop: SocketLoop
    private let bounds: ContentBounds
    private let threads: NIOThreadPool
    private let lookupThreads: NIOThreadPool
    private let log: EventLog
    /// For the conditions of sets of checks.
    let conditionScratch = MatchScratch(limits: Condition.matchLimits)
    private var inUse: (bounds: ContentChecks.MatcherBounds, matcher: Matcher)?
    /// Idle filters for the newest rules. Those of older rules are dropped when the next message begins.
    private var idleFilters: [MessageFilter] = []
    private var idleFiltersRules: ContentRules?

    private static let mostIdleFilters = 64

    init(
        loop: SocketLoop, bounds: ContentBounds, threads: NIOThreadPool, lookupThreads: NIOThreadPool,
        counters: MessageCounters, probes: ProbeBoard, rules: @escaping @Sendable () -> ContentRules, log: EventLog
    ) {
        self.counters = counters
        self.probes = probes
        self.loop = loop
        self.bounds = bounds
        self.threads = threads
        self.lookupThreads = lookupThreads
        self.rules = rules
        self.log = log
    }

    /// Whether there is room for a new message.
    var hasRoom: Bool { bounds.hasRoom }

    func makeContent() -> ReceivedContent {
        ReceivedContent(bounds: bounds, threads: threads, loop: loop)
    }

    /// A filter for a message that begins.
    func acquireFilter(_ rules: ContentRules) -> MessageFilter {
        if rules !== idleFiltersRules { (idleFilters, idleFiltersRules) = ([], rules) }
        guard let filter = idleFilters.popLast() else {
            return MessageFilter(rules, matcher: matcher(rules.checks), memory: bounds)
        }
        filter.begin(rules)
        return filter
    }

    /// Returns the filter of a message that is done or dropped.
    func release(_ filter: MessageFilter) {
        guard !filter.isAway else { return filter.abandon() }
        guard filter.rules === idleFiltersRules, idleFilters.count < Self.mostIdleFilters else { return }
        filter.releaseMemory()
        idleFilters.append(filter)
    }

    /// Does the suspended lookups of a filter on another thread. Until `then`, which is called on the loop, the filter
    /// is away: nothing else may be done with it but to release it. `then` is not called if the lookup threads have
    /// ended: the service stops, and its connections are closed already.
    func resume(_ filter: MessageFilter, then: @escaping () -> Void) {
        filter.isAway = true
        filter.prepareToResume()
        let callback = LoopCallback<Bool>(loop) { isActive in
            guard isActive else { return }
            filter.isAway = false
            then()
        }
        // Unchecked: see `MessageFilter.resume`. The callback keeps the filter, so that it is released on the loop.
        nonisolated(unsafe) unowned(unsafe) let filter = filter
        lookupThreads.submit { state in
            let isActive = if case .active = state { true } else { false }
            if isActive { filter.resume() }
            // Even if nothing was done: what the callback holds belongs to the loop, and must be released there.
            callback.call(isActive)
        }
    }

    /// Shared by all connections of this loop while the match limits are the same.
    private func matcher(_ checks: ContentChecks) -> Matcher {
        if let inUse, inUse.bounds == checks.matcherBounds { return inUse.matcher }
        let matcher = Matcher(checks, share: LoopShare())
        inUse = (checks.matcherBounds, matcher)
        return matcher
    }

    /// Counts a message, and logs what the rules have done to it.
    ///
    /// - Parameter origin: identifies the message.
    func report(_ verdict: Verdict, _ origin: @autoclosure () -> String) {
        killPoint("message-judged")
        counters.count(verdict)
        guard !verdict.matches.isEmpty || !verdict.notes.isEmpty else { return }
        log.report(verdict, of: origin())
    }
}
