// SPDX-License-Identifier: Apache-2.0
// Added to a copy of Sources/Limits by Tests/simulate-faults, together with the patches beside this file.
internal import Glibc

/// The promises that a copy of the sources can break.
package enum InjectedFault: String {
    case answerBeforeCommit = "answer-before-commit"
    case changeBeforeCommit = "change-before-commit"
    case chargeSurvives = "charge-survives"
    case damageIsDeleted = "damage-is-deleted"
    case damageIsFatal = "damage-is-fatal"
    case idleKey = "idle-key"
    case ignoredError = "ignored-error"
    case keptBlocks = "kept-blocks"
    case keptCharge = "kept-charge"
    case lostBlock = "lost-block"
    case mostUsed = "most-used"
    case neverSynced = "never-synced"
    case oneTooMany = "one-too-many"
    case repeatedCharge = "repeated-charge"
    case replayedTwice = "replayed-twice"
    case shortWindow = "short-window"
    case soundFileSetAside = "sound-file-set-aside"
    case wallClock = "wall-clock"

    /// WEIR_FAULT in the environment.
    fileprivate static let chosen = getenv("WEIR_FAULT").flatMap { InjectedFault(rawValue: String(cString: $0)) }
}

package func injected(_ fault: InjectedFault) -> Bool { InjectedFault.chosen == fault }
