// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Sharing

/// The names that the hosts use in the engine for what they tell each other.
struct HostChannels {
    /// The version of the messages.
    private static let version = 1

    private let prefix: String

    /// - Parameter database: in its name, because channels are common to all databases of a server.
    init(database: Int) {
        prefix = "{weir:\(EngineLibrary.group)}:\(database):hosts-\(Self.version)"
    }

    /// All hosts listen to it.
    var questions: String { "\(prefix):questions" }

    /// All hosts listen to it. Earlier versions of Weir do not.
    var marks: String { "\(prefix):marks" }

    func answers(to host: String) -> String { "\(prefix):answers:\(host)" }

    /// All hosts hash alike.
    private static let hashKey = SipHash.Key(low: 0x7765_6972_2061_6c65, high: 0x7274_2063_6c61_696d)

    /// The key by which a host claims an alert. A hash, because the name contains a key of a limit.
    static func alertKey(_ name: String) -> String {
        var hash = SipHash(key: hashKey)
        Array(name.utf8).withUnsafeBytes { hash.combine($0) }
        return "{weir:\(EngineLibrary.group)}:alert:\(String(hash.finalize(), radix: 16))"
    }
}
