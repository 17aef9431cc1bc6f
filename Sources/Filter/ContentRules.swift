// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import Rules

/// The tables of all four classes of checks, loaded. Reload makes another of these beside the
/// one in use, and messages that have begun keep theirs.
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
        guard loader.faults.isEmpty else { throw Faults(faults: loader.faults) }
    }

    private struct Loader {
        private var lists: [[String]: RuleList] = [:]
        var warnings: [TableFault] = []
        var faults: [TableFault] = []

        mutating func list(_ names: [String]) -> RuleList {
            if let known = lists[names] { return known }
            var tables: [Table] = []
            for name in names {
                do {
                    let table = try Table(named: name)
                    tables.append(table)
                    warnings += table.warnings
                } catch {
                    faults.append(error)
                }
            }
            let list = RuleList(tables: tables)
            lists[names] = list
            return list
        }

        /// Header lists are scanned in another way than body lists.
        mutating func forget() { lists = [:] }
    }

    /// Every list once, with the checks that use it.
    package var lists: [(list: RuleList, isBody: Bool)] {
        var lists = [(header, false)]
        for list in [mimeHeader, nestedHeader] where !lists.contains(where: { $0.0 === list }) {
            lists.append((list, false))
        }
        return lists + [(body, true)]
    }

    /// Compiles the fast pass of each list, or takes it from the cache, and puts it to use: up to
    /// a minute for ten thousand rules, while messages go on being matched.
    package func prepareFastPass() {
        guard checks.fastPass else { return }
        let cache = checks.cacheDirectory.map(FastPassCache.init)
        for (list, isBody) in lists where !list.isEmpty {
            list.fastPass = FastPass.build(for: list, body: isBody, cache: cache)
        }
    }

    /// `prepareFastPass` on a thread of its own, which yields to all others.
    package func prepareFastPassInBackground() {
        let context = Unmanaged.passRetained(self)
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { context in
                setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
                Unmanaged<ContentRules>.fromOpaque(context!).takeRetainedValue().prepareFastPass()
                return nil
            }, context.toOpaque())
        guard code == 0 else { return context.release() }
        pthread_detach(thread)
    }
}
