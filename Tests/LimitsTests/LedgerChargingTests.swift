// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

/// Charges of requests, and charges that are given back.
@Suite struct LedgerChargingTests {
    @Test(arguments: [
        ["RCPT"], ["DATA"], ["END-OF-MESSAGE"], ["RCPT", "DATA"], ["RCPT", "END-OF-MESSAGE"],
        ["DATA", "END-OF-MESSAGE"], ["RCPT", "DATA", "END-OF-MESSAGE"],
    ])
    func hooksNeverCountTwice(states: [String]) throws {
        let harness = try LedgerHarness {
            [$0.limit(rates: ["100/1h"]), $0.limit("messages", count: .messages, rates: ["100/1h"])]
        }
        for message in 0..<3 {
            for state in states {
                if state == "RCPT" {
                    for recipient in 0..<4 { try harness.ask(rcpt("m\(message)", to: "r\(recipient)@example.org")) }
                } else {
                    try harness.ask(settling(state, "m\(message)", count: 4))
                }
            }
        }
        #expect(harness.used("user", limit: "per-user") == [12])
        #expect(harness.used("user", limit: "messages") == [3])
    }

    @Test func rejectedRecipientsAreGivenBack() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["100/1h"])] }
        for recipient in 0..<10 { try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) }
        #expect(harness.used("user") == [10])
        try harness.ask(settling("DATA", "m", count: 7))
        #expect(harness.used("user") == [7])
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 7))
        #expect(harness.used("user") == [7])
    }

    /// The windows run out between RCPT and the end, and the idle key leaves memory. The message is charged what is
    /// new at its end, and no room is needed for the rest.
    @Test(arguments: [nil, "DATA"], [[], ["crash"], ["checkpoint", "crash"]])
    func aSlowMessageIsChargedOnce(before: String?, between: [String]) throws {
        let harness = try LedgerHarness {
            [
                $0.limit(rates: ["4/1m"]), $0.limit("messages", count: .messages, rates: ["1/1m"]),
                $0.limit("bytes", count: .bytes, rates: ["1000/1m"]),
            ]
        }
        for recipient in 0..<4 {
            #expect(try harness.ask(rcpt("m", to: "r\(recipient)@example.org", more: ["size": "600"])) == nil)
        }
        if let before { #expect(try harness.ask(settling(before, "m", count: 4, more: ["size": "600"])) == nil) }
        harness.clocks.advance(TransactionTable.openLifetime - 1000)
        try harness.sweep()
        #expect(harness.standing("user") == nil)
        for step in between { if step == "crash" { try harness.crash() } else { try harness.finishCheckpoint() } }
        // Meanwhile another message takes all the room.
        for recipient in 0..<4 {
            #expect(try harness.ask(rcpt("n", to: "r\(recipient)@example.org", more: ["size": "700"])) == nil)
        }
        #expect(try harness.ask(settling("END-OF-MESSAGE", "m", count: 4, more: ["size": "800"])) == nil)
        #expect(harness.used("user", limit: "per-user") == [4])
        #expect(harness.used("user", limit: "messages") == [1])
        #expect(harness.used("user", limit: "bytes") == [900])
        // What is given back of an expired charge takes nothing from the other message.
        #expect(try harness.ask(settling("END-OF-MESSAGE", "m", count: 2, more: ["size": "100"])) == nil)
        #expect(harness.used("user", limit: "per-user") == [4])
        #expect(harness.used("user", limit: "bytes") == [800])
    }

    /// Many keys of one message run out: each is found again.
    @Test func aSlowMessageWithManyKeysIsChargedOnce() throws {
        let harness = try LedgerHarness { maker in
            (0..<40).map { maker.limit("limit\($0)", rates: ["2/1m"]) }
        }
        for recipient in 0..<2 { #expect(try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) == nil) }
        harness.clocks.advance(120_000)
        try harness.sweep()
        #expect(try harness.ask(rcpt("n", to: "a@example.org")) == nil)
        #expect(try harness.ask(settling("END-OF-MESSAGE", "m", count: 2)) == nil)
        for limit in 0..<40 { #expect(harness.used("user", limit: "limit\(limit)") == [1]) }
    }

    /// A reset ends what was charged before it. The sweep keeps the key while a message may be open.
    @Test func aResetKeyIsChargedAgainAtTheEnd() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["4/1m"])] }
        #expect(try harness.ask(rcpt("m", to: "a@example.org")) == nil)
        _ = try harness.ledger.intervene(.reset, onKey: Array("user".utf8), limit: nil, by: .here)
        try harness.sweep()
        #expect(harness.used("user") == [0])
        #expect(try harness.ask(settling("END-OF-MESSAGE", "m", count: 1)) == nil)
        #expect(harness.used("user") == [1])
    }

    @Test func bytesAreSettledToTheRealSize() throws {
        let harness = try LedgerHarness { [$0.limit(count: .bytes, rates: ["10000/1h"])] }
        try harness.ask(rcpt("m", to: "a@example.org", more: ["size": "4000"]))
        #expect(harness.used("user") == [4000])
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 1, more: ["size": "2500"]))
        #expect(harness.used("user") == [2500])
        #expect(
            try harness.ask(settling("END-OF-MESSAGE", "n", count: 1, more: ["size": "8000"]))
                == "DEFER_IF_PERMIT 4.7.1 2500/10000 per 1h, 3640 s")
        let tooLarge = settling("END-OF-MESSAGE", "o", count: 1, more: ["size": "10001"])
        #expect(try harness.ask(tooLarge) == "REJECT 5.7.1 never")
        #expect(harness.used("user") == [2500])
    }

    @Test func aRepeatedRequestIsAnsweredTheSameAndChargedOnce() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["1/1h"], countRefused: true)] }
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

    @Test func aRequestRefusedByOneLimitIsChargedToNone() throws {
        let harness = try LedgerHarness {
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
        let harness = try LedgerHarness {
            [$0.limit(rates: ["100/1h"]), $0.limit("bytes", count: .bytes, rates: ["1000/1h"])]
        }
        for recipient in 0..<5 { try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) }
        #expect(harness.used("user", limit: "per-user") == [5])
        let refusal = try harness.ask(settling("END-OF-MESSAGE", "m", count: 5, more: ["size": "2000"]))
        #expect(refusal == "REJECT 5.7.1 never")
        #expect(harness.used("user", limit: "per-user") == [0])
        #expect(harness.used("user", limit: "bytes") == [0])
    }

    @Test(arguments: [true, false])
    func droppedTransactions(givesBack: Bool) throws {
        var settings = Ledger.Settings()
        settings.givesBackDropped = givesBack
        let harness = try LedgerHarness({ [$0.limit(rates: ["100/1h"])] }, settings: settings)
        try harness.ask(rcpt("m", to: "a@example.org"))
        let transaction = harness.transaction
        harness.ledger.close(transaction)
        #expect(harness.used("user") == [givesBack ? 0 : 1])
        // If the transaction had not ended after all, its DATA would charge it again.
        try harness.ask(settling("DATA", "m", count: 1))
        harness.ledger.close(transaction)
        #expect(harness.used("user") == [1])
    }

    /// An accepted message is not given back, even if its DATA had nothing to settle.
    @Test func anAcceptedMessageIsNotGivenBack() throws {
        var settings = Ledger.Settings()
        settings.givesBackDropped = true
        let harness = try LedgerHarness(
            { [$0.limit("domain", key: ["recipient_domain"], rates: ["100/1h"])] }, settings: settings)
        try harness.ask(rcpt("m", to: "a@example.org"))
        try harness.ask(rcpt("m", to: "b@example.com"))
        try harness.ask(settling("DATA", "m", count: 2))
        harness.ledger.close(harness.transaction)
        #expect(harness.used("example.org") == [1])
        try harness.crash()
        harness.clocks.advance(TransactionTable.openLifetime + 1)
        for _ in 0..<10 {
            harness.ledger.beginTick()
            _ = harness.ledger.maintain(slots: 256)
        }
        #expect(harness.used("example.org") == [1])
    }

    /// The message is larger than its SIZE= and never fits: the answer is permanent.
    @Test func anUnderstatedSizeIsRefusedPermanently() throws {
        let harness = try LedgerHarness { [$0.limit(count: .bytes, rates: ["10000/1h"])] }
        #expect(try harness.ask(rcpt("m", to: "a@example.org", more: ["size": "4000"])) == nil)
        let tooLarge = settling("END-OF-MESSAGE", "m", count: 1, more: ["size": "12000"])
        #expect(try harness.ask(tooLarge) == "REJECT 5.7.1 never")
        #expect(harness.used("user") == [0])
    }

    @Test func recipientsBeyondTheLimitMayComeLater() throws {
        let harness = try LedgerHarness { [$0.limit(rates: ["3/1h"])] }
        let answers = try (0..<5).map { try harness.ask(rcpt("m", to: "r\($0)@example.org")) }
        #expect(answers.map { $0 == nil } == [true, true, true, false, false])
        #expect(answers[4]?.hasPrefix("DEFER_IF_PERMIT") == true)
        #expect(try harness.ask(settling("DATA", "n", count: 4)) == "REJECT 5.7.1 never")
    }

    @Test func countedPerRecipientDomain() throws {
        let harness = try LedgerHarness { [$0.limit("domain", key: ["recipient_domain"], rates: ["2/1h"])] }
        #expect(try harness.ask(rcpt("m", to: "a@Example.ORG")) == nil)
        #expect(try harness.ask(rcpt("m", to: "b@example.org.")) == nil)
        #expect(try harness.ask(rcpt("m", to: "c@example.org")) != nil)
        #expect(try harness.ask(rcpt("m", to: "c@example.com")) == nil)
        try harness.ask(settling("DATA", "m", count: 3))
        #expect(harness.used("example.org") == [2])
        // One recipient is left at DATA: the charges of the other domains are given back.
        #expect(try harness.ask(rcpt("n", to: "d@example.net")) == nil)
        #expect(try harness.ask(rcpt("n", to: "d@example.com")) == nil)
        try harness.ask(settling("DATA", "n", count: 1, more: ["recipient": "d@example.net"]))
        #expect(harness.used("example.net") == [1])
        #expect(harness.used("example.com") == [1])
    }

    /// The key of the connection leaves memory, so no limit has anything to charge.
    @Test func aRequestOfACountedConnectionIsRemembered() throws {
        var maker = LimitMaker()
        let connections = maker.limit("connections", key: ["client_address"], count: .connections, rates: ["9/1s"])
        let recipients = maker.limit(rates: ["9/1h"])
        let harness = try LedgerHarness([connections], names: maker.names)
        let client = ["client_address": "192.0.2.1", "client_port": "1025"]
        try harness.ask(rcpt("m.0", to: "a@example.org", more: client))
        harness.clocks.advance(5000)
        try harness.sweep()
        #expect(harness.standing("192.0.2.1") == nil)
        try harness.ask(rcpt("m.0", to: "b@example.org", more: client))
        harness.ledger.reload([connections, recipients], settings: harness.settings)
        for recipient in ["a", "b"] { try harness.ask(rcpt("m.0", to: recipient + "@example.org", more: client)) }
        #expect(harness.used("user").isEmpty)
    }

    /// The key of the connection leaves memory before a checkpoint, and the restart knows the connection from that.
    @Test func aConnectionIsNotCountedAgainAfterARestart() throws {
        var maker = LimitMaker()
        let when: [(String, Condition.Test)] = [("policy_context", .equals([Array("a".utf8)]))]
        let limit = maker.limit(
            "connections", key: ["client_address"], count: .connections, rates: ["9/1s"], when: when)
        let harness = try LedgerHarness([limit], names: maker.names)
        let client = ["client_address": "192.0.2.1", "client_port": "1025", "policy_context": "a"]
        try harness.ask(rcpt("m.0", to: "a@example.org", more: client))
        harness.clocks.advance(5000)
        try harness.sweep()
        #expect(harness.standing("192.0.2.1") == nil)
        try harness.finishCheckpoint()
        try harness.finishCheckpoint()
        try harness.crash()
        try harness.ask(rcpt("m.0", to: "b@example.org", more: client))
        #expect(harness.used("192.0.2.1").allSatisfy { $0 == 0 })
    }

    @Test func connectionsAreCountedOnce() throws {
        let harness = try LedgerHarness {
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
        // The port of an earlier connection, later than Postfix would repeat CONNECT: a new connection.
        harness.clocks.advance(200_000)
        #expect(try request("CONNECT", port: 1) != nil)
    }

    /// `instance` as Postfix makes it: pid.seconds.microseconds.sequence, with sequence numbers from 0 in each
    /// connection.
    @Test func aReusedPortIsAnotherConnection() throws {
        let harness = try LedgerHarness {
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
        let harness = try LedgerHarness { [$0.limit(key: ["sender"], rates: ["1/1h"])] }
        for number in 0..<5 {
            #expect(
                try harness.ask([
                    "protocol_state": "RCPT", "instance": "\(number)", "sender": "", "recipient": "a@example.org",
                ]) == nil)
        }
    }

    /// More accounts than `Charges` searches linearly, recipients in several slots, and two settlements.
    @Test func manyLimitsAreSettledAlike() throws {
        let count = 60
        let harness = try LedgerHarness { maker in
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
        try harness.ask(settling("DATA", "m", count: 12))
        try harness.crash()
        try harness.ask(settling("END-OF-MESSAGE", "m", count: 11))
        for limit in 0..<count { #expect(harness.used("user", limit: "limit\(limit)") == [11, 11]) }
        // The oldest charges were given back: the rest was charged within the last 11 * 700 ms.
        harness.clocks.advance(60_000 - 11 * 700)
        #expect(harness.used("user", limit: "limit7") == [11, 11])
        harness.clocks.advance(10 * 700 + 1000)
        #expect(harness.used("user", limit: "limit7") == [0, 11])
    }

    /// The work of a request grows with the number of limits, not with the charges of the transaction so far.
    @Test func aLargeMessageAgainstManyLimits() throws {
        let harness = try LedgerHarness { maker in
            (0..<500).map {
                maker.limit("limit\($0)", key: $0 % 2 == 0 ? ["sasl_username"] : ["recipient"], rates: ["100000/1m"])
            }
        }
        for recipient in 0..<100 { try harness.ask(rcpt("m", to: "r\(recipient)@example.org")) }
        try harness.ask(settling("DATA", "m", count: 90))
        #expect(harness.used("user", limit: "limit0") == [90])
        #expect(harness.used("r7@example.org", limit: "limit1") == [1])
    }

    private func harnessWithTwoHooks() throws -> LedgerHarness {
        func equals(_ contexts: String...) -> [(String, Condition.Test)] {
            [("policy_context", .equals(contexts.map { Array($0.utf8) }))]
        }
        return try LedgerHarness { maker in
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
    }

    /// Two hooks in one state, with different `policy_context`: each limit charges a recipient once.
    @Test(arguments: [[], ["crash"], ["checkpoint"], ["checkpoint", "crash"]])
    func twoHooksAtOneState(between: [String]) throws {
        let harness = try harnessWithTwoHooks()
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
            try #expect(ask(settling("DATA", "m0", count: 1), context, connection: 0) == nil)
        }
        #expect(harness.used("user", limit: "rcpt") == [2])
        #expect(harness.used("user", limit: "any") == [3])
        #expect(harness.used("192.0.2.1", limit: "first") == [2])
        #expect(harness.used("192.0.2.1", limit: "second") == [2])
        #expect(try ask(rcpt("m3", to: "a@example.org"), "client", connection: 3) == nil)
        #expect(try ask(rcpt("m3", to: "a@example.org"), "rcpt", connection: 3) != nil)
    }
}
