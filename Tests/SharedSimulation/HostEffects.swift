// SPDX-License-Identifier: Apache-2.0
import Sharing

/// What changes have set for keys on one host.
struct HostEffects {
    private var changes: [SharedChange.Subject: SharedChange] = [:]

    mutating func take(_ change: SharedChange) { changes[change.subject] = change }

    /// The change that holds at a time. A reset always does.
    subscript(subject: SharedChange.Subject, now: Int64) -> SharedChange? {
        guard let change = changes[subject], subject.kind == .reset || !change.value.isEmpty && change.until > now
        else { return nil }
        return change
    }

    func isBlocked(_ key: UInt64, at now: Int64) -> Bool { self[Self.subject(.block, key), now] != nil }

    func reset(of key: UInt64) -> SharedChange.Version? { self[Self.subject(.reset, key), 0]?.version }

    /// How many times N is admitted.
    func factor(of key: UInt64, at now: Int64) -> Int64 {
        self[Self.subject(.raise, key), now].flatMap { Int64($0.value) } ?? 1
    }

    private static func subject(_ kind: SharedChange.Kind, _ key: UInt64) -> SharedChange.Subject {
        SharedChange.Subject(kind, limit: "limit", key: [UInt8(key)])
    }
}
