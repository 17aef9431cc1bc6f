// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Foundation
internal import Limits
internal import Report

extension Target {
    /// What administrators ask of a ledger, as the admin listener passes it on. A reset key has used nothing, a blocked
    /// one is blocked, and a restart changes no count.
    ///
    /// Each line is the body of a request, or a user who sends a message.
    static let administration = Target(name: "administration") { input in
        let store = FuzzStore(Choices(UnsafeRawBufferPointer(start: nil, count: 0)))
        let ledger = store.openLedger()
        for line in input.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: true).prefix(64) {
            let data = Data(line)
            if let message = try? JSONDecoder().decode(AdminMessages.Intervention.self, from: data) {
                ledger.intervene(message)
            } else if let message = try? JSONDecoder().decode(AdminMessages.SelectionIntervention.self, from: data) {
                ledger.intervene(message)
            } else {
                let key = String(decoding: line, as: UTF8.self)
                ledger.decideRecipient(of: key)
                ledger.look(for: key)
            }
            guard (try? ledger.commit()) != nil else { preconditionFailure("the store never fails") }
        }
        ledger.finishCheckpoint()
        ledger.checkCountsAfterRestart(from: store)
    }
}

extension Ledger {
    fileprivate func intervene(_ message: AdminMessages.Intervention) {
        let rates = (message.rates ?? []).compactMap { Rate($0) }
        guard let intervention = intervention(message.action, rates: rates, duration: message.duration),
            let standings = try? intervene(
                intervention, onKey: Array(message.key.utf8), limit: message.limit, by: .here)
        else { return }
        for standing in standings { check(standing, after: intervention) }
        let again = try? self.standings(ofKey: Array(message.key.utf8), limit: message.limit)
        precondition(again?.count ?? 0 >= standings.count)
    }

    fileprivate func intervene(_ message: AdminMessages.SelectionIntervention) {
        guard message.action != .raise,
            let intervention = intervention(message.action, rates: [], duration: message.duration)
        else { return }
        let pattern = message.match.map { KeyPattern($0) }
        if case .some(nil) = pattern { return }
        let states: [KeySelection.State] = [
            .any, .used, .blocked, .blockedByLimit(before: .max), .raised, .filled(percent: 80),
        ]
        for state in states {
            let selection = KeySelection(limit: message.limit, pattern: pattern ?? nil, state: state)
            guard var walk = try? selectionWalk(selection) else { return }
            while (try? advance(&walk, steps: 1024)) == true {}
            guard let changed = try? intervene(intervention, on: walk.found, foundBy: walk, by: .here) else { return }
            for account in changed {
                precondition(pattern??.matches(account.key) ?? true)
                check(standing(of: account), after: intervention)
            }
        }
    }

    private func intervention(_ action: KeyAction, rates: [Rate], duration: Int64?) -> Intervention? {
        // As `AdminListener` checks it: at most ten years.
        let duration = duration ?? 3600
        guard 1...315_360_000 ~= duration else { return nil }
        let until = now + duration * 1000
        switch action {
        case .reset: return .reset
        case .raise: return rates.isEmpty ? nil : .raise(rates, until: until)
        case .unraise: return .unraise
        case .block: return .block(until: until)
        case .unblock: return .unblock
        }
    }

    private func check(_ standing: Standing, after intervention: Intervention) {
        switch intervention {
        case .reset: precondition(standing.usages.allSatisfy { $0.used == 0 } && standing.blockedUntil == nil)
        case .block(let until): precondition(standing.blockedUntil == until)
        case .unblock: precondition(standing.blockedUntil == nil)
        case .unraise: precondition(standing.raisedUntil == nil)
        case .raise(let rates, _):
            // The last rate of a window counts, or the first: one of them.
            for usage in standing.usages where rates.contains(where: { $0.window == usage.rate.window }) {
                precondition(rates.contains { $0.window == usage.rate.window && $0.count == usage.admitted })
            }
        }
    }

    /// Finds a key by its text.
    fileprivate func look(for text: String) {
        let key = Array(text.utf8)
        let meanings = meanings(of: key, in: limits[...])
        let standings = standings(ofText: key, in: limits[...], most: .max)
        precondition(meanings.map(\.key) == standings.map(\.key))
        precondition(meanings.map(\.isKnown) == standings.map { $0.standing != nil })
        let known = (try? self.standings(ofKey: key, limit: nil)) ?? []
        precondition(known.count == meanings.count(where: \.isKnown))
    }
}
