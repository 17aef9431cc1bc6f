// SPDX-License-Identifier: Apache-2.0
import Filter
import Foundation
import Limits
import Patterns
import Rules
import Testing

/// Sets of checks: which ones a message is checked by, and what becomes of the findings of several.
@Suite struct CheckSetTests {
    /// The tables of a set, as text.
    struct Tables {
        var header = ""
        var decodedHeader = ""
        var body = ""
        var decodedBody = ""
    }

    /// What two sets, `a` and `b`, make of the message.
    struct Case: CustomTestStringConvertible {
        let name: String
        var a = Tables()
        var b = Tables()
        /// The set and line of each rule, with `!` if its action was not carried out.
        let matches: [String]
        var disposition = "accept"
        var effects: [Effect] = []
        /// Lines that the message loses and gets.
        var removed: [String] = []
        var added: [String] = []

        var testDescription: String { name }
    }

    private static let message = """
        Subject: spam =?utf-8?Q?caf=C3=A9?=\r\nX-Other: ham\r\nContent-Type: text/plain\r\n\r\none\r\ntwo\r\n\
        three\r\n
        """

    static let cases: [Case] = [
        Case(
            name: "each set gets its hit, on different lines",
            a: Tables(header: "/^Subject:/ WARN\n", body: "/^three/ WARN\n"),
            b: Tables(header: "/^X-Other:/ WARN\n", body: "/^one/ WARN\n"), matches: ["a:1", "b:1", "b:1", "a:1"]),
        Case(
            name: "a WARN does not hide a REJECT of a later set",
            a: Tables(header: "/^Subject:/ WARN\n"), b: Tables(header: "/spam/ REJECT\n"), matches: ["a:1", "b:1"],
            disposition: "refuse"),
        Case(
            name: "a DUNNO does not hide a REJECT of a later set",
            a: Tables(body: "/two/ DUNNO\n"), b: Tables(body: "/two/ REJECT\n"), matches: ["a:1", "b:1"],
            disposition: "refuse"),
        Case(
            name: "a REJECT ends the checks of all sets",
            a: Tables(header: "/spam/ REJECT\n"), b: Tables(header: "/./ WARN\n", body: "/./ WARN\n"),
            matches: ["a:1"], disposition: "refuse"),
        Case(
            name: "a REJECT in an earlier line of a later set counts",
            a: Tables(body: "/two/ REJECT 5.7.1 two\n"), b: Tables(body: "/one/ DISCARD\n"), matches: ["b:1"],
            disposition: "discard"),
        Case(
            name: "a set sees a header that another has removed",
            a: Tables(header: "/^Subject:/ IGNORE\n"), b: Tables(header: "/spam/ HOLD\n"), matches: ["a:1", "b:1"],
            effects: [.hold([])], removed: ["Subject: spam =?utf-8?Q?caf=C3=A9?="]),
        Case(
            name: "a set sees decoded text after another has removed the header",
            a: Tables(header: "/^Subject:/ IGNORE\n"), b: Tables(decodedHeader: "/café/ HOLD\n"),
            matches: ["a:1", "b:1"], effects: [.hold([])], removed: ["Subject: spam =?utf-8?Q?caf=C3=A9?="]),
        Case(
            name: "the first edit of a header counts",
            a: Tables(header: "/^X-(.*)/ REPLACE X-A-$1\n"), b: Tables(header: "/^X-/ IGNORE\n"),
            matches: ["a:1", "b:1!"], removed: ["X-Other: ham"], added: ["X-A-Other: ham"]),
        Case(
            name: "the first edit of a line counts",
            a: Tables(body: "/two/ IGNORE\n"), b: Tables(body: "/two/ REPLACE 2\n"), matches: ["a:1", "b:1!"],
            removed: ["two"]),
        Case(
            name: "to remove a line twice is no conflict",
            a: Tables(body: "/two/ IGNORE\n"), b: Tables(body: "/two/ STRIP\n"), matches: ["a:1", "b:1"],
            removed: ["two"]),
        Case(
            name: "a line can be inserted above one that is removed",
            a: Tables(header: "/^X-/ IGNORE\n", body: "/two/ IGNORE\n"),
            b: Tables(header: "/^X-/ PREPEND X-B: b\n", body: "/two/ PREPEND above\n"),
            matches: ["a:1", "b:1", "a:1", "b:1"], removed: ["X-Other: ham", "two"], added: ["X-B: b", "above"]),
        Case(
            name: "PASS ends the checks of its set only",
            a: Tables(header: "/^Subject:/ PASS\n/./ REJECT\n", body: "/./ REJECT\n"),
            b: Tables(body: "/^two/ IGNORE\n"), matches: ["a:1", "b:1"], removed: ["two"]),
        Case(
            name: "PASS ends the rules for decoded headers and parts of its set only",
            a: Tables(header: "/^Subject:/ PASS\n", decodedHeader: "/café/ REJECT\n", decodedBody: "/./ REJECT\n"),
            b: Tables(decodedHeader: "/café/ WARN\n", decodedBody: "/three/ HOLD\n"), matches: ["a:1", "b:1", "b:1"],
            effects: [.hold([])]),
        Case(
            name: "REDIRECT does not hide a REJECT of another set",
            a: Tables(header: "/^Subject:/ REDIRECT a@example.org\n"), b: Tables(body: "/two/ REJECT\n"),
            matches: ["a:1", "b:1"], disposition: "refuse", effects: [.redirect(Array("a@example.org".utf8))]),
        Case(
            name: "effects of all sets count, as those of one",
            a: Tables(header: "/^Subject:/ HOLD one\n", body: "/one/ BCC a@example.org\n"),
            b: Tables(header: "/^Subject:/ HOLD two\n", body: "/one/ BCC b@example.org\n/two/ BCC a@example.org\n"),
            matches: ["a:1", "b:1", "a:1", "b:1", "b:2"],
            effects: [
                .hold(Array("one".utf8)), .bcc(Array("a@example.org".utf8)), .bcc(Array("b@example.org".utf8)),
            ]),
        Case(
            name: "the rules for parts are asked one set after the other",
            a: Tables(decodedBody: "/two/ PREPEND X-A: a\n/three/ HOLD\n"),
            b: Tables(decodedBody: "/one/ PREPEND X-B: b\n/two/ PASS\n/three/ REJECT\n"),
            matches: ["a:1", "a:2", "b:1", "b:2"], effects: [.hold([])], added: ["X-A: a", "X-B: b"]),
        Case(
            name: "negated rules and long lists of others",
            a: Tables(body: "!/^t/ WARN\n"), b: Tables(body: "/\\w{3,}/ WARN\n"),
            matches: ["a:1", "b:1", "b:1", "b:1"]),
    ]

