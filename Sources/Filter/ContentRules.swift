// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import Rules

/// The loaded tables of all classes of checks. A reload creates new ones, which continue the counters; messages
/// that have begun keep the old ones.
package final class ContentRules: Sendable {
    package let checks: ContentChecks
    package let header: RuleList
    package let mimeHeader: RuleList
    package let nestedHeader: RuleList
    /// For all headers, decoded.
    package let decodedHeader: RuleList
    /// For the decoded text of parts.
    package let decodedBody: RuleList
    /// For the lines about parts.
    package let attachment: RuleList
    package let body: RuleList
    /// The warnings of all tables, class by class.
    package let warnings: [TableFault]
    /// Whether rules may take away headers that cleanup(8) adds where they are missing.
    package let mayRemoveAddedHeaders: Bool
    /// Whether one of them may be From.
    package let mayRemoveFrom: Bool

    /// All tables that can't be used.
    package struct Faults: Error, Sendable {
        package let faults: [TableFault]
        /// The warnings of the other tables.
        package let warnings: [TableFault]
    }

    /// Reads and compiles the tables. Rules match from then on, and faster after `prepareFastPass`.
    package init(_ checks: ContentChecks) throws(Faults) {
        var loader = Loader()
        self.checks = checks
        header = loader.list(checks.header)
        // Classes with the same tables share a list, with its fast pass and counters.
        mimeHeader = checks.mimeHeader.map { loader.list($0) } ?? header
        nestedHeader = checks.nestedHeader.map { loader.list($0) } ?? header
        loader.forgetLists()
        decodedHeader = loader.list(checks.decodedHeader, isForText: true)
        loader.forgetLists()
        decodedBody = loader.list(checks.decodedBody, isForText: true)
        loader.forgetLists()
        attachment = loader.list(checks.attachment, isForText: true)
        loader.refuseEdits(in: decodedBody, of: "decoded_body")
        loader.refuseEdits(in: attachment, of: "attachment")
        loader.forgetLists()
        body = loader.list(checks.body)
        warnings = loader.warnings
        let lists = [header, decodedHeader]
        mayRemoveAddedHeaders = lists.contains { $0.mayRemove(AddableHeaders.names) }
        mayRemoveFrom = lists.contains { $0.mayRemove(AddableHeaders.namesOfFrom) }
        guard loader.faults.isEmpty else {
            throw Faults(faults: loader.faults, warnings: loader.warnings)
        }
    }

    /// `next`, with the counters of the rules that `old` has too, and the fast pass of each class whose rules are the
    /// same.
    package init(_ next: ContentRules, continuing old: ContentRules) {
        checks = next.checks
        warnings = next.warnings
        mayRemoveAddedHeaders = next.mayRemoveAddedHeaders
        mayRemoveFrom = next.mayRemoveFrom
        header = RuleList(tables: next.header.tables, continuing: old.header)
        mimeHeader =
            next.mimeHeader === next.header
            ? header : RuleList(tables: next.mimeHeader.tables, continuing: old.mimeHeader)
        nestedHeader =
            next.nestedHeader === next.header
            ? header
            : next.nestedHeader === next.mimeHeader
                ? mimeHeader : RuleList(tables: next.nestedHeader.tables, continuing: old.nestedHeader)
        decodedHeader = RuleList(tables: next.decodedHeader.tables, continuing: old.decodedHeader)
        decodedBody = RuleList(tables: next.decodedBody.tables, continuing: old.decodedBody)
        attachment = RuleList(tables: next.attachment.tables, continuing: old.attachment)
        body = RuleList(tables: next.body.tables, continuing: old.body)
        if !checks.fastPass { for (list, _) in lists { list.fastPass = nil } }
    }

    private struct Loader {
        private var lists: [[String]: RuleList] = [:]
        /// Tables whose warnings have been added.
        private var reported: Set<String> = []
        var warnings: [TableFault] = []
        var faults: [TableFault] = []

        mutating func list(_ names: [String], isForText: Bool = false) -> RuleList {
            if let list = lists[names] { return list }
            var tables: [Table] = []
            for name in names {
                do {
                    let table = try Table(named: name, isForText: isForText)
                    tables.append(table)
                    let isNew = reported.insert(name).inserted
                    // A pattern may be right for bytes and wrong for text.
                    warnings += isNew ? table.warnings : table.warnings.filter { !warnings.contains($0) }
                } catch {
                    if !faults.contains(error) { faults.append(error) }
                }
            }
            let list = RuleList(tables: tables)
            lists[names] = list
            return list
        }

        /// Decoded parts have no lines of the message that a rule could change.
        mutating func refuseEdits(in list: RuleList, of checks: String) {
            for (rule, name) in list.rules(where: \.changesLine) {
                let fault = list.fault(of: rule, "\(checks) can't carry out \(name.word): it has no line to change")
                if !faults.contains(fault) { faults.append(fault) }
            }
        }

        /// Headers are scanned differently from body lines and from decoded text, so they never share a list.
        mutating func forgetLists() { lists = [:] }
    }

    /// Every list once, with the configuration's name of the first class that uses it.
    package var classes: [(name: String, list: RuleList)] {
        var classes = [("header", header)]
        for (name, list) in [("mime_header", mimeHeader), ("nested_header", nestedHeader)]
        where !classes.contains(where: { $0.1 === list }) {
            classes.append((name, list))
        }
        return classes + [
            ("decoded_header", decodedHeader), ("decoded_body", decodedBody), ("attachment", attachment),
            ("body", body),
        ]
    }

    /// Every list once. Lines of decoded parts are scanned like those of the body.
    package var lists: [(list: RuleList, isBody: Bool)] {
        classes.map { ($0.list, $0.list === body || $0.list === decodedBody || $0.list === attachment) }
    }

    /// Whether some rule is about decoded parts.
    package var readsDecodedParts: Bool { !decodedBody.isEmpty || !attachment.isEmpty }

    /// Compiles the fast pass of each list without one, or loads it from the cache. This may take a minute for ten
    /// thousand rules; other threads can match meanwhile.
    ///
    /// - Parameter cache: nil to cache nothing.
    package func prepareFastPass(cache: FastPassCache? = nil) {
        guard checks.fastPass else { return }
        for (list, isBody) in lists where !list.isEmpty && list.fastPass == nil {
            list.fastPass = FastPass.build(for: list, body: isBody, cache: cache)
        }
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
        return [header, decodedHeader].compactMap { list in
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
            || [header, decodedHeader, decodedBody, attachment].contains { $0.mayWriteHeaderForCleanup }
    }

    /// Whether the checks may change what is in a signed message.
    package var mayEdit: Bool {
        checks.undisclosedRecipients != .keep || checks.repairsSigned && !checks.headerRepairs.isEmpty
            || lists.contains { $0.list.mayEdit }
    }

    /// Where rules are about the Received: header, as `pcre:/etc/postfix/header_checks:12`.
    package var locationsOfReceived: [String] {
        [header, decodedHeader].flatMap { list in
            list.rulesOnReceived.map { list.location(of: $0).description }
        }
    }

    /// Whether the fast pass is ready within a second, so that it is worth waiting for.
    package var areFew: Bool { lists.reduce(0) { $0 + $1.list.count } <= 1_000 }
}
