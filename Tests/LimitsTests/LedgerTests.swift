// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

@Suite struct LedgerTests {
    private func rcpt(
        _ instance: String, to recipient: String, user: String = "user", more: [String: String] = [:]
    ) -> [String: String] {
        ["protocol_state": "RCPT", "instance": instance, "recipient": recipient, "sasl_username": user]
            .merging(more) { $1 }
    }

    private func end(
        _ state: String, _ instance: String, count: Int, user: String = "user", more: [String: String] = [:]
    ) -> [String: String] {
        ["protocol_state": state, "instance": instance, "recipient_count": String(count), "sasl_username": user]
            .merging(more) { $1 }
    }

    private func harness(
        _ limits: (inout LimitMaker) -> [Limit], settings: Ledger.Settings = .init()
    ) throws -> LedgerHarness {
        var maker = LimitMaker()
        let made = limits(&maker)
        return try LedgerHarness(made, names: maker.names, settings: settings)
    }

    // MARK: What is charged, and when

    @Test(arguments: [
        ["RCPT"], ["DATA"], ["END-OF-MESSAGE"], ["RCPT", "DATA"], ["RCPT", "END-OF-MESSAGE"],
        ["DATA", "END-OF-MESSAGE"], ["RCPT", "DATA", "END-OF-MESSAGE"],
    ])
    func hooksNeverCountTwice(states: [String]) throws {
        let harness = try harness {
            [$0.limit(rates: ["100/1h"]), $0.limit("messages", count: .messages, rates: ["100/1h"])]
        }
        for message in 0..<3 {
            for state in states {
                if state == "RCPT" {
                    for recipient in 0..<4 { try harness.ask(rcpt("m\(message)", to: "r\(recipient)@example.org")) }
                } else {
                    try harness.ask(end(state, "m\(message)", count: 4))
                }
            }
        }
        #expect(harness.used("user", limit: "per-user") == [12])
        #expect(harness.used("user", limit: "messages") == [3])
    }

