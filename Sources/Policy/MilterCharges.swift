// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import MailSyntax

/// What milters have charged for messages that the policy server has not been asked about, by the client's connection.
///
/// Postfix asks a milter about recipients before it asks the policy server at DATA or END-OF-MESSAGE. If it asks both,
/// the policy server charges the message, and the milter's charge has to be given back first.
///
/// Two generations share the work: when the recent one is full, it becomes the older one.
struct MilterCharges {
    private struct Charge {
        let sender: ArraySlice<UInt8>
        /// The ledger's number.
        let transaction: UInt64
    }

    private var recent: [[UInt8]: Charge] = [:]
    private var older: [[UInt8]: Charge] = [:]

    private static let mostCharges = 16_384

    var isEmpty: Bool { recent.isEmpty && older.isEmpty }

    /// - Parameter transaction: 0 if the message under way was charged nothing.
    mutating func note(_ session: [UInt8], sender: ArraySlice<UInt8>, transaction: UInt64) {
        guard transaction != 0 else { return forget(session) }
        if recent.count >= Self.mostCharges {
            older = recent
            recent = [:]
        }
        recent[session] = Charge(sender: sender, transaction: transaction)
    }

    /// The charge for the message of a policy request. It is forgotten.
    mutating func take(_ request: Attributes) -> UInt64? {
        let session = PolicySessions.key(address: request.clientAddress, port: request.clientPort)
        guard let charge = recent[session] ?? older[session],
            EnvelopeAddress.isSame(charge.sender, Array(request.sender)[...])
        else { return nil }
        forget(session)
        return charge.transaction
    }

    /// The message has ended.
    mutating func forget(_ session: [UInt8]) {
        recent[session] = nil
        older[session] = nil
    }
}
