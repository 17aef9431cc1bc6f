// SPDX-License-Identifier: Apache-2.0

/// How a key stands with one limit, for people to read.
package struct Standing: Equatable, Sendable {
    package struct Usage: Equatable, Sendable {
        package var rate: Rate
        package var used: UInt64
        package var admitted: UInt64
        /// When there is room for one more; nil if there is now.
        package var freesAt: LedgerTime?
        /// What was charged in each slot of the window, oldest first; nil if the caller did not ask for it.
        package var history: [UInt64]?
    }

    package var limit: String
    package var count: CountUnit
    package var mode: Limit.Mode
    package var key: [UInt8]
    package var usages: [Usage]
    package var refusedTries: UInt64
    package var blockedUntil: LedgerTime?
    package var raisedUntil: LedgerTime?
    package var isExempt: Bool
}

/// Who changes a key, and to whom the change applies.
package enum ChangeAuthor: Sendable {
    /// An administrator, on all hosts if they share the limit.
    case everywhere(user: String, reason: String)
    /// An administrator, on this host alone. The other hosts are told only of keys that they have been told of.
    case here
}

/// What an administrator can do to a key.
package enum Intervention: Equatable, Sendable {
    /// Sets all counts to zero and ends a block.
    case reset
    /// Replaces the rates of some of the limit's windows for a time.
    case raise([Rate], until: LedgerTime)
    /// Ends a raise.
    case unraise
    case block(until: LedgerTime)
    case unblock
}

/// A request of an administrator that the ledger can't answer. Nothing has been changed.
package enum AdministrationFault: Error, Equatable, CustomStringConvertible {
    case unknownLimit(String, known: [String])
    /// The text is not a key of any limit in question.
    case noKey(String, limits: [String])
    /// No limit in question has the window of this rate.
    case unknownWindow(Rate, limits: [String])
    /// The ledger was opened anew while its keys were looked through.
    case walkEnded

    package var description: String {
        switch self {
        case .unknownLimit(let name, let known):
            known.isEmpty
                ? "there is no limit \(name); no limits are configured"
                : "there is no limit \(name) (there are \(known.joined(separator: ", ")))"
        case .noKey(let key, let limits):
            "'\(key)' is not a valid key for \(limits.isEmpty ? "any limit" : limits.joined(separator: ", "))"
        case .unknownWindow(let rate, let limits):
            "no window of \(Rate.text(ofDuration: rate.window.milliseconds)) in \(limits.joined(separator: ", "))"
        case .walkEnded: "the ledger was opened anew meanwhile; try again"
        }
    }
}
