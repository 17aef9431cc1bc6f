// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import Loop
internal import NIOCore
internal import Report
internal import Settings

/// Work between ticks: expiry, checkpoints, summaries.
extension LedgerHost {
    /// Runs every 50 ms between ticks: retries, the flush of the journal, and more upkeep if the loop is idle.
    func pause() {
        loop.assertInLoop()
        if NIODeadline.now() >= nextSummary { summarize() }
        let isBusy = isTickUnderWay
        if isBusy { endTick() }
        if NIODeadline.now() >= nextLook {
            nextLook = .now() + Self.retryInterval
            if let file = store?.lostFile { fail(Self.lost(file)) }
        }
        if let trouble {
            if NIODeadline.now() >= trouble.retryAt { retry(after: trouble) }
        } else {
            ledger?.beginTick()
            commit()
            flush()
            if !isBusy { upkeep(slots: Self.slotsPerPause) }
        }
    }

    /// Writes the batches that the store has held back (`durability: relaxed`).
    func flush() {
        guard trouble == nil else { return }
        do throws(StoreError) { try ledger?.flush() } catch { fail(error) }
    }

    static func lost(_ file: String) -> StoreError {
        StoreError(
            "\(file) was removed or replaced while it was in use: put it back, or restart the service to begin with an "
                + "empty ledger; the rest of the journal is then set aside")
    }

    func upkeep(slots: Int) {
        guard trouble == nil, let ledger else { return }
        switch ledger.maintain(slots: slots) {
        case nil:
            if unsaved != nil, ledger.isSaved {
                unsaved = nil
                log.notice("the ledger is saved again, with the counts that were held in memory")
                alerts.raise(recovery: Self.alertSubject, "is saved again")
            }
        case .checkpoint(let error):
            let loss =
                unsaved == nil
                ? "no counts are lost, but the journal grows"
                : "counts held in memory are lost if the service ends now"
            log.complain(
                .failedCheckpoint,
                "the checkpoint of the ledger failed: \(error.message); \(loss); retrying at least every minute. "
                    + "Check free space, permissions, and which process reads the file.")
        case .journal(let error):
            fail(error)
        }
    }

    /// Logs the highest counts since the last summary, in the manner of anvil(8).
    func summarize() {
        nextSummary = .now() + .seconds(configuration.log.summaryInterval)
        for limit in ledger?.limits ?? [] { observer.summarize(limit) }
    }
}
