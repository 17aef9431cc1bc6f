// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import NIOPosix
internal import Report
internal import Rules

/// What the connections of one loop check messages with. Belongs to that loop.
final class MessageChecks {
    /// Those that hold now; asked at each message.
    let rules: @Sendable () -> ContentRules
    let counters: MessageCounters
    let probes: ProbeBoard
    private let home: ReceivedContent.Home
    private let bounds: ContentBounds
    private let threads: NIOThreadPool
    private let log: EventLog
    private var inUse: (checks: ContentChecks, matcher: Matcher)?
    /// Filters that no message has now, of the rules that were asked for last. Those of before a reload go when the next
    /// message begins.
    private var idleFilters: [MessageFilter] = []
    private var idleFiltersRules: ContentRules?

    private static let mostIdleFilters = 64

    init(
        home: @escaping ReceivedContent.Home, bounds: ContentBounds, threads: NIOThreadPool, counters: MessageCounters,
        probes: ProbeBoard, rules: @escaping @Sendable () -> ContentRules, log: EventLog
    ) {
        self.counters = counters
        self.probes = probes
        self.home = home
        self.bounds = bounds
        self.threads = threads
        self.rules = rules
        self.log = log
    }

    /// Whether a new message has any chance.
    var hasRoom: Bool { bounds.hasRoom }

    func makeContent() -> ReceivedContent {
        ReceivedContent(bounds: bounds, threads: threads, home: home)
    }

    /// A filter for one message, which begins.
    func takeFilter(_ rules: ContentRules) -> MessageFilter {
        if rules !== idleFiltersRules { (idleFilters, idleFiltersRules) = ([], rules) }
        guard let filter = idleFilters.popLast() else { return MessageFilter(rules, matcher: matcher(rules.checks)) }
        filter.begin(rules)
        return filter
    }

    /// Its message is over.
    func giveBack(_ filter: MessageFilter) {
        if filter.rules === idleFiltersRules, idleFilters.count < Self.mostIdleFilters { idleFilters.append(filter) }
    }

    /// One for all connections of this loop, while the limits of a match are the same.
    private func matcher(_ checks: ContentChecks) -> Matcher {
        if let inUse, inUse.checks == checks { return inUse.matcher }
        let matcher = Matcher(checks)
        inUse = (checks, matcher)
        return matcher
    }

    /// Counts a message, and logs what the rules have done.
    ///
    /// - Parameter origin: what names the message.
    func report(_ verdict: Verdict, _ origin: @autoclosure () -> String) {
        counters.count(verdict)
        guard !verdict.matches.isEmpty || !verdict.notes.isEmpty else { return }
        log.report(verdict, of: origin())
    }
}
