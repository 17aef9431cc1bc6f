// SPDX-License-Identifier: Apache-2.0

/// Where a key stands with one limit. Times are seconds since 1970 by the wall clock.
package struct KeyStanding: Codable, Equatable, Sendable {
    package struct Rate: Codable, Equatable, Sendable {
        /// As written in the configuration: `100/1m`.
        package var rate: String
        package var window: String
        package var used: UInt64
        package var limit: UInt64
        /// When there is room for one more; nil while there is room.
        package var freesAt: Double?
        /// Charges of each slot of the window, oldest first; only for a key that was asked for by name.
        package var history: [UInt64]?

        package init(
            rate: String, window: String, used: UInt64, limit: UInt64, freesAt: Double?, history: [UInt64]?
        ) {
            self.rate = rate
            self.window = window
            self.used = used
            self.limit = limit
            self.freesAt = freesAt
            self.history = history
        }
    }

    package var limit: String
    package var key: String
    package var count: String
    package var mode: String
    package var rates: [Rate]
    /// Requests refused within the longest window.
    package var refusedTries: UInt64
    package var blockedUntil: Double?
    package var raisedUntil: Double?
    package var exempt: Bool
    /// A hint for the administrator who has just changed this key.
    package var note: String?
    /// The parts of the hosts that share the limit, which `rates` and `refusedTries` sum up; nil if one host has it
    /// alone.
    package var hosts: [HostUse]?

    package init(
        limit: String, key: String, count: String, mode: String, rates: [Rate], refusedTries: UInt64,
        blockedUntil: Double?, raisedUntil: Double?, exempt: Bool, note: String? = nil
    ) {
        self.limit = limit
        self.key = key
        self.count = count
        self.mode = mode
        self.rates = rates
        self.refusedTries = refusedTries
        self.blockedUntil = blockedUntil
        self.raisedUntil = raisedUntil
        self.exempt = exempt
        self.note = note
    }
}

/// A limit and a key of it.
package struct FoundKey: Codable, Equatable, Sendable {
    package var limit: String
    package var key: String
    /// The limit has an account for this key: it was charged lately, or an administrator has changed it.
    package var isKnown: Bool
    /// Only in the result of a search.
    package var standing: KeyStanding?

    package init(limit: String, key: String, isKnown: Bool, standing: KeyStanding? = nil) {
        self.limit = limit
        self.key = key
        self.isKnown = isKnown
        self.standing = standing
    }
}

/// The result of a search for keys.
package struct KeySearch: Codable, Equatable, Sendable {
    /// The key that the text itself makes, in each limit that can have such a key.
    package var meant: [FoundKey]
    /// Keys that contain the text.
    package var found: [FoundKey]
    /// There are more than `found` lists.
    package var isCut: Bool

    package init(meant: [FoundKey], found: [FoundKey], isCut: Bool) {
        self.meant = meant
        self.found = found
        self.isCut = isCut
    }
}

/// The keys of a selection.
package struct KeyListing: Codable, Sendable {
    package var count: Int
    /// Some of them, if there are many.
    package var keys: [KeyStanding]
    /// True if there may be more keys than `count`, because a host can't list all of its keys to the others.
    package var isCut: Bool?

    package init(count: Int, keys: [KeyStanding], isCut: Bool? = nil) {
        self.count = count
        self.keys = keys
        self.isCut = isCut
    }
}

/// What a change to all keys of a selection has done, or would do.
package struct KeysChanged: Codable, Equatable, Sendable {
    package var count: Int
    /// Some of them, if there are many.
    package var keys: [FoundKey]
    /// Otherwise there are more keys than the request allows, and nothing has been changed.
    package var isDone: Bool
    /// Whether other hosts have the change, if they share the limits.
    package var note: String?

    package init(count: Int, keys: [FoundKey], isDone: Bool) {
        self.count = count
        self.keys = keys
        self.isDone = isDone
    }
}

/// What an administrator can do to a key.
package enum KeyAction: String, Codable, CaseIterable, Sendable {
    case reset, raise, unraise, block, unblock
}

/// Names a key of a limit.
package struct KeyName: Codable, Hashable, Sendable {
    package var limit: String
    package var key: String

    package init(limit: String, key: String) {
        self.limit = limit
        self.key = key
    }

    package init(_ standing: KeyStanding) { self.init(limit: standing.limit, key: standing.key) }
}
