// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import Rules

/// The tables of all four classes of checks, loaded. Reload makes another of these beside the
/// one in use, and messages that have begun keep theirs; what was counted goes over.
package final class ContentRules: Sendable {
    package let checks: ContentChecks
    package let header: RuleList
    package let mimeHeader: RuleList
    package let nestedHeader: RuleList
    package let body: RuleList
    /// What was skipped or doubtful, class by class.
    package let warnings: [TableFault]

    /// Tables that can't be used at all, all of them.
    package struct Faults: Error, Sendable {
        package let faults: [TableFault]
        /// What is wrong with the other tables.
        package let warnings: [TableFault]
    }

    /// Reads and compiles the tables; rules can be matched from then on, and faster once
    /// `prepareFastPass` is through.
    package init(_ checks: ContentChecks) throws(Faults) {
        var loader = Loader()
        self.checks = checks
        header = loader.list(checks.header)
        // Classes that use the same tables share them, and their fast pass and counters.
        mimeHeader = checks.mimeHeader.map { loader.list($0) } ?? header
        nestedHeader = checks.nestedHeader.map { loader.list($0) } ?? header
        loader.forget()
        body = loader.list(checks.body)
        warnings = loader.warnings
        guard loader.faults.isEmpty else {
            throw Faults(faults: loader.faults, warnings: loader.warnings)
        }
    }

    /// `next`, which goes on with the counters of the rules that `old` has too, and with its fast
    /// pass where a class has the same rules.
    package init(_ next: ContentRules, continuing old: ContentRules) {
        checks = next.checks
        warnings = next.warnings
        header = RuleList(tables: next.header.tables, continuing: old.header)
        mimeHeader =
            next.mimeHeader === next.header
            ? header : RuleList(tables: next.mimeHeader.tables, continuing: old.mimeHeader)
        nestedHeader =
            next.nestedHeader === next.header
            ? header
            : next.nestedHeader === next.mimeHeader
                ? mimeHeader : RuleList(tables: next.nestedHeader.tables, continuing: old.nestedHeader)
        body = RuleList(tables: next.body.tables, continuing: old.body)
        if !checks.fastPass { for (list, _) in lists { list.fastPass = nil } }
    }

    private struct Loader {
        private var lists: [[String]: RuleList] = [:]
        /// Tables whose warnings are known.
        private var known: Set<String> = []
        var warnings: [TableFault] = []
        var faults: [TableFault] = []

        mutating func list(_ names: [String]) -> RuleList {
            if let known = lists[names] { return known }
            var tables: [Table] = []
            for name in names {
                do {
                    let table = try Table(named: name)
                    tables.append(table)
                    if known.insert(name).inserted { warnings += table.warnings }
                } catch {
                    if !faults.contains(error) { faults.append(error) }
                }
            }
            let list = RuleList(tables: tables)
            lists[names] = list
            return list
        }

        /// Header lists are scanned in another way than body lists.
        mutating func forget() { lists = [:] }
    }

    /// Every list once, by the first class of checks that uses it, as the configuration calls it.
    package var classes: [(name: String, list: RuleList)] {
        var classes = [("header", header)]
        for (name, list) in [("mime_header", mimeHeader), ("nested_header", nestedHeader)]
        where !classes.contains(where: { $0.1 === list }) {
            classes.append((name, list))
        }
        return classes + [("body", body)]
    }

    /// Every list once, with the checks that use it.
    package var lists: [(list: RuleList, isBody: Bool)] { classes.map { ($0.list, $0.list === body) } }

    /// Compiles the fast pass of each list that has none, or takes it from the cache, and puts it
    /// to use: up to a minute for ten thousand rules, while messages go on being matched.
    ///
    /// - Parameter cache: nil where nothing is to be kept.
    package func prepareFastPass(cache: FastPassCache? = nil) {
        guard checks.fastPass else { return }
        for (list, isBody) in lists where !list.isEmpty && list.fastPass == nil {
            list.fastPass = FastPass.build(for: list, body: isBody, cache: cache)
        }
    }

    /// `prepareFastPass` on a thread of its own, which yields to all others; then `whenReady`
    /// there. Where no thread can be had the rules stay without a fast pass.
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

    /// A closure that a thread can be started with.
    private final class BackgroundWork: Sendable {
        let run: @Sendable () -> Void

        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// Doubts about the rules of all classes, those of a table once.
    package func lint() -> [TableFault] {
        var seen: Set<TableFault> = []
        return lists.flatMap { $0.list.lint(isBody: $0.isBody) }.filter { seen.insert($0).inserted }
    }

    /// Few enough rules that their fast pass is ready in less than a second: worth waiting for.
    package var areFew: Bool { lists.reduce(0) { $0 + $1.list.count } <= 1_000 }
}