    @Test func rejectedRecipientsAreGivenBack() throws {
        let harness = try harness { [$0.limit(rates: ["100/1h"])] }
        for recipient in 0..<10 { try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) }
        #expect(harness.used("user") == [10])
        try harness.ask(end("DATA", "m", count: 7))
        #expect(harness.used("user") == [7])
        try harness.ask(end("END-OF-MESSAGE", "m", count: 7))
        #expect(harness.used("user") == [7])
    }

    @Test func bytesAreSettledToTheRealSize() throws {
        let harness = try harness { [$0.limit(count: .bytes, rates: ["10000/1h"])] }
        try harness.ask(rcpt("m", to: "a@example.org", more: ["size": "4000"]))
        #expect(harness.used("user") == [4000])
        try harness.ask(end("END-OF-MESSAGE", "m", count: 1, more: ["size": "2500"]))
        #expect(harness.used("user") == [2500])
        #expect(
            try harness.ask(end("END-OF-MESSAGE", "n", count: 1, more: ["size": "8000"]))
                == "DEFER_IF_PERMIT 4.7.1 2500/10000 per 1h, 3640 s")
        #expect(try harness.ask(end("END-OF-MESSAGE", "o", count: 1, more: ["size": "10001"])) == "REJECT 5.7.1 never")
        #expect(harness.used("user") == [2500])
    }

    @Test func aRepeatedRequestIsAnsweredTheSameAndChargedOnce() throws {
        let harness = try harness { [$0.limit(rates: ["1/1h"], countRefused: true)] }
        let first = rcpt("m", to: "a@example.org")
        #expect(try harness.ask(first) == nil)
        #expect(try harness.ask(first) == nil)
        #expect(harness.used("user") == [1])
        let second = rcpt("n", to: "a@example.org")
        let refusal = try harness.ask(second)
        #expect(refusal != nil)
        harness.clocks.advance(1000)
        #expect(try harness.ask(second) == refusal)
        #expect(harness.standing("user")?.refusedTries == 1)
        try harness.crash()
        #expect(try harness.ask(second) == refusal)
        #expect(harness.standing("user")?.refusedTries == 1)
    }

    @Test func refusedByOneIsChargedToNone() throws {
        let harness = try harness {
            [$0.limit(rates: ["100/1h", "3/1m"]), $0.limit("client", key: ["client_address"], rates: ["2/1h"])]
        }
        for number in 0..<5 {
            try harness.ask(rcpt("m\(number)", to: "a@example.org", more: ["client_address": "192.0.2.1"]))
        }
        #expect(harness.used("user") == [2, 2])
        #expect(harness.used("192.0.2.1") == [2])
        #expect(harness.standing("192.0.2.1")?.refusedTries == 3)
        #expect(harness.standing("user")?.refusedTries == 0)
    }

    @Test func aMessageRefusedAtItsEndGivesEverythingBack() throws {
        let harness = try harness {
            [$0.limit(rates: ["100/1h"]), $0.limit("bytes", count: .bytes, rates: ["1000/1h"])]
        }
        for recipient in 0..<5 { try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) }
        #expect(harness.used("user", limit: "per-user") == [5])
        let refusal = try harness.ask(end("END-OF-MESSAGE", "m", count: 5, more: ["size": "2000"]))
        #expect(refusal == "REJECT 5.7.1 never")
        #expect(harness.used("user", limit: "per-user") == [0])
        #expect(harness.used("user", limit: "bytes") == [0])
    }

    @Test(arguments: [true, false])
    func droppedTransactions(givesBack: Bool) throws {
        var settings = Ledger.Settings()
        settings.givesBackDropped = givesBack
        let harness = try harness({ [$0.limit(rates: ["100/1h"])] }, settings: settings)
        try harness.ask(rcpt("m", to: "a@example.org"))
        let transaction = harness.transaction
        harness.ledger.close(transaction)
        #expect(harness.used("user") == [givesBack ? 0 : 1])
        // Were it not over after all, its DATA would charge it again.
        try harness.ask(end("DATA", "m", count: 1))
        harness.ledger.close(transaction)
        #expect(harness.used("user") == [1])
    }

    /// What was accepted is not given back, also where its DATA had nothing left to settle.
    @Test func whatWasAcceptedIsNotGivenBack() throws {
        var settings = Ledger.Settings()
        settings.givesBackDropped = true
        let harness = try harness(
            { [$0.limit("domain", key: ["recipient_domain"], rates: ["100/1h"])] }, settings: settings)
        try harness.ask(rcpt("m", to: "a@example.org"))
        try harness.ask(rcpt("m", to: "b@example.com"))
        try harness.ask(end("DATA", "m", count: 2))
        harness.ledger.close(harness.transaction)
        #expect(harness.used("example.org") == [1])
        try harness.crash()
        harness.clocks.advance(TransactionTable.settledLifetime + 1)
        for _ in 0..<10 {
            harness.ledger.beginTick()
            _ = harness.ledger.maintain(slots: 256)
        }
        #expect(harness.used("example.org") == [1])
    }

    /// SIZE= was too small: the message as a whole never fits, and its sender is told so.
    @Test func anUnderstatedSizeIsNotPutOffForEver() throws {
        let harness = try harness { [$0.limit(count: .bytes, rates: ["10000/1h"])] }
        #expect(try harness.ask(rcpt("m", to: "a@example.org", more: ["size": "4000"])) == nil)
        #expect(try harness.ask(end("END-OF-MESSAGE", "m", count: 1, more: ["size": "12000"])) == "REJECT 5.7.1 never")
        #expect(harness.used("user") == [0])
    }

    @Test func recipientsBeyondTheLimitMayComeLater() throws {
        let harness = try harness { [$0.limit(rates: ["3/1h"])] }
        let answers = try (0..<5).map { try harness.ask(rcpt("m", to: "r\($0)@example.org")) }
        #expect(answers.map { $0 == nil } == [true, true, true, false, false])
        #expect(answers[4]?.hasPrefix("DEFER_IF_PERMIT") == true)
        #expect(try harness.ask(end("DATA", "n", count: 4)) == "REJECT 5.7.1 never")
    }

    @Test func countedPerRecipientDomain() throws {
        let harness = try harness { [$0.limit("domain", key: ["recipient_domain"], rates: ["2/1h"])] }
        #expect(try harness.ask(rcpt("m", to: "a@Example.ORG")) == nil)
        #expect(try harness.ask(rcpt("m", to: "b@example.org.")) == nil)
        #expect(try harness.ask(rcpt("m", to: "c@example.org")) != nil)
        #expect(try harness.ask(rcpt("m", to: "c@example.com")) == nil)
        try harness.ask(end("DATA", "m", count: 3))
        #expect(harness.used("example.org") == [2])
        // One recipient is left in the end: all but its domain's are given back.
        #expect(try harness.ask(rcpt("n", to: "d@example.net")) == nil)
        #expect(try harness.ask(rcpt("n", to: "d@example.com")) == nil)
        try harness.ask(end("DATA", "n", count: 1, more: ["recipient": "d@example.net"]))
        #expect(harness.used("example.net") == [1])
        #expect(harness.used("example.com") == [1])
    }

    @Test func connectionsAreCountedOnce() throws {
        let harness = try harness {
            [$0.limit("connections", key: ["client_address"], count: .connections, rates: ["2/1h"])]
        }
        func request(_ state: String, port: Int, instance: String = "") throws -> String? {
            try harness.ask([
                "protocol_state": state, "client_address": "192.0.2.1", "client_port": String(port),
                "instance": instance,
            ])
        }
        #expect(try request("CONNECT", port: 1) == nil)
        #expect(try request("CONNECT", port: 1) == nil)
        #expect(try request("RCPT", port: 1, instance: "a") == nil)
        #expect(harness.used("192.0.2.1") == [1])
        #expect(try request("RCPT", port: 2, instance: "b") == nil)
        let refusal = try request("CONNECT", port: 3)
        #expect(refusal != nil)
        #expect(try request("RCPT", port: 3, instance: "c") == refusal)
        #expect(harness.used("192.0.2.1") == [2])
        #expect(harness.standing("192.0.2.1")?.refusedTries == 1)
        // The port of an earlier connection, after its retries are over: a new connection.
        harness.clocks.advance(200_000)
        #expect(try request("CONNECT", port: 1) != nil)
    }

    /// As Postfix names them: pid.seconds.microseconds.sequence, the last from 0 in each connection.
    @Test func aPortThatIsTakenAgainIsAnotherConnection() throws {
        let harness = try harness {
            [$0.limit("connections", key: ["client_address"], count: .connections, rates: ["3/1h"])]
        }
        func ask(_ instance: String, state: String = "RCPT") throws -> String? {
            try harness.ask([
                "protocol_state": state, "client_address": "192.0.2.1", "client_port": "1", "instance": instance,
                "recipient": "a@example.org",
            ])
        }
        #expect(try ask("", state: "CONNECT") == nil)
        for instance in ["3c2f.6b03cf7d.d4025.0", "3c2f.6b03cf7d.d86c3.1", "3c2f.6b03cf7d.d86c3.1"] {
            #expect(try ask(instance) == nil)
        }
        #expect(harness.used("192.0.2.1") == [1])
        #expect(try ask("3c2f.6b03cf7d.e1db7.0") == nil)
        try harness.crash()
        #expect(try ask("3c2f.6b03cf7d.e4c36.1") == nil)
        #expect(harness.used("192.0.2.1") == [2])
        #expect(try ask("3c30.6b03cf7e.11111.0") == nil)
        #expect(try ask("3c30.6b03cf7e.22222.0") != nil)
        #expect(try ask("3c30.6b03cf7e.33333.1") != nil)
        #expect(harness.used("192.0.2.1") == [3])
    }

    @Test func theNullSenderIsNoKey() throws {
        let harness = try harness { [$0.limit(key: ["sender"], rates: ["1/1h"])] }
        for number in 0..<5 {
            #expect(
                try harness.ask([
                    "protocol_state": "RCPT", "instance": "\(number)", "sender": "", "recipient": "a@example.org",
                ]) == nil)
        }
    }

    /// More limits than are looked through one by one; recipients that come over several slots, and are settled twice.
    @Test func manyLimitsAreSettledAlike() throws {
        let count = 60
        let harness = try harness { maker in
            (0..<count).map {
                maker.limit("limit\($0)", rates: ["100000/1m", "100000/1h"], mode: $0 % 3 == 0 ? .shadow : .enforce)
            }
        }
        for recipient in 0..<30 {
            try harness.ask(rcpt("m", to: "r\(recipient)@example.org"))
            harness.clocks.advance(700)
            if recipient == 20 {
                try harness.finishCheckpoint()
                try harness.crash()
            }
        }
        try harness.ask(end("DATA", "m", count: 12))
        try harness.crash()
        try harness.ask(end("END-OF-MESSAGE", "m", count: 11))
        for limit in 0..<count { #expect(harness.used("user", limit: "limit\(limit)") == [11, 11]) }
        // What is left was charged last, from 11 * 700 ms ago on.
        harness.clocks.advance(60_000 - 11 * 700)
        #expect(harness.used("user", limit: "limit7") == [11, 11])
        harness.clocks.advance(10 * 700 + 1000)
        #expect(harness.used("user", limit: "limit7") == [0, 11])
    }

    /// A hundred recipients of a message against 500 limits: a request's work grows with the limits, and not with all charges before it.
    @Test func aLargeMessageAgainstManyLimits() throws {
        let harness = try harness { maker in
            (0..<500).map {
                maker.limit("limit\($0)", key: $0 % 2 == 0 ? ["sasl_username"] : ["recipient"], rates: ["100000/1m"])
            }
        }
        for recipient in 0..<100 { try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) }
        try harness.ask(end("DATA", "m", count: 90))
        #expect(harness.used("user", limit: "limit0") == [90])
        #expect(harness.used("r7@example.org", limit: "limit1") == [1])
    }

    /// Two hooks at one state, told apart by `policy_context`: each limit judges its own, and charges a recipient once.
    @Test(arguments: [[], ["crash"], ["checkpoint"], ["checkpoint", "crash"]])
    func twoHooksAtOneState(between: [String]) throws {
        func equals(_ contexts: String...) -> [(String, Condition.Test)] {
            [("policy_context", .equals(contexts.map { Array($0.utf8) }))]
        }
        let harness = try harness { maker in
            [
                maker.limit("client", key: ["client_address"], rates: ["100/1h"], when: equals("client")),
                maker.limit("rcpt", rates: ["3/1h"], when: equals("rcpt")),
                maker.limit("either", rates: ["100/1h"], when: equals("client", "rcpt")),
                maker.limit("any", rates: ["100/1h"]),
                maker.limit("shadow", rates: ["0/1h"], mode: .shadow),
                maker.limit("each", key: ["sasl_username", "policy_context"], rates: ["100/1h"]),
                maker.limit(
                    "first", key: ["client_address"], count: .connections, rates: ["100/1h"], when: equals("client")),
                maker.limit(
                    "second", key: ["client_address"], count: .connections, rates: ["2/1h"], when: equals("rcpt")),
            ]
        }
        func ask(_ request: [String: String], _ context: String, connection: Int) throws -> String? {
            try harness.ask(
                request.merging([
                    "policy_context": context, "client_address": "192.0.2.1", "client_port": "\(connection)",
                ]) { $1 })
        }
        func go() throws {
            for step in between { if step == "crash" { try harness.crash() } else { try harness.finishCheckpoint() } }
        }
        for message in 0..<2 {
            for recipient in 0..<2 {
                let request = rcpt("m\(message)", to: "r\(recipient)@example.org")
                for context in ["client", "rcpt", "client", "rcpt"] {
                    let passes = (message, recipient) != (1, 1) || context == "client"
                    #expect(try (ask(request, context, connection: message) == nil) == passes)
                    try go()
                }
            }
        }
        #expect(harness.used("192.0.2.1", limit: "client") == [4])
        #expect(harness.used("user", limit: "rcpt") == [3])
        #expect(harness.used("user", limit: "either") == [4])
        #expect(harness.used("user", limit: "any") == [4])
        #expect(harness.used("user|client", limit: "each") == [4])
        #expect(harness.used("user|rcpt", limit: "each") == [3])
        if between.isEmpty { #expect(harness.standing("user", limit: "shadow")?.refusedTries == 4) }
        for context in ["client", "rcpt"] {
            try #expect(ask(end("DATA", "m0", count: 1), context, connection: 0) == nil)
        }
        #expect(harness.used("user", limit: "rcpt") == [2])
        #expect(harness.used("user", limit: "any") == [3])
        #expect(harness.used("192.0.2.1", limit: "first") == [2])
        #expect(harness.used("192.0.2.1", limit: "second") == [2])
        #expect(try ask(rcpt("m3", to: "a@example.org"), "client", connection: 3) == nil)
        #expect(try ask(rcpt("m3", to: "a@example.org"), "rcpt", connection: 3) != nil)
    }

    // MARK: Tiers, modes, exceptions

    @Test func shadowRefusesNothing() throws {
        let harness = try harness { [$0.limit(rates: ["2/1h"], mode: .shadow), $0.limit("real", rates: ["4/1h"])] }
        let answers = try (0..<6).map { try harness.ask(rcpt("m\($0)", to: "a@example.org")) == nil }
        #expect(answers == [true, true, true, true, false, false])
        #expect(harness.used("user", limit: "per-user") == [2])
        #expect(harness.standing("user", limit: "per-user")?.refusedTries == 4)
    }

    @Test func shadowSaysItOnceAndBlocksNobody() throws {
        let block = Limit.Block(after: 3, milliseconds: 600_000)
        let harness = try harness { [$0.limit(rates: ["1/1m"], mode: .shadow, block: block)] }
        try harness.ask(rcpt("a", to: "a@example.org"))
        for message in 0..<5 {
            try harness.ask(rcpt("m\(message)", to: "a@example.org"))
            try harness.ask(end("DATA", "m\(message)", count: 1))
        }
        #expect(harness.standing("user")?.refusedTries == 5)
        #expect(harness.standing("user")?.blockedUntil == nil)
    }

    /// An answer that lets the request pass: the count goes on, and a limit behind it still refuses.
    @Test(arguments: ["PREPEND X-Rate: $count", "WARN over", "HOLD", "DEFER_IF_REJECT later"])
    func whatPassesIsCharged(over: String) throws {
        let harness = try harness {
            [$0.limit("soft", rates: ["2/1h"], over: over, countRefused: true), $0.limit("hard", rates: ["4/1h"])]
        }
        let answers = try (0..<6).map { try harness.ask(rcpt("m\($0)", to: "a@example.org")) }
        #expect(answers.map { $0?.prefix(4) } == [nil, nil, over.prefix(4), over.prefix(4), "DEFE", "DEFE"])
        #expect(answers[5]?.hasPrefix("DEFER_IF_PERMIT") == true)
        #expect(harness.used("user", limit: "soft") == [4])
        #expect(harness.standing("user", limit: "soft")?.refusedTries == 2)
        #expect(harness.used("user", limit: "hard") == [4])
        try harness.crash()
        #expect(harness.used("user", limit: "soft") == [4])
    }

    @Test func aBlockByHandHoldsAnExemptKey() throws {
        let exempt = LookupTable.text(Array("boss  OK\n".utf8)).table
        let harness = try harness { [$0.limit(rates: ["1/1h"], exempt: [exempt])] }
        #expect(try harness.ask(rcpt("a", to: "a@example.org", user: "boss")) == nil)
        harness.ledger.beginTick()
        _ = try harness.ledger.intervene(
            .block(until: harness.ledger.now + 60_000), onKey: Array("boss".utf8), limit: "per-user")
        #expect(try harness.ask(rcpt("b", to: "a@example.org", user: "boss")) != nil)
        try harness.crash()
        #expect(try harness.ask(rcpt("c", to: "a@example.org", user: "boss")) != nil)
        try harness.finishCheckpoint()
        try harness.crash()
        #expect(try harness.ask(rcpt("d", to: "a@example.org", user: "boss")) != nil)
        harness.clocks.advance(61_000)
        for number in 0..<3 { #expect(try harness.ask(rcpt("e\(number)", to: "a@example.org", user: "boss")) == nil) }
        #expect(harness.used("boss") == [0])
    }

    @Test func aBlockByItselfLetsGoOfAKeyThatIsExemptNow() throws {
        let harness = try harness { [$0.limit(rates: ["1/1h"], block: .init(after: 1, milliseconds: 600_000))] }
        for number in 0..<3 { try harness.ask(rcpt("a\(number)", to: "a@example.org")) }
        #expect(harness.standing("user")?.blockedUntil != nil)
        var maker = LimitMaker(names: harness.names)
        let exempt = LookupTable.text(Array("user  OK\n".utf8)).table
        harness.ledger.beginTick()
        try harness.ledger.reload([maker.limit(rates: ["1/1h"], exempt: [exempt])], settings: harness.settings)
        #expect(try harness.ask(rcpt("b", to: "a@example.org")) == nil)
    }

    @Test func theWarningTellsTheCountsOfAllWindows() throws {
        let harness = try harness { [$0.limit(rates: ["100/1m", "5/1h"])] }
        let observer = NearObserver()
        harness.ledger.observer = observer
        for number in 0..<5 { try harness.ask(rcpt("m\(number)", to: "a@example.org")) }
        #expect(observer.told == [[4, 4]])
    }

    @Test func aBlockEndsByItself() throws {
        let harness = try harness { [$0.limit(rates: ["1/1m"], block: .init(after: 3, milliseconds: 600_000))] }
        for number in 0..<4 { try harness.ask(rcpt("m\(number)", to: "a@example.org")) }
        #expect(harness.standing("user")?.blockedUntil != nil)
        harness.clocks.advance(120_000)
        #expect(try harness.ask(rcpt("n", to: "a@example.org")) != nil)
        try harness.crash()
        #expect(harness.standing("user")?.blockedUntil != nil)
        harness.clocks.advance(500_000)
        #expect(try harness.ask(rcpt("o", to: "a@example.org")) == nil)
    }

    @Test(arguments: [true, false])
    func refusedTriesCountWhereAsked(counted: Bool) throws {
        let harness = try harness { [$0.limit(rates: ["2/1m"], countRefused: counted)] }
        for number in 0..<5 { try harness.ask(rcpt("m\(number)", to: "a@example.org")) }
        #expect(harness.used("user") == [counted ? 5 : 2])
        try harness.crash()
        #expect(harness.used("user") == [counted ? 5 : 2])
        #expect(harness.standing("user")?.refusedTries == 3)
    }

    @Test func tablesExemptAndOverride() throws {
        let exempt = LookupTable.text(Array("boss@example.org  OK\n".utf8)).table
        let overrides = LookupTable.text(Array("example.com 5/1h\n".utf8)).table
        let harness = try harness { [$0.limit(rates: ["1/1h"], exempt: [exempt], overrides: [overrides])] }
        func send(_ user: String) throws -> Int {
            try (0..<8).filter { try harness.ask(rcpt("\(user)\($0)", to: "a@example.org", user: user)) == nil }.count
        }
        #expect(try send("user@example.org") == 1)
        #expect(try send("Boss@Example.org") == 8)
        #expect(try send("user@example.com") == 5)
    }

    @Test func interventions() throws {
        let harness = try harness {
            [$0.limit(rates: ["1/1h", "10/1d"]), $0.limit("other", key: ["sender"], rates: ["1/1h"])]
        }
        let key = Array("user".utf8)
        try harness.ask(rcpt("a", to: "a@example.org"))
        #expect(try harness.ask(rcpt("b", to: "a@example.org")) != nil)
        func intervene(_ intervention: Intervention) throws {
            harness.ledger.beginTick()
            #expect(try harness.ledger.intervene(intervention, onKey: key, limit: nil).map(\.limit) == ["per-user"])
            try harness.ledger.commit()
            try harness.crash()
        }
        try intervene(.raise([Rate("3/1h")!], until: harness.ledger.now + 60_000))
        #expect(try harness.ask(rcpt("c", to: "a@example.org")) == nil)
        #expect(try harness.ask(rcpt("d", to: "a@example.org")) == nil)
        #expect(try harness.ask(rcpt("e", to: "a@example.org")) != nil)
        harness.clocks.advance(61_000)
        #expect(harness.standing("user")?.usages.map(\.admitted) == [1, 10])
        try intervene(.reset)
        #expect(harness.used("user") == [0, 0])
        try intervene(.block(until: harness.ledger.now + 60_000))
        #expect(try harness.ask(rcpt("f", to: "a@example.org")) != nil)
        try intervene(.unblock)
        #expect(try harness.ask(rcpt("g", to: "a@example.org")) == nil)
        #expect(try harness.ledger.intervene(.reset, onKey: Array("nobody".utf8), limit: nil).isEmpty)
        #expect(
            try harness.ledger.intervene(
                .block(until: harness.ledger.now + 1), onKey: Array("nobody".utf8), limit: "other"
            ).count == 1)
    }

    /// What was charged before a reset is nothing to take off from what was charged after it.
    @Test(
        arguments: ["close", "withdraw", "DATA", "refused"],
        [[], ["crash"], ["checkpoint"], ["checkpoint", "crash"], ["crash", "checkpoint", "crash"]])
    func resetWithMailUnderWay(end: String, then: [String]) throws {
        var settings = Ledger.Settings()
        settings.givesBackDropped = true
        let harness = try harness(
            { [$0.limit(rates: ["10/1d"]), $0.limit("bytes", count: .bytes, rates: ["1000/1d"])] }, settings: settings)
        func go(_ steps: [String]) throws {
            for step in steps { if step == "crash" { try harness.crash() } else { try harness.finishCheckpoint() } }
        }
        for recipient in 0..<10 { try harness.ask(rcpt("a", to: "r\(recipient)@example.org")) }
        let before = harness.transaction
        harness.clocks.advance(1)
        _ = try harness.ledger.intervene(.reset, onKey: Array("user".utf8), limit: nil)
        try harness.ledger.commit()
        try go(then)
        harness.clocks.advance(1)
        for recipient in 0..<10 { #expect(try harness.ask(rcpt("b", to: "r\(recipient)@example.org")) == nil) }
        try harness.ask(self.end("DATA", "b", count: 10))
        try go(then)
        harness.ledger.beginTick()
        switch end {
        case "close": harness.ledger.close(before)
        case "withdraw": harness.ledger.withdraw(before)
        case "DATA": #expect(try harness.ask(self.end("DATA", "a", count: 10)) != nil)
        default: #expect(try harness.ask(self.end("END-OF-MESSAGE", "a", count: 10, more: ["size": "2000"])) != nil)
        }
        try harness.ledger.commit()
        #expect(harness.used("user", limit: "per-user") == [10])
        try go(then)
        #expect(harness.used("user", limit: "per-user") == [10])
        #expect(try harness.ask(rcpt("c", to: "a@example.org")) != nil)
    }

    @Test func interventionsMeanTheKeyThatRequestsHave() throws {
        let harness = try harness {
            [$0.limit(rates: ["5/1h"]), $0.limit("per-client", key: ["client_address"], rates: ["5/1h"])]
        }
        func block(_ key: String, limit: String?) throws -> [String] {
            harness.ledger.beginTick()
            return try harness.ledger.intervene(
                .block(until: harness.ledger.now + 60_000), onKey: Array(key.utf8), limit: limit
            )
            .map { "\($0.limit) \(String(decoding: $0.key, as: UTF8.self))" }
        }
        #expect(try block("USER", limit: "per-user") == ["per-user user"])
        #expect(try harness.ask(rcpt("a", to: "a@example.org")) != nil)
        #expect(try block("User", limit: nil) == ["per-user user"])
        #expect(try block("2001:db8::5", limit: "per-client") == ["per-client 2001:db8::/64"])
        #expect(try block("2001:db8::/64", limit: nil) == ["per-client 2001:db8::/64"])
        #expect(
            throws: AdministrationFault.noKey("192.0.2.077", limits: ["per-client, which counts by client_address"])
        ) {
            try block("192.0.2.077", limit: "per-client")
        }
        #expect(throws: AdministrationFault.self) { try block("", limit: nil) }
        #expect(throws: AdministrationFault.unknownLimit("nosuch", known: ["per-user", "per-client"])) {
            try harness.ledger.standings(ofKey: Array("user".utf8), limit: "nosuch")
        }
        #expect(harness.ledger.limits.map(\.accountCount) == [1, 1])
    }

    @Test func raisingKeepsWhatATableSays() throws {
        let overrides = LookupTable.text(Array("user 5/1h 50/1d\n".utf8)).table
        let harness = try harness {
            [$0.limit(rates: ["1/1h", "10/1d"], overrides: [overrides]), $0.limit("other", rates: ["1/1w"])]
        }
        try harness.ask(rcpt("a", to: "a@example.org"))
        let key = Array("user".utf8)
        let until = harness.ledger.now + 60_000
        let standings = try harness.ledger.intervene(.raise([Rate("7/1h")!], until: until), onKey: key, limit: nil)
        #expect(standings.map(\.limit) == ["per-user"])
        #expect(standings[0].usages.map(\.admitted) == [7, 50])
        #expect(throws: AdministrationFault.self) {
            try harness.ledger.intervene(.raise([Rate("7/2h")!], until: until), onKey: key, limit: nil)
        }
    }

    /// A raise is of windows, wherever they stand; those that it does not name have the rates of the day.
    /// The journal that tells of a key goes with the first checkpoint after a start; the key is charged after that.
    @Test func aKeyThatWasOnlyOpenedBeforeACrash() throws {
        var maker = LimitMaker()
        let harness = try LedgerHarness([maker.limit(count: .bytes, rates: ["1000/1h"])], names: maker.names)
        try harness.ask(["protocol_state": "RCPT", "instance": "1", "sasl_username": "a@b", "recipient": "x@y"])
        try harness.crash()
        try harness.finishCheckpoint()
        try harness.ask(["protocol_state": "END-OF-MESSAGE", "instance": "1", "sasl_username": "a@b", "size": "300"])
        #expect(harness.used("a@b") == [300])
        try harness.crash()
        #expect(harness.used("a@b") == [300])
    }

    /// Who was let go by hand is blocked again after as many refused tries as anybody.
    @Test(arguments: [false, true])
    func unblockingForgetsRefusedTries(crashes: Bool) throws {
        var maker = LimitMaker()
        let limit = maker.limit(rates: ["1/1m"], block: .init(after: 3, milliseconds: 600_000))
        let harness = try LedgerHarness([limit], names: maker.names)
        var number = 0
        func refuse(_ count: Int) throws {
            for _ in 0..<count {
                number += 1
                try harness.ask([
                    "protocol_state": "RCPT", "instance": "\(number)", "sasl_username": "a@b",
                    "recipient": "\(number)@y",
                ])
            }
        }
        try refuse(4)
        #expect(harness.standing("a@b")?.blockedUntil != nil)
        harness.ledger.beginTick()
        _ = try harness.ledger.intervene(.unblock, onKey: Array("a@b".utf8), limit: nil)
        try harness.ledger.commit()
        if crashes { try harness.crash() }
        #expect(harness.standing("a@b")?.refusedTries == 0)
        try refuse(2)
        #expect(harness.standing("a@b")?.blockedUntil == nil)
        try refuse(1)
        #expect(harness.standing("a@b")?.blockedUntil != nil)
    }

    @Test(arguments: [["crash"], ["checkpoint", "crash"], []])
    func aRaiseUnderOtherRates(then: [String]) throws {
        let harness = try harness { [$0.limit(rates: ["10/1m", "1000/1h"])] }
        var maker = LimitMaker(names: harness.names)
        try harness.ask(rcpt("a", to: "a@example.org"))
        let until = harness.ledger.now + 3_600_000
        _ = try harness.ledger.intervene(
            .raise([Rate("5000/1h")!], until: until), onKey: Array("user".utf8), limit: nil)
        try harness.ledger.commit()
        for (rates, admitted) in [
            (["10/1m", "1000/1h"], [10, 5000]), (["1000/1h", "10/1m"], [5000, 10]), (["1000/1h", "5/1m"], [5000, 5]),
            (["1000/1h", "5/1m", "9000/1d"], [5000, 5, 9000]), (["5/1m", "9000/1d"], [5, 9000]),
        ] as [([String], [UInt64])] {
            harness.limits = [maker.limit(rates: rates)]
            for step in then { if step == "crash" { try harness.crash() } else { try harness.finishCheckpoint() } }
            if then.isEmpty {
                harness.ledger.beginTick()
                try harness.ledger.reload(harness.limits, settings: harness.settings)
            }
            #expect(harness.standing("user")?.usages.map(\.admitted) == admitted)
            #expect(harness.standing("user")?.raisedUntil == (rates.contains("1000/1h") ? until : nil))
        }
    }

    /// A row and a batch as they were written when a raise was a count for each rate of its day.
    @Test func raisesOfEarlierVersions() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["10/1m", "1000/1h"])], names: maker.names, store: store)
        try harness.ask(rcpt("a", to: "a@example.org"))
        let until = harness.ledger.now.milliseconds + 3_600_000
        var number = UInt64(bitPattern: until << 1)
        var time: [UInt8] = []
        while number >= 0x80 {
            time.append(UInt8(truncatingIfNeeded: number) | 0x80)
            number >>= 7
        }
        time.append(UInt8(number))
        let last = store.segments.count - 1
        let batch = store.segments[last].batches.last!
        // Its anchor, found by an entry that stands behind it: account 1 of limit 1.
        let entry: [UInt8] = [1, 1, 1, 4] + Array("user".utf8)
        let end = batch.content.indices.first { batch.content[$0...].starts(with: entry) }
        let anchor = Array(batch.content[..<(try #require(end))])
        let counts: [UInt8] = [2, 20, 0x90, 0x4e]
        store.segments[last].batches.append((batch.sequence + 1, anchor + ([5, 1] + time + counts)))
        try harness.crash()
        #expect(harness.standing("user")?.usages.map(\.admitted) == [20, 10_000])
        // No counts, no block; then the raise.
        let windows: [UInt8] = [3, 0xe0, 0xd4, 3, 0, 0x80, 0xdd, 0xdb, 1, 0, 0x80, 0xdd, 0xdb, 1, 0]
        store.rows[1] = AccountRow(
            id: 1, limit: 1, key: Array("user".utf8), sequence: 1000, content: windows + ([0, 0] + time + counts))
        harness.limits = [maker.limit(rates: ["1000/1h", "10/1m"])]
        try harness.crash()
        #expect(harness.standing("user")?.usages.map(\.admitted) == [10_000, 20])
        #expect(harness.standing("user")?.raisedUntil?.milliseconds == until)
    }

    // MARK: Life

    @Test func idleKeysLeaveMemoryAndStore() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["10/1m"])], names: maker.names, store: store)
        for number in 0..<200 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        try harness.finishCheckpoint()
        #expect(store.rows.count == 200)
        harness.clocks.advance(120_000)
        for _ in 0..<50 {
            harness.ledger.beginTick()
            _ = harness.ledger.maintain(slots: 256)
        }
        #expect(harness.ledger.limits[0].accountCount == 0)
        try harness.finishCheckpoint()
        #expect(store.rows.isEmpty)
    }

    @Test func moreKeysThanAllowedGiveUpTheLeastUsed() throws {
        var settings = Ledger.Settings()
        settings.mostAccounts = 100
        let harness = try harness({ [$0.limit(rates: ["1000/1h"])] }, settings: settings)
        for number in 0..<50 { try harness.ask(end("DATA", "h\(number)", count: 1, user: "heavy")) }
        for number in 0..<1000 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        #expect(harness.ledger.limits[0].accountCount <= 100)
        #expect(harness.used("heavy") == [50])
    }

    private func flooded(_ store: MemoryStore) throws -> LedgerHarness {
        var maker = LimitMaker()
        var settings = Ledger.Settings()
        settings.mostAccounts = 100
        let harness = try LedgerHarness(
            [maker.limit(rates: ["1000/1h"])], names: maker.names, store: store, settings: settings)
        for number in 0..<1000 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        return harness
    }

    @Test func givenUpKeysLeaveNoRows() throws {
        let store = MemoryStore()
        let harness = try flooded(store)
        // The first saves what is in use; by the second, transactions know keys of all checkpoints.
        for round in 0..<2 {
            try harness.finishCheckpoint()
            #expect(store.rows.count == 100)
            for number in 0..<500 {
                try harness.ask(rcpt("n\(round).\(number)", to: "a@example.org", user: "v\(round).\(number)"))
            }
        }
        harness.ledger.beginTick()
        try harness.ledger.beginCheckpoint()
        for number in 0..<500 { try harness.ask(rcpt("o\(number)", to: "a@example.org", user: "w\(number)")) }
        while harness.ledger.isCheckpointRunning { #expect(harness.ledger.maintain(slots: 16) == nil) }
        try harness.finishCheckpoint()
        #expect(store.rows.count == 100)
    }

    @Test func keysOfALimitThatIsGoneLeaveNoRows() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["10/1h"])], names: maker.names, store: store)
        for number in 0..<100 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        try harness.ledger.reload([], settings: harness.settings)
        try harness.finishCheckpoint()
        #expect(store.rows.isEmpty)
    }

    @Test func aRestartBringsBackNoMoreKeysThanAllowed() throws {
        let store = MemoryStore()
        let harness = try flooded(store)
        // All thousand are in the journal.
        try harness.crash()
        #expect(harness.ledger.limits[0].accountCount <= 100)
        try harness.finishCheckpoint()
        #expect(store.rows.count <= 100)
    }

    @Test func aReloadThatAllowsFewerKeysGivesUpTheOthers() throws {
        let harness = try flooded(MemoryStore())
        harness.settings.mostAccounts = 20
        try harness.ledger.reload(harness.limits, settings: harness.settings)
        for _ in 0..<20 {
            harness.ledger.beginTick()
            #expect(harness.ledger.maintain(slots: 2048) == nil)
        }
        #expect(harness.ledger.limits[0].accountCount == 20)
    }

    @Test func givenUpKeysLeaveMemoryWhileTheStoreIsInTrouble() throws {
        var maker = LimitMaker()
        var settings = Ledger.Settings()
        settings.mostAccounts = 100
        let store = MemoryStore()
        let harness = try LedgerHarness(
            [maker.limit(rates: ["1000/1h"])], names: maker.names, store: store, settings: settings)
        let observer = EvictionObserver()
        harness.ledger.observer = observer
        store.failure = StoreError("disk full")
        for number in 0..<10_000 {
            // No `instance`: a transaction would know the account for a while.
            try harness.ask(
                ["protocol_state": "RCPT", "recipient": "a@example.org", "sasl_username": "u\(number)"], commits: false)
            harness.ledger.discardBatch()
        }
        #expect(observer.evicted.count > 9000)
        #expect(observer.evicted.count { $0.account != nil } < 200)
    }

    @Test func aFloodOfKeysEndsNoBlock() throws {
        var settings = Ledger.Settings()
        settings.mostAccounts = 100
        let harness = try harness({ [$0.limit(rates: ["1000/1h"])] }, settings: settings)
        for number in 0..<3 {
            _ = try harness.ledger.intervene(
                .block(until: harness.ledger.now + 3_600_000), onKey: Array("bad\(number)".utf8), limit: "per-user")
        }
        for number in 0..<2000 { try harness.ask(rcpt("m\(number)", to: "a@example.org", user: "u\(number)")) }
        #expect(harness.ledger.limits[0].accountCount <= 101)
        for number in 0..<3 { #expect(harness.standing("bad\(number)")?.blockedUntil != nil) }
    }

    @Test func whoIsRefusedDoesNotMakeRoom() throws {
        var settings = Ledger.Settings()
        settings.mostAccounts = 1
        let harness = try harness(
            {
                [
                    $0.limit(rates: ["0/1h"], block: .init(after: 1, milliseconds: 60_000)),
                    $0.limit("to", key: ["recipient"], rates: ["9/1h"]),
                ]
            },
            settings: settings)
        #expect(try harness.ask(rcpt("a", to: "a@example.org")) != nil)
        #expect(harness.standing("user")?.blockedUntil != nil)
    }

    @Test func reloadKeepsWhatCountsTheSame() throws {
        var maker = LimitMaker()
        let harness = try LedgerHarness(
            [maker.limit(rates: ["10/1h", "50/1d"]), maker.limit("gone", key: ["sender"], rates: ["100/1h"])],
            names: maker.names)
        for number in 0..<5 {
            try harness.ask(rcpt("m\(number)", to: "a@example.org", more: ["sender": "a@example.org"]))
        }
        harness.ledger.beginTick()
        harness.limits = [
            maker.limit(rates: ["7/1h", "3/1m", "60/1d"]), maker.limit("new", key: ["sender"], rates: ["100/1h"]),
        ]
        try harness.ledger.reload(harness.limits, settings: harness.settings)
        #expect(harness.used("user") == [5, 0, 5])
        #expect(harness.used("a@example.org").isEmpty)
        // A transaction that was open over the reload is settled all the same.
        try harness.ask(end("DATA", "m4", count: 3, more: ["sender": "a@example.org"]))
        #expect(harness.used("user")[0] == 7)
        try harness.crash()
        #expect(harness.used("user")[0] == 7)
    }

    /// Until a request asks the table anew, the key has what the table said before, window by window.
    @Test(arguments: [["100/1m", "1000/1h"], ["1000/1h", "5000/1d"]])
    func otherWindowsWithOverrides(rates: [String]) throws {
        let overrides = LookupTable.text(Array("user 5000/1h\n".utf8)).table
        let harness = try harness { [$0.limit(rates: ["1000/1h"], overrides: [overrides])] }
        try harness.ask(rcpt("a", to: "a@example.org"))
        var maker = LimitMaker(names: harness.names)
        harness.ledger.beginTick()
        try harness.ledger.reload([maker.limit(rates: rates, overrides: [overrides])], settings: harness.settings)
        let listed = try harness.ledger.fullest(10, limit: nil).flatMap(\.usages)
        for _ in 0..<50 { _ = harness.ledger.maintain(slots: 256) }
        #expect(try harness.ask(rcpt("b", to: "a@example.org")) == nil)
        for usages in [listed, harness.standing("user")?.usages ?? []] {
            #expect(usages.map(\.admitted) == rates.map { $0 == "1000/1h" ? 5000 : Rate($0)!.count })
        }
    }

    @Test func aFaultyStoreLosesNothing() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["100/1h"])], names: maker.names, store: store)
        try harness.ask(rcpt("a", to: "a@example.org"))
        store.failure = StoreError("disk full")
        #expect(throws: StoreError.self) { try harness.ask(rcpt("b", to: "a@example.org")) }
        harness.ledger.beginTick()
        _ = harness.decide(rcpt("c", to: "a@example.org"))
        harness.ledger.discardBatch()
        #expect(harness.used("user") == [3])
        store.failure = nil
        harness.ledger.beginTick()
        try harness.ledger.restartJournal()
        while harness.ledger.isCheckpointRunning { _ = harness.ledger.maintain(slots: 64) }
        try harness.crash()
        #expect(harness.used("user") == [3])
    }

    /// The journal is lost, and the wall clock went back over a reboot: what is kept is of a time to come.
    @Test func aClockBehindTheStore() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["5/1h"])], names: maker.names, store: store)
        for recipient in 0..<3 { try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) }
        try harness.ask(end("DATA", "n", count: 1))
        try harness.finishCheckpoint()
        for segment in store.segments.indices { store.segments[segment].batches = [] }
        harness.clocks.reboot(after: -7_200_000)
        try harness.crash()
        #expect(harness.used("user") == [4])
        try harness.ask(end("DATA", "m", count: 1))
        #expect(harness.used("user") == [2])
        try harness.crash()
        #expect(harness.used("user") == [2])
        #expect(try harness.ask(end("DATA", "o", count: 4)) != nil)
        harness.clocks.advance(3_600_000 + 120_000)
        #expect(harness.used("user") == [0])
    }

    /// A key that came back under a new id: the row of that stays, though the journal still tells of the old one.
    @Test func theJournalOfAKeysEarlierLife() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["5/1m"])], names: maker.names, store: store)
        try harness.ask(rcpt("a", to: "a@example.org"))
        let journal = store.segments
        try harness.finishCheckpoint()
        harness.clocks.advance(120_000)
        harness.ledger.beginTick()
        for _ in 0..<50 { _ = harness.ledger.maintain(slots: 256) }
        #expect(harness.ledger.limits[0].accountCount == 0)
        try harness.ask(rcpt("c", to: "a@example.org"))
        try harness.ask(rcpt("d", to: "a@example.org"))
        try harness.finishCheckpoint()
        #expect(store.rows.keys.sorted() == [2])
        // The checkpoint is written, and there was no time to delete the journal before it.
        store.segments = [(number: 0, batches: journal.flatMap(\.batches))] + store.segments
        try harness.crash()
        #expect(harness.used("user") == [2])
    }

    @Test func aCheckpointIsHandedOverInPortions() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        store.rowsTogether = 100
        let harness = try LedgerHarness([maker.limit(rates: ["1000/1h"])], names: maker.names, store: store)
        for number in 0..<1000 { try harness.ask(end("DATA", "m\(number)", count: 1, user: "u\(number)")) }
        try harness.finishCheckpoint()
        #expect(store.handed == 1000)
        // As many transactions; and the end by itself.
        #expect(18...22 ~= store.saves)
    }

    @Test func failingCheckpointsAreTriedEverMoreSeldom() throws {
        var maker = LimitMaker()
        let store = MemoryStore()
        let harness = try LedgerHarness([maker.limit(rates: ["1000/1h"])], names: maker.names, store: store)
        func maintainForAnHour() -> Int {
            let before = store.checkpoint
            for second in 0..<3600 {
                harness.clocks.advance(1000)
                // Changed before, while and after it is saved.
                for _ in 0..<4 {
                    harness.ledger.beginTick()
                    _ = harness.decide(end("DATA", "m\(second)", count: 1, user: "u\(second % 10)"))
                    try? harness.ledger.commit()
                    _ = harness.ledger.maintain(slots: 64)
                }
            }
            return store.checkpoint - before
        }
        for number in 0..<10 { try harness.ask(end("DATA", "idle\(number)", count: 1, user: "idle\(number)")) }
        try harness.finishCheckpoint()
        store.checkpointFailure = StoreError("locked")
        #expect(throws: UpkeepFault.self) { try harness.finishCheckpoint() }
        #expect(50...70 ~= maintainForAnHour())
        store.checkpointFailure = nil
        harness.clocks.advance(60_000)
        for _ in 0..<500 {
            harness.ledger.beginTick()
            #expect(harness.ledger.maintain(slots: 256) == nil)
        }
        #expect(store.handed <= 10, "each key once")
        #expect(maintainForAnHour() == 0)
        try harness.finishCheckpoint()
        #expect(
            Set(store.rows.values.map(\.key)) == Set((0..<10).map { Array("u\($0)".utf8) }),
            "idle keys have left the store")
    }

    /// Crashes at any point: what was committed is there, once; transactions go on where they were.
    @Test(arguments: 0..<10 as Range<UInt64>)
    func crashes(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var maker = LimitMaker()
        let harness = try LedgerHarness(
            [
                maker.limit(rates: ["100000/1h"]),
                maker.limit("client", key: ["client_address"], count: .messages, rates: ["100000/1h"]),
            ],
            names: maker.names)
        var accepted: [String: UInt64] = [:]
        var messages: [String: UInt64] = [:]
        for number in 0..<300 {
            let user = "u\(Int.random(in: 0..<5, using: &random))"
            let recipients = Int.random(in: 1...5, using: &random)
            let taken = Int.random(in: 1...recipients, using: &random)
            let client = ["client_address": "192.0.2.\(Int.random(in: 1...3, using: &random))"]
            func maybe(_ request: [String: String]) throws {
                if Int.random(in: 0..<10, using: &random) == 0 {
                    // Decided, but the crash comes before the commit, and Postfix asks again.
                    try harness.ask(request, commits: false)
                    try harness.crash()
                }
                try harness.ask(request)
                if Int.random(in: 0..<10, using: &random) == 0 {
                    // Committed, but the crash comes before the answer, and Postfix asks again.
                    try harness.crash()
                    try harness.ask(request)
                }
                if Int.random(in: 0..<12, using: &random) == 0 {
                    harness.ledger.beginTick()
                    try harness.ledger.beginCheckpoint()
                }
                harness.clocks.advance(.random(in: 0...50, using: &random))
            }
            for recipient in 0..<recipients {
                try maybe(rcpt("m\(number)", to: "r\(recipient)@example.org", user: user, more: client))
            }
            try maybe(end("DATA", "m\(number)", count: taken, user: user, more: client))
            accepted[user, default: 0] += UInt64(taken)
            messages[client["client_address"]!, default: 0] += 1
        }
        for (user, count) in accepted { #expect(harness.used(user) == [count], "seed \(seed)") }
        for (client, count) in messages { #expect(harness.used(client) == [count], "seed \(seed)") }
    }
}
