// SPDX-License-Identifier: Apache-2.0
internal import Policy
internal import Rules

/// What the answers of limits do to a message that is not refused at RCPT. Carried out when the message ends.
struct LimitEffects {
    private(set) var isDiscarded = false
    /// The reason of the first HOLD.
    private(set) var holdReason: [UInt8]?
    private(set) var prepended: [(name: [UInt8], value: [UInt8])] = []
    /// The address of the last REDIRECT.
    private(set) var redirect: [UInt8]?
    private(set) var bcc: [[UInt8]] = []
    /// The first refusal of mail from sendmail(1), which has no client to refuse at RCPT.
    private(set) var localRefusal: Refusal?

    mutating func add(_ action: AccessAction) {
        switch action {
        case .pass: break
        case .refuse(let refusal): localRefusal = localRefusal ?? refusal
        case .discard: isDiscarded = true
        case .hold(let reason): holdReason = holdReason ?? reason
        case .prepend(let name, let value): prepended.append((name, value))
        case .redirect(let address): redirect = address
        case .bcc(let address): if !bcc.contains(address) { bcc.append(address) }
        }
    }

    /// Holds mail from sendmail(1) for the reason of its refusal, whatever an earlier HOLD said.
    mutating func replaceHoldReason(_ reason: [UInt8]) { holdReason = reason }
}
