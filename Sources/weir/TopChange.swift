// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Foundation
import Limits
import Report

/// A change to a key of one limit that `weir top` makes.
struct TopChange: Sendable {
    let action: KeyAction
    let limit: String
    let key: String
    var rates: [String] = []
    /// In seconds; nil for no end.
    var duration: Int64?
    var reason = "weir top"

    init(_ action: KeyAction, of standing: KeyStanding) {
        (self.action, limit, key) = (action, standing.limit, standing.key)
    }

    var message: AdminMessages.Intervention {
        AdminMessages.Intervention(
            action: action, key: key, limit: limit, rates: action == .raise ? rates : nil, duration: duration,
            reason: reason)
    }

    /// What a notice says after the key and the limit: `blocked for 1d`.
    var whatWasDone: String {
        let lasting = duration.map { " for " + Admin.duration(Int($0)) } ?? ""
        return switch action {
        case .block: "blocked" + (lasting.isEmpty ? " until unblocked" : lasting)
        case .raise: "raised to \(rates.joined(separator: " "))\(lasting)"
        case .unraise: "no longer raised"
        case .unblock: "unblocked"
        case .reset: "reset: all counts are 0"
        }
    }

    /// The change that restores the earlier state of the key; nil if there is none.
    func undo(from standing: KeyStanding) -> TopChange? {
        /// A block without an end gets none again.
        func seconds(until time: Double) -> Int64? {
            let rest = time - secondsSince1970()
            return rest > Double(RefusedRequest.endless) ? nil : max(1, Int64(rest.rounded()))
        }
        func back(_ action: KeyAction, until time: Double?) -> TopChange {
            var change = TopChange(action, of: standing)
            change.duration = time.flatMap(seconds)
            change.rates = standing.rates.map { "\($0.limit)/\($0.window)" }
            change.reason = "undo \(self.action.rawValue)"
            return change
        }
        return switch action {
        case .block: back(standing.blockedUntil == nil ? .unblock : .block, until: standing.blockedUntil)
        case .unblock: standing.blockedUntil.map { back(.block, until: $0) }
        case .raise: back(standing.raisedUntil == nil ? .unraise : .raise, until: standing.raisedUntil)
        case .unraise, .reset: nil
        }
    }
}
