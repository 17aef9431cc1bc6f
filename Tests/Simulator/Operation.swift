// SPDX-License-Identifier: Apache-2.0

/// What an SMTP client makes its smtpd ask.
enum Ask: Equatable {
    case helo
    /// - isRejected: Postfix rejects the recipient after Weir has let it pass.
    case recipient(Int, isRejected: Bool)
    case data
    case end
    /// Once more, as after a lost answer.
    case again
    /// The last request of the message, from another restriction list.
    case elsewhere
}

/// A step of a scenario. Each makes sense after any others, so that a failing scenario can be shortened.
enum Operation: Equatable {
    case ask(session: Int, Ask, endsTurn: Bool)
    /// RSET, or the client has disconnected.
    case abandon(session: Int)
    /// The smtpd process of the session ends, and with it its policy connection.
    case hangUp(session: Int)
    case advance(Int64)
    /// Somebody sets the wall clock, by so many milliseconds.
    case stepClock(Int64)
    case intervene(Intervention, limit: Int, key: Int)
    /// To the configuration of this number.
    case reload(Int)
    case checkpoint
    case runJob
    case restart
    /// At the n-th further change of a file.
    case kill(calls: UInt64)
    case losePower(calls: UInt64, seed: UInt64)
    case fail(calls: UInt64, count: UInt64, error: Int32, kinds: Int32)
    case repair
    case flip(seed: UInt64, part: String)
    /// Compares all keys.
    case look
}

/// Everything that one seed stands for.
struct Scenario: Equatable {
    enum Kind: String, CaseIterable {
        /// Kills, reloads, administrators.
        case kills
        /// Losses of power on an honest disk.
        case power
        /// Errors of the disk, and kills.
        case errors
        /// A disk that says that it has stored what it has not, bits that flip, losses of power.
        case damage
    }

    var seed: UInt64
    var kind: Kind
    /// commit, power, relaxed
    var durability: String
    var defersOnFailure = false
    var givesBackDropped = false
    /// `ledger.most_keys`, if it is small. Each request has a turn of its own then.
    var mostKeys: Int?
    /// The first is that of the start.
    var configurations: [[LimitPlan]]
    var operations: [Operation]

    var sessions: Int { 4 }
    var keys: Int { 3 }
}
