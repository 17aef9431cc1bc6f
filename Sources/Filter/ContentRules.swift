// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Limits
package import Rules

/// The loaded tables of all sets of checks. A reload creates new ones, which continue the counters; messages that have
/// begun keep the old ones.
package final class ContentRules: Sendable {
    package let checks: ContentChecks
    /// In the order in which they are asked. There is at least one.
    package let sets: [RuleSet]
    /// The warnings of all tables, class by class.
    package let warnings: [TableFault]
    /// Whether rules may take away headers that cleanup(8) adds where they are missing.
    package let mayRemoveAddedHeaders: Bool
    /// Whether one of them may be From.
    package let mayRemoveFrom: Bool
    /// Whether a rule may replace the recipients.
    package let redirects: Bool
    /// Whether some set is only for some messages.
    package let areConditional: Bool

    /// All tables that can't be used.
    package struct Faults: Error, Sendable {
        package let faults: [TableFault]
        /// The warnings of the other tables.
        package let warnings: [TableFault]
    }

    /// Reads and compiles the tables. Rules match from then on, and faster after `prepareFastPass`.
    package init(_ checks: ContentChecks) throws(Faults) {
        var loader = TableLoader()
        self.checks = checks
        sets = checks.allSets.enumerated().map { RuleSet($1, at: $0, &loader) }
        warnings = loader.warnings
        let lists = sets.flatMap { [$0.header, $0.decodedHeader] }
        mayRemoveAddedHeaders = lists.contains { $0.mayRemove(AddableHeaders.names) }
        mayRemoveFrom = lists.contains { $0.mayRemove(AddableHeaders.namesOfFrom) }
        redirects = sets.flatMap(\.lists).contains { $0.list.mayRedirect }
        areConditional = sets.contains { !$0.definition.conditions.isEmpty }
        guard loader.faults.isEmpty else {
            throw Faults(faults: loader.faults, warnings: loader.warnings)
        }
    }

    /// `next`, with the counters of the rules that `old` has too, and the fast pass of each class whose rules are the
    /// same. A set continues the one of the same name.
    package init(_ next: ContentRules, continuing old: ContentRules) {
        checks = next.checks
        warnings = next.warnings
        mayRemoveAddedHeaders = next.mayRemoveAddedHeaders
        mayRemoveFrom = next.mayRemoveFrom
        redirects = next.redirects
        areConditional = next.areConditional
        sets = next.sets.map { set in RuleSet(set, continuing: old.sets.first { $0.name == set.name }) }
        if !checks.fastPass { for (list, _) in lists { list.fastPass = nil } }
    }

    /// The name of a set as people see it; nil where there is only one.
    package func label(of set: RuleSet) -> String? { sets.count > 1 ? set.name : nil }

    /// Every list once.
    package var lists: [(list: RuleList, isBody: Bool)] { sets.flatMap(\.lists) }

    /// Whether some rule is about the body.
    package var readsBody: Bool { sets.contains { !$0.body.isEmpty } }

    /// The attributes that conditions use.
    package var conditionNames: Set<String> {
        Set(sets.flatMap { $0.definition.conditions.map(\.part.name) })
    }

    /// Whether some rule is about decoded parts.
    package var readsDecodedParts: Bool { sets.contains(where: \.readsDecodedParts) }

    /// Compiles the fast pass of each list without one, or loads it from the cache. This may take a minute for ten
    /// thousand rules; other threads can match meanwhile.
    ///
    /// - Parameter cache: nil to cache nothing.
    package func prepareFastPass(cache: FastPassCache? = nil) {
        guard checks.fastPass else { return }
        var passes: [PassName: FastPass] = [:]
        for (list, isBody) in lists where !list.isEmpty {
            // Sets with the same tables share a pass.
            let name = PassName(tables: list.tables.map(\.name), isBody: isBody, isForText: list.isForText)
            let pass = list.fastPass ?? passes[name] ?? FastPass.build(for: list, body: isBody, cache: cache)
            passes[name] = pass
            if list.fastPass == nil { list.fastPass = pass }
        }
        cache?.prune(keeping: lists.compactMap(\.list.fastPass))
    }

    /// What a fast pass is compiled from.
    private struct PassName: Hashable {
        let tables: [String]
        let isBody: Bool
        let isForText: Bool
    }

    /// Runs `prepareFastPass` and then `whenReady` on a new thread of low priority. If no thread can be created, the
    /// rules stay without a fast pass.
    package func prepareFastPassInBackground(
        cache: FastPassCache? = nil, whenReady: @escaping @Sendable () -> Void = {}
    ) {
        let work = Unmanaged.passRetained(
            BackgroundWork { [self] in
                prepareFastPass(cache: cache)
                whenReady()
            })
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { work in
                setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
                Unmanaged<BackgroundWork>.fromOpaque(work!).takeRetainedValue().run()
                return nil
            }, work.toOpaque())
        guard code == 0 else {
            work.release()
            return whenReady()
        }
        pthread_detach(thread)
    }

    /// A closure for a thread to run.
    private final class BackgroundWork: Sendable {
        let run: @Sendable () -> Void

        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// The lint warnings of all classes, those of each table once.
    package func lint() -> [TableFault] {
        var seen: Set<TableFault> = []
        let found = lists.flatMap { $0.list.lint(isBody: $0.isBody) } + lintRequireTLS()
        return found.filter { seen.insert($0).inserted }
    }

    /// Warns of the first rule that takes away or changes the header by which Postfix 3.11 remembers REQUIRETLS
    /// (RFC 8689) for mail that passes a filter.
    private func lintRequireTLS() -> [TableFault] {
        let matcher = Matcher(checks)
        return sets.flatMap { [$0.header, $0.decodedHeader] }.compactMap { list in
            let key = Array("Require-TLS-ESMTP: yes".utf8)
            guard let match = key.withUnsafeBytes({ matcher.firstMatch(key: $0, in: list, pass: nil) }),
                let action = try? Action(match.text, isHeader: true), action.changesLine
            else { return nil }
            return list.warning(
                of: match.rule,
                "this takes away Require-TLS-ESMTP: such mail may leave Postfix without TLS, which its sender forbids")
        }
    }

    /// Whether some rule has an action that the Postfix behind the filter must carry out (`Effect.cleanupAction`,
    /// `Edit.needsCleanup`).
    package var mayNeedCleanup: Bool {
        lists.contains { !$0.list.rules(where: { $0 == .hold || $0 == .filter }).isEmpty }
            || sets.contains { set in
                [set.header, set.decodedHeader, set.decodedBody, set.attachment].contains {
                    $0.mayWriteHeaderForCleanup
                }
            }
    }

    /// Whether the checks may change what is in a signed message.
    package var mayEdit: Bool {
        checks.undisclosedRecipients != .keep || checks.repairsSigned && !checks.headerRepairs.isEmpty
            || lists.contains { $0.list.mayEdit }
    }

    /// Where rules are about the Received: header, as `pcre:/etc/postfix/header_checks:12`.
    package var locationsOfReceived: [String] {
        sets.flatMap { [$0.header, $0.decodedHeader] }.flatMap { list in
            list.rulesOnReceived.map { list.location(of: $0.rule).description }
        }
    }

    /// Whether the fast pass is ready within a second, so that it is worth waiting for.
    package var areFew: Bool { lists.reduce(0) { $0 + $1.list.count } <= 1_000 }
}
