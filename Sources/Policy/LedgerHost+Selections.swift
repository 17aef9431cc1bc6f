// SPDX-License-Identifier: Apache-2.0
package import Limits
internal import Loop
package import Report

/// What administrators ask about many keys. The loop looks through the keys in pieces, changes them in pieces, and
/// answers requests in between.
extension LedgerHost {
    /// The number of keys of a selection, and how the `most` fullest of them stand, the fullest first.
    ///
    /// - Throws: `AdministrationFault`, `LedgerUnavailable`; `TooManyWalks` if too many others wait.
    package func keys(_ selection: KeySelection, most: Int) async throws -> KeyListing {
        typealias Answer = CheckedContinuation<(count: Int, standings: [Standing], clock: WallClock), any Error>
        let found = try await withCheckedThrowingContinuation { (answer: Answer) in
            loop.execute { [self] in
                var walk: SelectionWalk?
                var fullest: FullestWalk?
                var (count, hasMore) = (0, true)
                submit(to: listings, failed: { answer.resume(throwing: $0) }) { ledger in
                    var list = fullest.take() ?? ledger.fullestWalk(ofAdded: most)
                    if hasMore {
                        var current = try walk.take() ?? ledger.selectionWalk(selection)
                        hasMore = try ledger.advance(&current, steps: SelectionChange.stepsPerPiece)
                        let found = current.takeFound()
                        count += found.count
                        for account in found { list.add(account, at: ledger.now) }
                        walk = current
                    } else if !ledger.advance(&list, steps: SelectionChange.stepsPerPiece) {
                        answer.resume(returning: (count, list.result, WallClock(of: ledger)))
                        return false
                    }
                    fullest = list
                    return true
                }
            }
        }
        // Not on the ledger's loop: texts for people take most of the time.
        return KeyListing(count: found.count, keys: found.standings.map { KeyStanding($0, found.clock) })
    }

    /// Keys that contain `text`, in any spelling, and those that the text itself stands for.
    ///
    /// - Returns: nil while another search is under way.
    package func search(_ text: String) async throws -> KeySearch? {
        try await withCheckedThrowingContinuation { answer in
            loop.execute { [self] in
                var result = KeySearch(meant: [], found: [], isCut: false)
                var position = 0
                var walk: SelectionWalk?
                let failed = { (error: any Error) in
                    guard error is TooManyWalks else { return answer.resume(throwing: error) }
                    answer.resume(returning: nil)
                }
                submit(to: searches, failed: failed) { ledger in
                    if position < ledger.limits.count {
                        let piece = ledger.limits[position...].prefix(Self.limitsPerPiece)
                        position += Self.limitsPerPiece
                        result.meant += ledger.meanings(of: Array(text.utf8), in: piece).map(FoundKey.init)
                        return true
                    }
                    guard let pattern = KeyPattern(containing: text) else {
                        answer.resume(returning: result)
                        return false
                    }
                    let selection = KeySelection(limit: nil, pattern: pattern, state: .any)
                    var current = try walk.take() ?? ledger.selectionWalk(selection)
                    let hasMore = try ledger.advance(&current, steps: SelectionChange.stepsPerPiece)
                    result.add(current.takeFound(), most: SelectionChange.mostNames, in: ledger)
                    walk = current
                    if hasMore, !result.isCut { return true }
                    result.found.sort { ($0.key, $0.limit) < ($1.key, $1.limit) }
                    answer.resume(returning: result)
                    return false
                }
            }
        }
    }

    /// Carries out an administrator's change on all keys of a selection, if they are at most `most`, and adds it to the
    /// audit trail. Returns when the change is saved.
    ///
    /// - Parameter most: nil for any number.
    /// - Throws: `AdministrationFault`, `LedgerUnavailable`, `TooManyWalks`; `ChangeNotSaved` if the change is in
    ///   force all the same.
    package func apply(_ change: KeyChange, to selection: KeySelection, most: Int?) async throws -> KeysChanged {
        try await withCheckedThrowingContinuation { answer in
            loop.execute { [self] in
                var task = SelectionChange(change, to: selection, most: most)
                let failed = { [self] (error: any Error) in
                    if task.changed.count > 0 { record(task, "broken off") }
                    answer.resume(throwing: error)
                }
                submit(to: changes, failed: failed) { [self] ledger in
                    switch try task.step(in: ledger) {
                    case .more: return true
                    case .tooMany: answer.resume(returning: task.changed)
                    case .done: finish(task, answer)
                    }
                    return false
                }
            }
        }
    }

    /// The tick of the last step has not ended yet: the answer waits for its commit.
    private func finish(_ task: SelectionChange, _ answer: CheckedContinuation<KeysChanged, any Error>) {
        var changed = task.changed
        guard changed.count > 0 else { return answer.resume(returning: changed) }
        changed.note = task.note(onOthers: noteOnOthers(limits: task.limits))
        unsavedChanges.append { [self, changed] fault in
            record(task)
            if let fault {
                answer.resume(throwing: ChangeNotSaved(reason: fault.message))
            } else {
                answer.resume(returning: changed)
            }
        }
    }

    private func record(_ task: SelectionChange, _ ending: String? = nil) {
        let change = task.change
        let count = task.changed.count
        let details = [change.details, "\(count) key\(count == 1 ? "" : "s")", ending ?? ""].filter { !$0.isEmpty }
        record(
            change.action, of: change.key, by: user(of: change), details: details.joined(separator: ", "),
            reason: change.reason, limits: task.limits.sorted())
    }

    /// Ends the blocks that limits have set which a reload has made more generous. Blocks that begin after
    /// the reload stay.
    func endBlocks(of relaxed: [RelaxedLimit]) {
        for item in relaxed {
            var walk: SelectionWalk?
            var count = 0
            let text = "limit \(item.state.limit.name): its \(item.change)"
            let failed = { [log] (error: any Error) in log.warning("\(text), but blocks remain: \(error)") }
            submit(to: changes, failed: failed) { [log] ledger in
                var current =
                    walk.take() ?? ledger.selectionWalk(.blockedByLimit(before: item.generation), in: [item.state])
                let hasMore = try ledger.advance(&current, steps: SelectionChange.stepsPerPiece)
                count += try ledger.intervene(
                    .unblock, on: current.takeFound(), foundBy: current, by: .everywhere(user: "", reason: "")
                ).count
                walk = current
                if !hasMore, count > 0 { log.notice("\(text): ended \(count) blocks") }
                return hasMore
            }
        }
    }

    /// Puts a walk into a queue. `piece` returns whether there is more; its errors go to `failed`.
    func submit(
        to queue: WalkQueue, failed: @escaping (any Error) -> Void, _ piece: @escaping (Ledger) throws -> Bool
    ) {
        let isTaken = queue.submit { [self] in
            do {
                return try withLedger(piece)
            } catch {
                failed(error)
                return false
            }
        }
        if !isTaken { failed(TooManyWalks()) }
    }
}

extension KeySearch {
    fileprivate mutating func add(_ accounts: [Account], most: Int, in ledger: Ledger) {
        let clock = WallClock(of: ledger)
        isCut = accounts.count > most - found.count
        found += accounts.prefix(most - found.count).map {
            FoundKey(
                limit: $0.limit.limit.name, key: String(decoding: $0.key, as: UTF8.self), isKnown: true,
                standing: KeyStanding(ledger.standing(of: $0), clock))
        }
    }
}

extension FoundKey {
    fileprivate init(_ limit: String, _ key: [UInt8], _ isKnown: Bool) {
        self.init(limit: limit, key: String(decoding: key, as: UTF8.self), isKnown: isKnown)
    }
}
