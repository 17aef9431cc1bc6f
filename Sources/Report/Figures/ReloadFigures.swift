// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// The last time that the service read its configuration: at its start, or at a reload.
package struct ReloadFigures: Codable, Equatable, Sendable {
    /// Seconds since 1970.
    package var time: Double
    /// Why the configuration was rejected; nil if it is in use.
    package var fault: String?
}

/// Keeps the figures of the last reload for the admin listener.
package final class LastReload: Sendable {
    private let state: Mutex<ReloadFigures>

    /// The configuration of the start is in use.
    package init() {
        state = Mutex(Self.now(nil))
    }

    package var figures: ReloadFigures { state.withLock { $0 } }

    /// - Returns: the figures of the reload before.
    package func record(fault: String?) -> ReloadFigures {
        state.withLock { state in
            defer { state = Self.now(fault) }
            return state
        }
    }

    private static func now(_ fault: String?) -> ReloadFigures {
        ReloadFigures(time: secondsSince1970(), fault: fault)
    }
}
