// SPDX-License-Identifier: Apache-2.0

/// A host that shares limits, as this host knows it.
package struct HostFigures: Codable, Equatable, Sendable {
    package var name: String
    package var isThisHost: Bool
    /// Whether it has answered the last question; true for this host.
    package var hasAnswered: Bool
    /// Seconds since it took the figures that it told last; nil if it has told none since this service was started.
    package var age: Double?

    package init(name: String, isThisHost: Bool, hasAnswered: Bool, age: Double?) {
        self.name = name
        self.isThisHost = isThisHost
        self.hasAnswered = hasAnswered
        self.age = age
    }
}

/// Why the engine of shared limits can't be used, or not by this host yet.
package struct EngineTrouble: Codable, Equatable, Sendable, CustomStringConvertible {
    /// `can't use the engine inet:192.0.2.9:6379: Connection refused`
    package var cause: String
    /// What it means for mail: `each host goes on with its share`.
    package var effect: String

    package init(cause: String, effect: String) {
        self.cause = cause
        self.effect = effect
    }

    package var description: String { "\(cause); \(effect)" }
}

/// All hosts that share limits.
package struct SharedFigures: Codable, Equatable, Sendable {
    /// Why the other hosts can't be asked; nil if they can.
    package var fault: String?
    /// In the order of `shared.hosts`.
    package var hosts: [HostFigures]

    package init(fault: String?, hosts: [HostFigures]) {
        self.fault = fault
        self.hosts = hosts
    }

    /// Whose figures the sums contain, how old they are, and which hosts are missing; nil if this host is alone.
    ///
    /// - Parameter duration: the text for a number of seconds.
    package func summary(_ duration: (Double) -> String) -> String? {
        guard hosts.count > 1 else { return nil }
        let told = hosts.filter(\.hasAnswered).map { host in
            host.name + (host.isThisHost ? " (this host)" : host.age.map { " (\(duration($0)) old)" } ?? "")
        }
        let missing = hosts.filter { !$0.hasAnswered }.map { host in
            "\(host.name): no answer, \(host.age.map { "last heard \(duration($0)) ago" } ?? "never heard")"
        }
        let reason = fault.map { ["the other hosts can't be asked: \($0)"] } ?? []
        return (["figures of \(told.joined(separator: ", "))"] + missing + reason).joined(separator: "; ")
    }
}

/// What one host has counted of a key.
package struct HostUse: Codable, Equatable, Sendable {
    package var host: String
    /// By rate of the standing; nil if the host has not answered.
    package var used: [UInt64]?
    package var refusedTries: UInt64?
    /// Seconds since the host took its figures; without an answer, since it took those that it told last.
    package var age: Double?

    package init(host: String, used: [UInt64]?, refusedTries: UInt64?, age: Double?) {
        self.host = host
        self.used = used
        self.refusedTries = refusedTries
        self.age = age
    }
}

/// What one host has counted of a limit since its start.
package struct LimitPart: Codable, Equatable, Sendable {
    package var host: String
    package var keys: Int
    package var refusals: UInt64
    package var blocks: UInt64

    package init(host: String, keys: Int, refusals: UInt64, blocks: UInt64) {
        self.host = host
        self.keys = keys
        self.refusals = refusals
        self.blocks = blocks
    }
}
