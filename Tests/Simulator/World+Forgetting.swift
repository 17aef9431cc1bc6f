// SPDX-License-Identifier: Apache-2.0
import Limits

/// `ledger.most_keys`: if there are more keys, the service forgets those that are used least.
///
/// Which of them is not determined. The model takes what the service has forgotten, if it may forget that, and then
/// expects the answers that follow from it: a forgotten key has room again, and nothing else changes.
extension World {
    /// Decides a request for which the service may have forgotten keys.
    ///
    /// - Parameter reply: the service's.
    func decideForgetting(_ request: Request, over policyConnection: Int, _ reply: String) throws(Failure) -> String {
        let before = model
        let own = model.limits.map { Model.Account(limit: $0.name, key: request.value(of: $0.key)) }
        let mayForget = keys + own.count > scenario.mostKeys ?? .max
        // The keys of the request itself may have been forgotten just before they were judged.
        let candidates = mayForget ? own.filter(before.mayForget) : []
        let choices = (0..<1 << candidates.count).sorted { $0.nonzeroBitCount < $1.nonzeroBitCount }
        for (choice, wasIdle) in choices.flatMap({ [($0, false), ($0, true)] }) {
            var attempt = before
            for (bit, account) in candidates.enumerated() where choice >> bit & 1 == 1 {
                attempt.forget(account, wasIdle: wasIdle)
            }
            let action = attempt.decide(request, over: policyConnection) ?? "DUNNO"
            guard action == reply, own.allSatisfy({ stands($0, in: attempt) }) else { continue }
            if choice != 0 { tell("keys of this request were forgotten") }
            model = attempt
            let forgotten = try noteForgotten(sparing: own, mayForget: mayForget, before)
            try checkLeast(forgotten, sparing: own, before)
            return action
        }
        let expected = model.decide(request, over: policyConnection) ?? "DUNNO"
        let wrong = own.compactMap { account in
            model.limits.first { $0.name == account.limit }.flatMap { difference(of: account, $0, model) }
                .map { "key \(account.key) of \(account.limit): \($0)" }
        }
        throw Failure(
            kind: .answer,
            message: "\(request.summary): answered \(reply), expected \(expected), whatever was forgotten; "
                + wrong.joined(separator: "; "))
    }

    private func stands(_ account: Model.Account, in model: Model) -> Bool {
        guard let limit = model.limits.first(where: { $0.name == account.limit }) else { return true }
        return difference(of: account, limit, model) == nil
    }

    /// Takes from the model what the service has forgotten since the last call.
    ///
    /// - Parameter spared: the keys of an administrator's change.
    func noteForgotten(sparing spared: [Model.Account] = []) throws(Failure) {
        guard let mostKeys = scenario.mostKeys, !isDead else { return }
        synchronize()
        _ = try noteForgotten(sparing: spared, mayForget: keys + spared.count > mostKeys, model)
    }

    private func noteForgotten(
        sparing spared: [Model.Account], mayForget: Bool, _ before: Model
    ) throws(Failure) -> [Model.Account] {
        guard let service, let mostKeys = scenario.mostKeys else { return [] }
        keys = service.keys
        // A request may have a key in each limit, and none of these may be forgotten for another.
        if keys > max(mostKeys, touched.count) + model.limits.count {
            throw Failure(kind: .counts, message: "\(keys) keys, but most_keys is \(mostKeys)")
        }
        let forgotten = model.accounts.keys.filter { !spared.contains($0) && !stands($0, in: model) }
        for account in forgotten {
            guard service.standing(account) == nil, mayForget, before.mayForget(account) else {
                throw Failure(kind: .counts, message: "key \(account.key) of \(account.limit) was changed or forgotten")
            }
            tell("key \(account.key) of \(account.limit) was forgotten")
            // Whether the end of these messages is charged in full or not is uncertain. Their clients give up.
            let uncertain = before.expiredTransactions(of: account)
            for (index, session) in sessions.enumerated() {
                if let last = session.last, uncertain.contains(last.transaction) { renewSession(index) }
            }
            model.forget(account)
        }
        return forgotten
    }

    /// The sample of the service holds all keys if the tables of its limits are as small as here.
    private func checkLeast(
        _ forgotten: [Model.Account], sparing own: [Model.Account], _ before: Model
    ) throws(Failure) {
        guard before.limits.count <= 3, !scenario.givesBackDropped else { return }
        func rank(_ account: Model.Account) -> Int {
            let isBlocked = before.accounts[account]?.blockedUntil.map { $0 > before.now } ?? false
            return isBlocked ? .max : before.use(of: account)
        }
        let kept = before.accounts.keys.filter {
            !own.contains($0) && !forgotten.contains($0) && before.mayForget($0) && service?.standing($0) != nil
        }
        for account in forgotten {
            for other in kept where rank(other) < rank(account) {
                throw Failure(
                    kind: .counts, message: "key \(account.key) of \(account.limit) was forgotten, not \(other.key)")
            }
        }
    }
}
