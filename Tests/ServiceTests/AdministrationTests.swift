// SPDX-License-Identifier: Apache-2.0
import Foundation
import Limits
import Loop
import Policy
import Report
import Settings
import Testing

/// What administrators are told of changes to keys, and of a reload that drops them.
@Suite struct AdministrationTests {
    private func change(_ action: KeyAction, _ key: String, limit: String?, seconds: Int64?) -> KeyChange {
        KeyChange(
            action, key: key, limit: limit, rates: action == .raise ? [Rate("5M/1h")!] : [], duration: seconds,
            reason: "", user: "root", details: "")
    }

    private func log(of ledger: RunningLedger) throws -> String {
        ledger.log.flush()
        return try String(contentsOfFile: "\(ledger.directory.path)/log", encoding: .utf8)
    }

    /// A login that was mistyped is blocked like any other.
    @Test func aNewKeyIsPointedOut() async throws {
        try await RunningLedger.run { ledger in
            let spelling = "senders has not counted this key yet: check the spelling"
            for action in [KeyAction.block, .raise] {
                let key = "\(action.rawValue)@example.org"
                let first = try await ledger.host.apply(change(action, key, limit: "senders", seconds: 3600))
                #expect(first.map(\.note) == [spelling])
                let second = try await ledger.host.apply(change(action, key, limit: "senders", seconds: 3600))
                #expect(second.map(\.note) == [nil])
            }
            let unblocked = try await ledger.host.apply(
                change(.unblock, "none@example.org", limit: "senders", seconds: nil))
            #expect(unblocked.map(\.note) == [nil])
        }
    }

    /// A limit that counts by another key loses the blocks of administrators.
    @Test func aReloadThatDropsBlocksNamesThem() async throws {
        try await RunningLedger.run { ledger in
            for number in 0..<25 {
                let key = "user\(number)@example.org"
                _ = try await ledger.host.apply(change(.block, key, limit: "senders", seconds: 3600))
            }
            _ = try await ledger.host.apply(change(.raise, "raised@example.org", limit: "senders", seconds: 3600))
            var configuration = ledger.configuration
            try await ledger.loop.submit { [configuration] in ledger.host.reload(configuration) }
            #expect(!(try log(of: ledger).contains("dropped the counts")))
            let text = """
                listen: { policy: "unix:\(ledger.directory.path)/policy" }
                ledger: { store: "sqlite:\(ledger.directory.path)/ledger.sqlite", durability: relaxed }
                limits: [ { name: senders, key: recipient, rates: [ 1M/1h ] } ]
                """
            configuration = try ConfigurationReader.read(Array(text.utf8), file: "weir.yaml").get().configuration
            let audit = try await ledger.loop.submit { [configuration] in
                ledger.host.reload(configuration)
                return ledger.host.audit.newestFirst
            }
            #expect(
                try log(of: ledger).contains(
                    "warning: limit senders was removed or counts something else now: ended the raises of 1 key: "
                        + "raised@example.org; raise them again if they still need it"))
            let line = try log(of: ledger).split(separator: "\n").first { $0.contains("dropped the counts") } ?? ""
            #expect(line.contains("warning: limit senders was removed or counts something else now"), "\(line)")
            #expect(line.contains("blocks of 26 keys; administrators had blocked 25 of them: "), "\(line)")
            #expect(line.contains(" and 5 more; block them again"), "\(line)")
            let raised = audit.filter { $0.user == "reload" && $0.action == "unraise" }
            #expect(raised.map(\.key) == ["raised@example.org"])
            let dropped = audit.filter { $0.user == "reload" && $0.action != "unraise" }
            #expect(dropped.count == 20)
            #expect(dropped.allSatisfy { $0.action == "unblock" && $0.limits == ["senders"] }, "\(dropped)")
        }
    }

    /// A limit that goes on with other windows keeps its blocks, but not the raises of windows that it loses.
    @Test func aReloadThatEndsRaisesNamesThem() async throws {
        try await RunningLedger.run { ledger in
            for action in [KeyAction.block, .raise] {
                _ = try await ledger.host.apply(change(action, "a@example.org", limit: "senders", seconds: 3600))
            }
            func reload(rates: String) async throws -> [AuditEntry] {
                let text = """
                    listen: { policy: "unix:\(ledger.directory.path)/policy" }
                    ledger: { store: "sqlite:\(ledger.directory.path)/ledger.sqlite", durability: relaxed }
                    limits: [ { name: senders, key: sender, rates: [ \(rates) ] } ]
                    """
                let configuration = try ConfigurationReader.read(Array(text.utf8), file: "weir.yaml").get()
                    .configuration
                return try await ledger.loop.submit {
                    ledger.host.reload(configuration)
                    return ledger.host.audit.newestFirst.filter { $0.user == "reload" }
                }
            }
            #expect(try await reload(rates: "1M/1h, 2M/2h").isEmpty)
            let ended = try await reload(rates: "2M/2h")
            #expect(ended.map { "\($0.action) \($0.key) \($0.limits)" } == ["unraise a@example.org [\"senders\"]"])
            let text = try log(of: ledger)
            #expect(
                text.contains(
                    "warning: limit senders no longer has the windows of some raises: ended the raises of 1 key: "
                        + "a@example.org; raise them again"), "\(text)")
            #expect(!text.contains("dropped the counts"), "\(text)")
        }
    }

    /// A ledger that opens at once has never answered without counts.
    @Test func onlyASlowOpeningIsLogged() async throws {
        try await RunningLedger.run { ledger in
            try await ledger.loop.submit { ledger.host.reportSlowOpening() }
            // Without a line, there is no file.
            let lines = (try? log(of: ledger)) ?? ""
            #expect(!lines.contains("opening the ledger"))
        }
    }

    /// What the ledger's trouble means for mail comes first.
    @Test func troubleIsToldWithItsEffect() async throws {
        try await RunningLedger.run { ledger in
            #expect(try await ledger.loop.submit { ledger.host.troubleText } == nil)
            try FileManager.default.removeItem(atPath: "\(ledger.directory.path)/ledger.sqlite")
            // Normally found within a second; the test fails after ten minutes.
            var looks = 0
            var text: String?
            while text == nil, looks < 60_000 {
                looks += 1
                try await Task.sleep(for: .milliseconds(10))
                text = try await ledger.loop.submit { ledger.host.troubleText }
            }
            let start = "counts are not saved; limits are enforced from memory: \(ledger.directory.path)/ledger.sqlite"
            #expect(text?.hasPrefix(start) ?? false, "\(text ?? "")")
        }
    }
}
