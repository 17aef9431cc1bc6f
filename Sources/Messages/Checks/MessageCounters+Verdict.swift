// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Report
internal import Rules

extension MessageCounters {
    func count(_ verdict: Verdict) {
        switch verdict.disposition {
        case .discard: count(.discarded)
        case .refuse(let refusal): count(refusal.code < 500 ? .deferred : .refused)
        case .accept: count(verdict.isHeld ? .held : verdict.edits.isEmpty ? .passed : .edited)
        }
        for repairs in verdict.repairs { count(inHeader: repairs) }
    }
}
