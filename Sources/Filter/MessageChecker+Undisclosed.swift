// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// A recipient header that was stripped because it names nobody.
struct StrippedHeader {
    let name: HeaderName
    /// The number of the primary header.
    let ordinal: Int
    /// In the message.
    let offset: Int
    /// Whether the header is as the client has sent it, not as a rule has written it.
    let isOriginal: Bool
    /// What stands in its place if it stays; nil if it stays as it is.
    let formal: [UInt8]?
}

extension MessageChecker {
    /// Drops an undisclosed-recipients header. `outcome` is what the rules have made of it.
    mutating func strip(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ ordinal: Int, _ outcome: Outcome
    ) -> Outcome {
        let anyName = rules.checks.undisclosedRecipients == .anyEmptyGroup
        var isOriginal = false
        switch outcome {
        case .drop: return outcome
        case .keep:
            // The part beyond the limit may name a recipient.
            guard header.name.isVisibleRecipient, !header.isCut, isEmptyGroup(text, anyName: anyName) else {
                return outcome
            }
            isOriginal = true
        case .replace(let text):
            guard text.withUnsafeBytes({ HeaderName(of: $0).isVisibleRecipient }), isEmptyGroup(text, anyName: anyName)
            else { return outcome }
        }
        stripped.append(
            StrippedHeader(
                name: header.name, ordinal: ordinal, offset: header.range.lowerBound, isOriginal: isOriginal,
                formal: header.isVerbatim ? nil : folded(Array(text))))
        return .drop
    }

    /// Reports the stripped headers when all signatures are known.
    mutating func reportStripped() {
        if rules.checks.keepsSigned, !signed.isEmpty { restoreSigned() }
        guard let first = stripped.first else { return }
        verdict.notes.append(.undisclosedRecipients(offset: first.offset, more: stripped.count - 1))
        for name in Set(stripped.map(\.name)).intersection(signed).map(\.text).sorted() {
            verdict.notes.append(.brokenSignature(header: name))
        }
    }

    /// Takes back what would break a signature.
    private mutating func restoreSigned() {
        let kept = stripped.filter { $0.isOriginal && signed.contains($0.name) }
        guard let first = kept.first else { return }
        let formal = Dictionary(uniqueKeysWithValues: kept.map { ($0.ordinal, $0.formal) })
        verdict.edits = verdict.edits.compactMap { edit in
            guard let ordinal = edit.header, !edit.range.isEmpty, let formal = formal[ordinal] else { return edit }
            guard let formal else { return nil }
            var edit = edit
            (edit.replacement, edit.isFormal) = (formal, true)
            return edit
        }
        stripped.removeAll { formal.keys.contains($0.ordinal) }
        verdict.notes.append(.signedHeaderKept(offset: first.offset, more: kept.count - 1))
    }
}

extension HeaderName {
    /// The name of a recipient header.
    fileprivate var text: String {
        switch self {
        case .cc: "Cc"
        case .resentTo: "Resent-To"
        case .resentCc: "Resent-Cc"
        default: "To"
        }
    }
}
