// SPDX-License-Identifier: Apache-2.0
import Decoding
import Filter
import Glibc
import Rules
import Synchronization
import Testing

@Suite struct PartCheckerTests {
    private static let message = """
        Received: from a by b\r
        Subject: test\r
        MIME-Version: 1.0\r
        Content-Type: multipart/mixed; boundary=b\r
        \r
        --b\r
        Content-Type: text/plain; charset=utf-8\r
        Content-Transfer-Encoding: base64\r
        \r
        Vmlh\r
        Z3JhIMOkCnNlY29uZCBsaW5lCg==\r
        --b\r
        Content-Type: text/html\r
        Content-Disposition: attachment; filename="page.html"\r
        \r
        <p>ca<b>si</b>no <a href="http://example.org/x">here</a><p hidden>secret\r
        --b--\r

        """

    /// A message with a stored zip archive. Its first file has `size` bytes, and the others are programs.
    private func archive(_ size: Int, others: Int = 1, directoryAt offset: Int? = nil) -> [UInt8] {
        func little(_ value: Int, _ size: Int) -> [UInt8] { (0..<size).map { UInt8(value >> (8 * $0) & 0xff) } }
        var (archive, directory): ([UInt8], [UInt8]) = ([], [])
        let programs = Array(repeating: Array("MZ".utf8), count: others)
        for content in [[UInt8](repeating: 1, count: size)] + programs {
            let sizes = little(content.count, 4) + little(content.count, 4) + little(1, 2)
            directory += Array("PK\u{1}\u{2}".utf8) + little(20, 16) + sizes + little(0, 12) + little(archive.count, 4)
            directory += Array("a".utf8)
            archive += Array("PK\u{3}\u{4}".utf8) + little(20, 14) + sizes + little(0, 2) + Array("a".utf8) + content
        }
        let place = little(directory.count, 4) + little(offset ?? archive.count, 4)
        let end = little(0, 4) + little(1 + others, 2) + little(1 + others, 2) + place
        return Array("Content-Type: application/zip\r\n\r\n".utf8) + archive + directory
            + Array("PK\u{5}\u{6}".utf8) + end + little(0, 2)
    }

    private func rules(_ tables: [WritableKeyPath<CheckTables, [String]>: String]) throws -> ContentRules {
        var template = Array("/tmp/weir-parts-XXXXXX".utf8CString)
        let directory = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { system("rm -rf '\(directory)'") }
        var checks = ContentChecks()
        for (number, (key, text)) in tables.enumerated() {
            let file = try #require(fopen("\(directory)/\(number)", "w"))
            fputs(text, file)
            fclose(file)
            checks.tables[keyPath: key] = ["pcre:\(directory)/\(number)"]
        }
        return try ContentRules(checks)
    }

