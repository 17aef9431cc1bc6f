// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// A header whose addresses were repaired.
struct RepairedHeader {
    /// The number of the primary header.
    let ordinal: Int
    /// Its edit without the repairs; nil if it has none.
    let edit: Edit?
    /// A note and the repairs for each address.
    let notes: [(Note, AddressRepairs)]
}

extension MessageChecker {
    /// At most this many repaired addresses of a message are named in the log.
    private static let mostNotes = 100
    /// Bytes of an address in the log.
    private static let longestAddress = 200

    /// Repairs the addresses of a header. `outcome` is what the rules have made of it.
    mutating func repair(
        _ header: Header, _ text: UnsafeRawBufferPointer, _ ordinal: Int, _ outcome: Outcome
    ) -> Outcome {
        let line: [UInt8]
        var edit: Edit?
        switch outcome {
        case .drop: return outcome
        case .keep:
            guard !header.isCut, HeaderRepairer.repairs(text.fieldName) else { return outcome }
            line = Array(text)
            if !header.isVerbatim {
                edit = Edit(range: header.range, replacement: folded(line), header: ordinal, isFormal: true)
            }
        case .replace(let text):
            guard HeaderRepairer.repairs(text.fieldName) else { return outcome }
            line = text
            edit = Edit(range: header.range, replacement: folded(line), header: ordinal)
        }
        let start = line.firstIndex(of: UInt8(ascii: ":")).map { $0 + 1 } ?? line.count
        let changes = repairer.changes(in: line[start...])
        guard !changes.isEmpty else { return outcome }
        let name = Array(line.fieldName)
        let notes = changes.map { change in
            let old = Array(line[change.range].prefix(Self.longestAddress))
            let new = Array(change.new.prefix(Self.longestAddress))
            return (Note.addressRepaired(header: name, from: old, to: new, change.repairs), change.repairs)
        }
        repairedHeaders.append(RepairedHeader(ordinal: ordinal, edit: edit, notes: notes))
        var new = line
        for change in changes.reversed() { new.replaceSubrange(change.range, with: change.new) }
        return .replace(new)
    }

    /// Reports the repairs, or takes them back if they would break a signature. The signature may come after the
    /// headers.
    mutating func reportRepairs() {
        guard verdict.disposition == .accept else { return }
        let notes = repairedHeaders.flatMap(\.notes)
        if isSigned, !rules.checks.repairsSigned {
            takeBackRepairs()
            verdict.notes.append(.signedAddressesKept(notes.count))
            return
        }
        verdict.repairs = notes.map(\.1)
        verdict.notes += notes.prefix(Self.mostNotes).map(\.0)
        if notes.count > Self.mostNotes { verdict.notes.append(.moreAddressesRepaired(notes.count - Self.mostNotes)) }
    }

    private mutating func takeBackRepairs() {
        let edits = Dictionary(uniqueKeysWithValues: repairedHeaders.map { ($0.ordinal, $0.edit) })
        verdict.edits = verdict.edits.compactMap { edit in
            guard let ordinal = edit.header, !edit.range.isEmpty, let original = edits[ordinal] else { return edit }
            return original
        }
    }
}
