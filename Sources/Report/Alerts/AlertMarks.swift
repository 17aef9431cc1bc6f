// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Synchronization

/// Marks in the header of alert mail. Weir's own milter exempts marked mail, because a limit must not stop the alert
/// about it.
///
/// Security: a mark has almost 128 random bits, is secret until the milter has seen it, and exempts one message. So
/// nobody can guess it, and the mark of a delivered message is useless.
package final class AlertMarks: Sendable {
    package static let header = "X-Weir-Alert"

    /// Lets the milter skip the lock for other mail.
    private let isExpected = Atomic(false)
    private let marks = Mutex<[[UInt8]]>([])

    /// Bound of remembered marks; the oldest are forgotten.
    private static let most = 100

    package init() {}

    package var isActive: Bool { isExpected.load(ordering: .relaxed) }

    /// A new mark, for a mail that is about to be sent.
    package func make() -> String {
        let mark = newMailMark()
        marks.withLock { marks in
            if marks.count == Self.most { marks.removeFirst() }
            marks.append(Array(mark.utf8))
        }
        isExpected.store(true, ordering: .relaxed)
        return mark
    }

    /// Whether this is the mark of an alert mail that the milter has not seen yet. Forgets the mark.
    ///
    /// - Parameter value: the value of the header.
    package func redeem(_ value: [UInt8]) -> Bool {
        marks.withLock { marks in
            let mark = value.drop(while: \.isBlank)
            guard let index = marks.firstIndex(where: mark.elementsEqual) else { return false }
            marks.remove(at: index)
            isExpected.store(!marks.isEmpty, ordering: .relaxed)
            return true
        }
    }
}