    private func judge(_ rules: ContentRules, inPieces size: Int = .max, share: LoopShare? = nil) -> Verdict {
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks, share: share))
        let bytes = Array(Self.message.utf8)
        func resume() {
            guard filter.isSuspended else { return }
            filter.prepareToResume()
            filter.resume()
        }
        var verdict = Verdict()
        // The second message uses what the first one has left.
        for _ in 0..<2 {
            filter.begin(rules)
            for start in stride(from: 0, to: bytes.count, by: min(size, bytes.count)) {
                filter.update(Array(bytes[start..<min(start + min(size, bytes.count), bytes.count)]))
                resume()
            }
            filter.endInput()
            resume()
            verdict = filter.finish()
        }
        return verdict
    }

    private func summary(_ verdict: Verdict) -> String {
        let matches = verdict.matches.map { match in
            "\(match.view) \(match.location.line): \(String(decoding: match.content, as: UTF8.self))"
                + (match.fault.map { " (\($0))" } ?? "")
        }
        return "\(matches) \(verdict.effects) \(verdict.disposition) \(verdict.notes) "
            + String(decoding: verdict.apply(to: Array(Self.message.utf8), lineEnd: .crlf), as: UTF8.self)
    }

    private func verdict(_ tables: [WritableKeyPath<CheckTables, [String]>: String]) throws -> Verdict {
        let rules = try rules(tables)
        let slow = judge(rules)
        rules.prepareFastPass()
        var share = LoopShare()
        share.time = 0
        for other in [
            judge(rules), judge(rules, inPieces: 1), judge(rules, inPieces: 13), judge(rules, share: share),
            judge(rules, inPieces: 7, share: share),
        ] { #expect(summary(other) == summary(slow)) }
        return slow
    }

    @Test(arguments: [
        ("/^viagra Ä$/ REJECT no", "decoded_body 1", "Viagra ä"),
        ("/^second line$/ REJECT no", "decoded_body 1", "second line"),
        ("/casino/ REJECT no", "decoded_body 2", "casino here"),
        ("/^link: .*example\\.org/ REJECT no", "decoded_body 2", "link: http://example.org/x"),
        ("/^hidden: secret/ REJECT no", "decoded_body 2", "hidden: secret"),
    ])
    func text(_ rule: String, _ view: String, _ content: String) throws {
        let verdict = try verdict([\.decodedBody: rule])
        #expect(verdict.disposition == .refuse(Refusal(code: 550, text: Array("5.7.1 no".utf8))))
        #expect(verdict.matches.map(\.view) == [view])
        #expect(verdict.matches.map { String(decoding: $0.content, as: UTF8.self) } == [content])
    }

    @Test func attachments() throws {
        let verdict = try verdict([\.attachment: #"/; name="[^"]*\.html?";/ HOLD page"#])
        #expect(verdict.holdReason == Array("page".utf8))
        #expect(verdict.matches.map(\.view) == ["attachment 2"])
    }

    /// No archive is read on an event loop, however much of the loop's share is left.
    @Test(arguments: [100, 1 << 20]) func archivesAreReadElsewhere(_ size: Int) throws {
        let rules = try rules([\.attachment: "/x-dosexec.* size=2;/ REJECT program\n/zip/ WARN"])
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks, share: LoopShare()))
        filter.update(archive(size))
        #expect(!filter.isSuspended)
        filter.endInput()
        #expect(filter.isSuspended)
        filter.prepareToResume()
        filter.resume()
        let found = filter.finish().matches.map { String(decoding: $0.content.prefix(5), as: UTF8.self) }
        #expect(found == ["1; ap", "1/2; "])
    }

    /// The bounds on archives are for the message, not for the sets that look at it.
    @Test(arguments: [false, true]) func setsSeeTheSameArchive(isOnLoop: Bool) throws {
        var template = Array("/tmp/weir-parts-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        close(descriptor)
        let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        defer { unlink(path) }
        let file = try #require(fopen(path, "w"))
        fputs("/x-dosexec.* size=2;/ WARN\n/; limit$/ REJECT\n", file)
        fclose(file)
        var checks = ContentChecks()
        checks.sets = ["a", "b", "c"].map { name in
            var set = CheckSet()
            (set.name, set.tables.attachment) = (name, ["pcre:\(path)"])
            return set
        }
        let rules = try ContentRules(checks)
        let filter = MessageFilter(rules, matcher: Matcher(rules.checks, share: isOnLoop ? LoopShare() : nil))
        filter.update(archive(600, others: 500))
        filter.endInput()
        if isOnLoop {
            filter.prepareToResume()
            filter.resume()
        }
        let verdict = filter.finish()
        #expect(verdict.disposition == .accept)
        #expect(verdict.matches.map(\.set) == ["a", "b", "c"].flatMap { Array(repeating: $0, count: 500) })
    }

    private final class Memory: SharedMemory {
        let reserved = Atomic(0)
        let most = 1 << 20

        func reserveMemory(_ count: Int) -> Bool {
            guard reserved.load(ordering: .relaxed) + count <= most else { return false }
            reserved.add(count, ordering: .relaxed)
            return true
        }

        func release(memory count: Int) { reserved.subtract(count, ordering: .relaxed) }
    }

    /// Many messages at once share a bound. Where there is no more memory, the end of an archive is read.
    @Test func theMemoryOfArchivesIsBounded() throws {
        let rules = try rules([\.attachment: "/x-dosexec.* size=2;/ REJECT program"])
        let memory = Memory()
        let message = archive(500_000)
        let filters = (0..<50).map { _ in MessageFilter(rules, matcher: Matcher(), memory: memory) }
        for start in stride(from: 0, to: message.count, by: 10_000) {
            for filter in filters { filter.update(Array(message[start..<min(start + 10_000, message.count)])) }
        }
        #expect(memory.reserved.load(ordering: .relaxed) == memory.most)
        let verdicts = filters.map { $0.finish() }
        #expect(memory.reserved.load(ordering: .relaxed) == 0)
        // Each message has the end of its archive.
        #expect(verdicts.filter { $0.disposition != .accept }.count == 50)
        #expect(verdicts.allSatisfy { $0.notes.map { "\($0)".contains("filter.most_memory") } == [true] })
        // A message that is dropped releases its memory.
        filters[0].begin(rules)
        filters[0].update(message)
        #expect(memory.reserved.load(ordering: .relaxed) > 0)
        filters[0].releaseMemory()
        #expect(memory.reserved.load(ordering: .relaxed) == 0)
    }

    /// As programs that unpack do: the offsets of the entries count, not that of the directory.
    @Test func aWrongOffsetOfTheDirectoryHidesNothing() throws {
        let rules = try rules([\.attachment: "/x-dosexec/ REJECT program"])
        let filter = MessageFilter(rules, matcher: Matcher())
        filter.update(archive(100, directoryAt: 0x7fff_ffff))
        #expect(filter.finish().disposition != .accept)
    }

    /// The converter of windows-1258 holds back a letter that an accent may follow.
    @Test func piecesDoNotMoveLetters() throws {
        let rules = try rules([\.decodedBody: "/pills/ REJECT spam"])
        let message =
            Array("Content-Type: text/plain; charset=windows-1258\r\n\r\n".utf8) + [0xe9] + Array("pills now\r\n".utf8)
        for split in message.indices {
            let filter = MessageFilter(rules, matcher: Matcher())
            filter.update(Array(message[..<split]))
            filter.update(Array(message[split...]))
            #expect(filter.finish().disposition != .accept, "split at \(split)")
        }
    }

    @Test func prependGoesToTheTop() throws {
        let verdict = try verdict([
            \.decodedBody: "/(viagra)/ PREPEND X-First: $1\n/casino/ PREPEND X-Second: 2",
            \.header: "/^Received:/ PREPEND X-Header: 3",
        ])
        let text = String(decoding: verdict.apply(to: Array(Self.message.utf8), lineEnd: .crlf), as: UTF8.self)
        #expect(text == "X-First: Viagra\r\nX-Second: 2\r\nX-Header: 3\r\n" + Self.message)
    }

    @Test func effects() throws {
        let verdict = try verdict([
            \.decodedBody: "/viagra/ BCC a@example.org\n/casino/ HOLD spam", \.attachment: "/html/ BCC a@example.org",
            \.header: "/^Subject/ BCC b@example.org",
        ])
        #expect(verdict.isHeld)
        let copies = ["b@example.org", "a@example.org"].map { Array($0.utf8) }
        #expect(verdict.recipients == .envelope(copies: copies))
    }

    @Test(arguments: ["REJECT late", "DISCARD", "REDIRECT c@example.org", "PASS"])
    func rulesForTheMessageAsItCameComeFirst(_ action: String) throws {
        let verdict = try verdict([\.decodedBody: "/viagra/ REJECT early", \.body: "/^--b--/ \(action)"])
        #expect(verdict.matches.map(\.subject) == [.body])
    }

    @Test(arguments: ["REPLACE x", "STRIP", "IGNORE", "ignore"]) func editsAreRefused(_ action: String) throws {
        for key in [\CheckTables.decodedBody, \.attachment] {
            let faults = #expect(throws: ContentRules.Faults.self) { try rules([key: "/a/ WARN\n/b/ \(action)"]) }
            #expect(faults?.faults.map(\.line) == [2])
        }
        let word = action.split(separator: " ")[0]
        let rest = action == "REPLACE x" ? " x" : ""
        let table = "/^(second) line/ $1\n/^link: .*(x)$/ \(word)\(rest)"
        #expect(throws: ContentRules.Faults.self) { try rules([\.decodedBody: table]) }
    }

    /// The matched text is the action.
    @Test func anEditThatTheMessageNames() throws {
        let verdict = try verdict([\.decodedBody: "/ (li)ne$/ $1\n/^hidden: (s)ecret/ ${1}trip"])
        #expect(verdict.edits.isEmpty)
        #expect(verdict.matches.map(\.fault) == ["unknown command: li", "a decoded part has no line to change"])
    }

    @Test func theHitIsShown() throws {
        let text = String(repeating: "ä", count: 300)
        let line = Array("\(text)needle\(text)".utf8)
        let rules = try rules([\.decodedBody: "/needle/ WARN"])
        let filter = MessageFilter(rules, matcher: Matcher())
        filter.update(Array("Content-Type: text/plain; charset=utf-8\n\n".utf8) + line + [0x0a])
        let content = try #require(filter.finish().matches.first?.content)
        #expect(content.count <= 200 && String(decoding: content, as: UTF8.self).contains("needleä"))
    }
}
