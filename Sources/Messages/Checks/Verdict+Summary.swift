// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Rules

extension Verdict {
    var isRefusal: Bool { if case .refuse = disposition { true } else { false } }

    /// In a few words, for the report of a probe.
    var summary: String {
        switch disposition {
        case .accept:
            isHeld ? "held" : edits.isEmpty ? "passed" : "passed with \(edits.count) edit\(edits.count == 1 ? "" : "s")"
        case .discard: "discarded by a rule"
        case .refuse(let refusal): "refused: \(refusal.code) \(String(decoding: refusal.text, as: UTF8.self))"
        }
    }
}
