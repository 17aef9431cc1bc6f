// SPDX-License-Identifier: Apache-2.0
import Limits

/// `ledger.most_keys`: if there are more keys, the service forgets those that are used least.
///
/// Which of them is not determined, and what it means for an open message does not always show. So there are several
/// models, one for each way in which the service may have come here. Each answer, and what counts after it, rules out
/// those that differ. If none is left, the service has done what it may not do.
extension World {
    /// More models than this are not kept: the clients of the messages that they differ in give up.
    private static let mostModels = 64

    /// Decides a request for which the service may have forgotten keys.
    ///
    /// - Parameter reply: the service's.
    func decideForgetting(_ request: Request, over policyConnection: Int, _ reply: String) throws(Failure) -> String {
        let before = model
        let own = before.limits.map { Model.Account(limit: $0.name, key: request.value(of: $0.key)) }
        let mayForget = keys + own.count > scenario.mostKeys ?? .max
        var possible: [Model] = []
        var reason: Failure?
        for model in models {
            // The keys of the request itself may have been forgotten just before they were judged.
            for var attempt in forgettingSome(of: mayForget ? own.filter(model.mayForget) : [], model) {
                let action = attempt.decide(request, over: policyConnection) ?? "DUNNO"
                guard action == reply, own.allSatisfy({ stands($0, in: attempt) }) else { continue }
                do throws(Failure) {
                    possible += try forgettingMissing(in: attempt, sparing: own, mayForget: mayForget, model)
                } catch {
                    reason = reason ?? error
                }
            }
        }
        if possible.isEmpty { throw reason ?? wrongAnswer(to: request, over: policyConnection, reply, own) }
        keep(possible)
        try checkNumber()
        try checkLeast(before.accounts.keys.filter { model.accounts[$0] == nil }, sparing: own, before)
        return reply
    }

    private func wrongAnswer(
        to request: Request, over policyConnection: Int, _ reply: String, _ own: [Model.Account]
    ) -> Failure {
        var expected = model
        let action = expected.decide(request, over: policyConnection) ?? "DUNNO"
        let wrong = own.compactMap { account in
            expected.limits.first { $0.name == account.limit }.flatMap { difference(of: account, $0, expected) }
                .map { "key \(account.key) of \(account.limit): \($0)" }
        }
        return Failure(
            kind: .answer,
            message: "\(request.summary): answered \(reply), expected \(action), whatever was forgotten; "
                + wrong.joined(separator: "; "))
    }

    private func stands(_ account: Model.Account, in model: Model) -> Bool {
        guard let limit = model.limits.first(where: { $0.name == account.limit }) else { return true }
        return difference(of: account, limit, model) == nil
    }

    /// Takes from the models what the service has forgotten since the last call.
    ///
    /// - Parameter spared: the keys of an administrator's change.
    func noteForgotten(sparing spared: [Model.Account] = []) throws(Failure) {
        guard let mostKeys = scenario.mostKeys, !isDead else { return }
        synchronize()
        var possible: [Model] = []
        var reason: Failure?
        for model in models {
            do throws(Failure) {
                possible += try forgettingMissing(
                    in: model, sparing: spared, mayForget: keys + spared.count > mostKeys, model)
            } catch {
                reason = reason ?? error
            }
        }
        if let reason, possible.isEmpty { throw reason }
        keep(possible)
        try checkNumber()
    }

    private func checkNumber() throws(Failure) {
        guard let service, let mostKeys = scenario.mostKeys else { return }
        keys = service.keys
        // A request may have a key in each limit, and none of these may be forgotten for another.
        if keys > max(mostKeys, touched.count) + model.limits.count {
            throw Failure(kind: .counts, message: "\(keys) keys, but most_keys is \(mostKeys)")
        }
    }

    /// Keeps one of those models that nothing can tell apart any more.
    private func keep(_ possible: [Model]) {
        func distinct(_ models: [Model]) -> [Model] {
            let open = sessions.compactMap { $0.last?.transaction }
            return models.reduce(into: []) { kept, model in
                if !kept.contains(where: { $0.charged(open, as: model) }) { kept.append(model) }
            }
        }
        let (known, before) = (model.accounts.keys, models.count)
        models = distinct(possible)
        for account in known where model.accounts[account] == nil {
            tell("key \(account.key) of \(account.limit) was forgotten")
        }
        if models.count > Self.mostModels {
            for index in sessions.indices {
                guard let transaction = sessions[index].last?.transaction else { continue }
                if !models.allSatisfy({ $0.charged([transaction], as: model) }) { renewSession(index) }
            }
            models = distinct(models)
        }
        if models.count != before { tell("\(models.count) states are possible") }
    }

    // MARK: Forgetting

    /// What may be left if some of these keys, or none, were forgotten.
    private func forgettingSome(of accounts: [Model.Account], _ model: Model) -> [Model] {
        accounts.reduce([model]) { models, account in models + models.flatMap { $0.forgetting(account) } }
    }

    /// What may be left after the keys were forgotten that the service does not have any more.
    private func forgettingMissing(
        in model: Model, sparing spared: [Model.Account], mayForget: Bool, _ before: Model
    ) throws(Failure) -> [Model] {
        let missing = model.accounts.keys.filter { !spared.contains($0) && !stands($0, in: model) }
        for account in missing {
            guard service?.standing(account) == nil, mayForget, before.mayForget(account) else {
                throw Failure(kind: .counts, message: "key \(account.key) of \(account.limit) was changed or forgotten")
            }
        }
        return missing.reduce([model]) { models, account in models.flatMap { $0.forgetting(account) } }
    }

    /// The sample of the service holds all keys if the tables of its limits are as small as here.
    private func checkLeast(
        _ forgotten: [Model.Account], sparing own: [Model.Account], _ before: Model
    ) throws(Failure) {
        let forgotten = forgotten.filter { !own.contains($0) }
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
