// SPDX-License-Identifier: Apache-2.0
import Limits
import Policy
import Rules
import Testing

@Suite struct AccessActionTests {
    /// The code decides whether the refusal is permanent. The class of the enhanced status code follows it.
    @Test(arguments: [
        ("REJECT", "554 5.7.1 Access denied"), ("REJECT too much", "554 5.7.1 too much"),
        ("REJECT 5.7.0 no", "554 5.7.0 no"),
        ("REJECT 4.7.1 later", "554 5.7.1 later"), ("reject 5.1.1", "554 5.1.1 Access denied"),
        ("DEFER", "450 4.7.1 Access denied, try again later"), ("DEFER_IF_PERMIT 4.7.2 later", "450 4.7.2 later"),
        ("DEFER 5.7.1 later", "450 4.7.1 later"), ("450 5.7.1 later", "450 4.7.1 later"),
        ("421 later", "421 4.7.1 later"),
        ("550 4.2.2 no", "550 5.2.2 no"), ("554 2.0.0 no", "554 5.0.0 no"),
    ])
    func refusals(action: String, reply: String) {
        #expect(refusal(action).map { String(decoding: $0.reply, as: UTF8.self) } == reply)
    }

    @Test(arguments: [
        ("REJECT 5.7.0 no", "450 4.7.0 no"), ("550 no", "450 4.7.1 no"), ("451 4.3.0 later", "451 4.3.0 later"),
        ("DEFER", "450 4.7.1 Access denied, try again later"),
    ])
    func deferred(action: String, reply: String) {
        #expect(refusal(action).map { String(decoding: $0.deferred.reply, as: UTF8.self) } == reply)
    }

    @Test(arguments: ["DUNNO", "OK", "250", "600 x", "45 x", "4500 x", "WARN x"]) func refusesNothing(
        action: String
    ) {
        #expect(AccessAction(Array(action.utf8)) == .pass)
    }

    /// The milter refuses exactly the messages that Postfix would refuse.
    @Test(arguments: AccessWord.allCases) func refusesWhatPostfixRefuses(word: AccessWord) {
        #expect((refusal("\(word.rawValue) 5.7.1 text") != nil) == !word.letsPass)
    }

    private func refusal(_ action: String) -> Refusal? {
        guard case .refuse(let refusal) = AccessAction(Array(action.utf8)) else { return nil }
        return refusal
    }
}
