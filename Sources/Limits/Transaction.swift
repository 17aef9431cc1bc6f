// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics

/// What one mail transaction (one `instance`), or one connection of a client, was charged and answered.
final class Transaction {
    let id: UInt64
    var lastSeen: LedgerTime
    /// Whether a DATA or END-OF-MESSAGE request has said what Postfix accepted. Always true of a connection.
    var isSettled = false
    /// Whether only a repeated request can follow: after END-OF-MESSAGE, and always of a connection. Not stored: after
    /// a restart, the transaction is only kept for longer.
    var isEnded = false
    var charges = Charges()
    /// Answers other than DUNNO, by request, for requests that Postfix repeats.
    var refusals: [(request: UInt64, action: [UInt8])] = []
    /// Accounts of limits in shadow mode that would have refused a recipient. Not stored: it only avoids repeated log
    /// lines.
    var shadowed: [Account] = []
    private var firstRequest: UInt64 = 0
    private var laterRequests: [UInt64] = []
    /// The last batch whose effects its saved copy holds.
    var savedSequence: UInt64 = 0

    /// Several times the recipients of a transaction (`smtpd_recipient_limit` is 1000).
    private static let mostRequests = 4096

    init(id: UInt64, lastSeen: LedgerTime) {
        self.id = id
        self.lastSeen = lastSeen
    }

    func hasAnswered(_ request: UInt64) -> Bool {
        firstRequest == request || laterRequests.contains(request)
    }

    func remember(_ request: UInt64, refusedWith action: [UInt8]? = nil) {
        if firstRequest == 0 {
            firstRequest = request
        } else {
            if laterRequests.count == Self.mostRequests { laterRequests.removeFirst(Self.mostRequests / 2) }
            laterRequests.append(request)
        }
        if let action {
            if refusals.count == Self.mostRequests { refusals.removeFirst(Self.mostRequests / 2) }
            refusals.append((request, action))
        }
    }

    func forgetRequests() {
        firstRequest = 0
        laterRequests = []
    }

    func refusal(of request: UInt64) -> [UInt8]? {
        refusals.first { $0.request == request }?.action
    }

    /// 0 if there was none.
    var latestRequest: UInt64 { laterRequests.last ?? firstRequest }

    var requestCount: Int { firstRequest == 0 ? 0 : 1 + laterRequests.count }

    func forEachRequest(_ body: (UInt64) -> Void) {
        if firstRequest != 0 { body(firstRequest) }
        for request in laterRequests { body(request) }
    }

    /// What counts of it for an account: a reset ends what was charged before it.
    func charged(to account: Account) -> UInt64 {
        guard let total = charges.total(of: account) else {
            return charges.transfer(to: account) ? charged(to: account) : 0
        }
        guard let resetAt = account.exception?.resetAt else { return total }
        charges.change(account) { $0.forget(upTo: resetAt) }
        return charges.total(of: account) ?? 0
    }

    /// Subtracts what was given back to the account already.
    func noteGivenBack(_ amount: UInt64, to account: Account) {
        _ = charged(to: account)
        charges.change(account) { $0.giveBack(amount) { _, _ in } }
    }

    var isCharged: Bool { charges.contains { $0.total > 0 } }

    /// Prefetches the object, without the arrays that it refers to.
    func prefetch() {
        let start = Unmanaged.passUnretained(self).toOpaque()
        for line in 0..<3 { weir_prefetch(start + line * 64) }
    }

    func noteShadowed(_ account: Account) {
        guard shadowed.count < Self.mostRequests, !wasShadowed(account) else { return }
        shadowed.append(account)
    }

    /// Whether the limit of an account, or of an earlier one of the same key, would have refused a recipient.
    func wasShadowed(_ account: Account) -> Bool { shadowed.contains { $0.hash == account.hash } }
}
