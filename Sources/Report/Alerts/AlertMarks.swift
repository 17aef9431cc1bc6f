// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Synchronization

/// What alert mail is known by when it comes back through Weir's own milter, where a limit must not hold the mail that
/// tells of it.
///
/// Security: a mark has 128 random bits, is seen by nobody before the milter has it, and lets one message pass; so it can't be
/// forged, and one that was delivered is worth nothing.
package final class AlertMarks: Sendable {
    package static let header = "X-Weir-Alert"

    /// What all mail looks at.
    private let isExpected = Atomic(false)
    private let marks = Mutex<[[UInt8]]>([])

    /// Beyond, those of the oldest mail are forgotten.
    private static let most = 100

    package init() {}

    package var isActive: Bool { isExpected.load(ordering: .relaxed) }

    /// For a mail that goes out now.
    package func make() -> String {
        let mark = (0..<4).map { _ in String(UInt32.random(in: 0x1000_0000...(.max)), radix: 16) }.joined()
        marks.withLock { marks in
            if marks.count == Self.most { marks.removeFirst() }
            marks.append(Array(mark.utf8))
        }
        isExpected.store(true, ordering: .relaxed)
        return mark
    }

    /// Whether this is the mark of a mail that was on its way.
    ///
    /// - Parameter value: of the header.
    package func take(_ value: [UInt8]) -> Bool {
        marks.withLock { marks in
            let mark = value.drop(while: \.isBlank)
            guard let index = marks.firstIndex(where: mark.elementsEqual) else { return false }
            marks.remove(at: index)
            isExpected.store(!marks.isEmpty, ordering: .relaxed)
            return true
        }
    }
}
