// SPDX-License-Identifier: Apache-2.0
import Foundation
import Limits
import Testing

#if DEBUG
    /// Debug builds stop where a second thread uses a ledger.
    @Suite struct ThreadOwnerTests {
        @Test func aSecondThreadIsAnError() async {
            await #expect(processExitsWith: .failure) {
                let harness = try LedgerHarness { [$0.limit(rates: ["1/1h"])] }
                harness.ledger.beginTick()
                nonisolated(unsafe) let ledger = harness.ledger
                let thread = Thread { ledger.beginTick() }
                thread.start()
                while !thread.isFinished { usleep(1000) }
            }
        }

        @Test func theThreadThatOpensALedgerMayBeAnother() throws {
            nonisolated(unsafe) var opened: LedgerHarness?
            let thread = Thread { opened = try? LedgerHarness { [$0.limit(rates: ["1/1h"])] } }
            thread.start()
            while !thread.isFinished { usleep(1000) }
            let harness = try #require(opened)
            #expect(try harness.ask(rcpt("m", to: "a@example.org")) == nil)
        }
    }
#endif