    @Test(arguments: cases, [1, 7, 10_000])
    func findingsOfTwoSets(_ one: Case, piece: Int) throws {
        for hasFastPass in [false, true] {
            let rules = try Self.rules([("a", one.a, []), ("b", one.b, [])])
            if hasFastPass { rules.prepareFastPass() }
            for steps in [UInt32?.none, 1, 20] {
                let verdict = Self.judge(rules, piece, steps: steps)
                let disposition = "\(verdict.disposition)".prefix { $0 != "(" }
                #expect(disposition == one.disposition)
                #expect(
                    verdict.matches.map { "\($0.set ?? "-"):\($0.location.line)\($0.fault == nil ? "" : "!")" }
                        == one.matches)
                #expect(verdict.effects == one.effects)
                let bytes = Array(Self.message.utf8)
                let edited = String(decoding: verdict.apply(to: bytes, lineEnd: .crlf), as: UTF8.self)
                #expect(Self.lines(Self.message).subtracting(Self.lines(edited)) == Set(one.removed))
                #expect(Self.lines(edited).subtracting(Self.lines(Self.message)) == Set(one.added))
                #expect(
                    edited.count(where: \.isNewline)
                        == Self.message.count(where: \.isNewline) - one.removed.count + one.added.count)
            }
        }
    }

    private static func lines(_ text: String) -> Set<String> {
        Set(text.split(separator: "\r\n").map(String.init))
    }

    /// - Parameter steps: what a lookup may take before it is suspended.
    private static func judge(
        _ rules: ContentRules, _ piece: Int, steps: UInt32?, _ message: String = Self.message
    ) -> Verdict {
        var share: LoopShare?
        if let steps {
            share = LoopShare()
            share?.steps = steps
        }
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks, share: share))
        let bytes = Array(message.utf8)
        func resume() {
            guard filter.isSuspended else { return }
            filter.prepareToResume()
            filter.resume()
        }
        // The second message uses what the first one has left.
        for _ in 0..<2 {
            filter.begin(rules)
            for start in stride(from: 0, to: bytes.count, by: piece) {
                filter.update(Array(bytes[start..<min(start + piece, bytes.count)]))
                resume()
            }
            filter.endInput()
            resume()
            let verdict = filter.finish()
            if filter.isDecided { return verdict }
        }
        filter.begin(rules)
        filter.update(bytes)
        resume()
        filter.endInput()
        resume()
        return filter.finish()
    }

    /// - Parameter isSigned: for some sets by name: whether the message must have a DKIM-Signature.
    private static func rules(
        _ sets: [(name: String, tables: Tables, conditions: [(String, Condition.Test)])], recipients: String = "any",
        names: AttributeNames = AttributeNames(), isSigned: [String: Bool] = [:]
    ) throws -> ContentRules {
        let directory = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        func table(_ name: String, _ text: String) throws -> [String] {
            guard !text.isEmpty else { return [] }
            try text.write(to: directory.appending(path: name), atomically: true, encoding: .utf8)
            return ["pcre:\(directory.path)/\(name)"]
        }
        var checks = ContentChecks()
        checks.attributeNames = names
        checks.sets = try sets.map { name, tables, conditions in
            var set = CheckSet()
            set.name = name
            set.tables.header = try table("\(name)-header", tables.header)
            set.tables.decodedHeader = try table("\(name)-decoded-header", tables.decodedHeader)
            set.tables.body = try table("\(name)-body", tables.body)
            set.tables.decodedBody = try table("\(name)-decoded-body", tables.decodedBody)
            set.conditions = conditions.map { attribute, test in
                Condition(part: KeyPart(attribute, in: &checks.attributeNames), test: test, forms: KeyForms())
            }
            set.recipients = try #require(.init(rawValue: recipients))
            set.isSigned = isSigned[name]
            return set
        }
        return try ContentRules(checks)
    }

    // MARK: Conditions

    private static func equals(_ value: String) -> Condition.Test { .equals([Array(value.utf8)]) }

    private let scratch = MatchScratch(limits: Condition.matchLimits)

    private static let inside = Condition.Test.inNetworks([Network("192.0.2.0/24")!])

    @Test(arguments: [
        ("any", "", [], "all outside unsent"),
        ("any", "client_address=192.0.2.1", ["x@example.com"], "all inside unsent"),
        ("any", "client_address=198.51.100.1\nsasl_username=alice", ["x@example.com"], "all login outside unsent"),
        ("any", "client_address=192.0.2.1", ["x@example.org", "y@example.com"], "all inside customer unsent"),
        ("all", "client_address=192.0.2.1", ["x@example.org", "y@example.com"], "all inside unsent"),
        ("all", "client_address=192.0.2.1", ["x@example.org", "y@Example.ORG"], "all inside customer unsent"),
        // Both conditions have to hold for one and the same recipient.
        (
            "any", "client_address=192.0.2.1", ["boss@example.org", "y@example.com"],
            "all customer-boss inside customer unsent"
        ),
        ("any", "client_address=192.0.2.1", ["x@example.org", "boss@example.com"], "all inside customer unsent"),
        ("any", "sender=a@example.org", ["x@example.com"], "all outside"),
    ])
    func setsOfAMessage(mode: String, known: String, recipients: [String], expected: String) throws {
        let tables = Tables(header: "/^X:/ WARN\n")
        let rules = try Self.rules(
            [
                ("all", tables, []),
                ("login", tables, [("sasl_username", .present)]),
                (
                    "customer-boss", tables,
                    [
                        ("recipient_domain", Self.equals("example.org")),
                        ("recipient", .matches(try Pattern(Array("^boss@".utf8), options: []))),
                    ]
                ),
                ("inside", tables, [("client_address", Self.inside)]),
                ("outside", tables, [("client_address", .not(Self.inside))]),
                ("customer", tables, [("recipient_domain", Self.equals("example.org"))]),
                ("unsent", tables, [("sender", .absent)]),
            ], recipients: mode)
        var selection = SetSelection(rules, MessageAttributes(request: Array(known.utf8)), scratch)
        for recipient in recipients { selection.add(recipient: Array(recipient.utf8)) }
        let chosen = selection.finish()
        #expect(chosen.indexes.map { rules.sets[$0].name }.joined(separator: " ") == expected)
        #expect(chosen.notes == [])
    }

    @Test func conditionThatCanNotBeDecided() throws {
        let pattern = try Pattern(Array(#"^(a+)+$"#.utf8), options: [])
        let tables = Tables(header: "/^X:/ REJECT\n")
        for test in [Condition.Test.matches(pattern), .not(.matches(pattern))] {
            let rules = try Self.rules([("a", tables, [("helo_name", test)]), ("b", Tables(), [])])
            let name = String(repeating: "a", count: 100) + "!"
            var selection = SetSelection(rules, MessageAttributes(request: Array("helo_name=\(name)".utf8)), scratch)
            let chosen = selection.finish()
            #expect(chosen.indexes == [1])
            let filter = MessageFilter(rules, matcher: Matcher())
            filter.begin(rules)
            filter.select(chosen)
            filter.update(Array("X: 1\r\n\r\n".utf8))
            let verdict = filter.finish()
            #expect(verdict.disposition == .accept)
            #expect(
                verdict.notes.map { "\($0)" }
                    == ["the checks of set a do not apply: can't match helo_name: match limit exceeded"])
        }
    }

    private static let signature = "DKIM-Signature: v=1; d=example.org; h=from:subject; bh=x; b=y\r\n"

    /// A message, and whether it has a DKIM-Signature.
    private static let signedAndUnsigned: [(message: String, isSigned: Bool)] = [
        (message, false), (signature + message, true),
        (message.replacing("\r\n\r\n", with: "\r\n\(signature)\r\n"), true),
        // Headers that come in several blocks.
        (String(repeating: "X-Many: 1\r\n", count: 1_000) + signature + message, true),
        (String(repeating: "X-Many: 1\r\n", count: 1_000) + message, false),
        // A signature after too many of them.
        (String(repeating: "X-Many: 1\r\n", count: 30_000) + signature + message, false),
        ("dkim-signature : v=1\r\n" + message, true), ("X-DKIM-Signature: v=1\r\n" + message, false),
        // Headers of a part, of an attached message, and a line of the body.
        ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + signature + message, false),
        ("Content-Type: message/rfc822\r\n\r\n" + signature + message, false), ("\r\n" + signature, false),
        // No body, and no line end.
        ("Subject: spam\r\nX-Other: ham", false), ("Subject: spam\r\n" + signature.dropLast(), true),
    ]

    /// What sets find that depend on a DKIM-Signature: the same as if only those were there that apply.
    @Test(arguments: signedAndUnsigned, [1, 7, 1 << 20])
    func signedMail(_ mail: (message: String, isSigned: Bool), piece: Int) throws {
        // Of many headers, in one way only.
        let isLong = mail.message.utf8.count > 5_000
        guard piece == 1 << 20 || !isLong else { return }
        func tables(_ name: String, _ last: String) -> Tables {
            Tables(
                header: "/^Subject: spam/ PREPEND X-\(name): h\n/^X-Other:/ \(last)\n", decodedHeader: "/café/ HOLD\n",
                body: "/^two/ REPLACE \(name)\n", decodedBody: "/three/ PREPEND X-\(name): b\n")
        }
        for last in isLong ? ["WARN"] : ["WARN", "REJECT", "PASS", "IGNORE"] {
            let sets =
                [
                    ("all", tables("All", "WARN"), []), ("signed", tables("Signed", last), []),
                    ("others", Tables(header: "/^X-Other:/ IGNORE\n"), []), ("unsigned", tables("Unsigned", last), []),
                ] as [(name: String, tables: Tables, conditions: [(String, Condition.Test)])]
            let rules = try Self.rules(sets, isSigned: ["signed": true, "unsigned": false])
            let others = try Self.rules(sets.filter { $0.name != (mail.isSigned ? "unsigned" : "signed") })
            for isFast in [false, true] {
                if isFast { for rules in [rules, others] { rules.prepareFastPass() } }
                for steps in isLong ? [nil] : [UInt32?.none, 1] {
                    let found = [rules, others].map { rules in
                        let verdict = Self.judge(rules, piece, steps: steps, mail.message)
                        let edited = verdict.apply(to: Array(mail.message.utf8), lineEnd: .crlf)
                        let matches = verdict.matches.map { "\($0.set!):\($0.location.line)\($0.fault ?? "")" }
                        return "\(matches) \(verdict.disposition) \(verdict.effects) \(verdict.notes) "
                            + String(decoding: edited, as: UTF8.self)
                    }
                    #expect(found[0] == found[1])
                }
            }
            #expect(
                rules.sets[mail.isSigned ? 3 : 1].lists.allSatisfy { list, _ in
                    (0..<list.count).allSatisfy { list.counters[$0].hits == 0 }
                })
        }
    }

    /// Without sets that apply, nothing is checked; the next message is not affected.
    @Test func messageWithoutSets() throws {
        let rules = try Self.rules([
            ("a", Tables(header: "/^X:/ REJECT\n", decodedBody: "/./ REJECT\n"), [("sasl_username", .present)])
        ])
        let filter = MessageFilter(rules, matcher: Matcher())
        for (known, isRefused) in [("", false), ("sasl_username=a", true), ("", false)] {
            filter.begin(rules)
            var selection = SetSelection(rules, MessageAttributes(request: Array(known.utf8)), scratch)
            filter.select(selection.finish())
            filter.update(Array("X: 1\r\n\r\nbody\r\n".utf8))
            let verdict = filter.finish()
            #expect((verdict.disposition != Verdict.Disposition.accept) == isRefused)
            #expect(verdict.matches.allSatisfy { $0.set == nil })
        }
    }

    /// Hits are counted for each set. A set continues the one of its name.
    @Test func counters() throws {
        let tables = Tables(header: "/^Subject:/ WARN\n")
        let rules = try Self.rules([("a", tables, []), ("b", Tables(header: "/^X-Other:/ PASS\n"), [])])
        rules.prepareFastPass()
        _ = Self.judge(rules, 100, steps: nil)
        let next = ContentRules(rules, continuing: rules)
        for set in next.sets {
            #expect(set.header.counters[0].hits == 3)
            #expect(set.header.fastPass === rules.sets[set.index].header.fastPass)
        }
        let other = try Self.rules([("c", tables, [])])
        #expect(ContentRules(other, continuing: rules).sets[0].header.counters[0].hits == 0)
    }

    /// Sets with the same tables share a fast pass, which is compiled once.
    @Test func sameTables() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString)").path
        try "/^Subject:/ WARN\n".write(toFile: path, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(atPath: path) }
        var checks = ContentChecks()
        checks.sets = ["a", "b"].map { name in
            var set = CheckSet()
            set.name = name
            (set.tables.header, set.tables.body) = (["pcre:\(path)"], ["pcre:\(path)"])
            return set
        }
        let rules = try ContentRules(checks)
        rules.prepareFastPass()
        let sets = rules.sets
        #expect(sets[0].header.fastPass != nil)
        #expect(sets[0].header.fastPass === sets[1].header.fastPass)
        #expect(sets[0].body.fastPass === sets[1].body.fastPass)
        #expect(sets[0].header.fastPass !== sets[0].body.fastPass)
    }
}
