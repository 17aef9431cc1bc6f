// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Edits of what a DKIM signature covers (RFC 6376).
extension MessageChecker {
    /// At most this many signatures of a message are looked at.
    private static let mostSignatures = 10
    private static let mostNames = 20

    /// Remembers a DKIM-Signature until the edits are known.
    mutating func keepSignature(_ header: UnsafeRawBufferPointer) {
        guard rules.mayEdit, signatures.count < Self.mostSignatures else { return }
        signatures.append(Array(header))
    }

    /// Remembers that a rule has changed, removed or added a primary header.
    mutating func noteChange(of header: some Collection<UInt8>, isAdded: Bool = false) {
        let change = ChangedHeader(name: header.fieldName.map(\.lowercased), isAdded: isAdded)
        if changed.count < Self.mostNames, !changed.contains(change) { changed.append(change) }
    }

    /// Says which edits break a signature. Weir does not know whether a signature is valid.
    mutating func reportBrokenSignatures() {
        guard verdict.disposition == .accept else { return }
        if rules.checks.repairsSigned {
            for case .addressRepaired(let header, _, _, _) in repairedHeaders.flatMap({ $0.notes.map(\.0) }) {
                noteChange(of: header)
            }
        }
        let names = signatures.map(Self.signedNames)
        let headers = changed.filter { change in
            // A signature covers the lowest headers of a name. One more at the top matters if `h=` has the name more
            // often than there are headers.
            names.contains { $0.count { $0 == change.name } > (change.isAdded ? 1 : 0) }
        }
        let changesBody = verdict.edits.contains { $0.header == nil && !$0.isFormal }
        guard !headers.isEmpty || changesBody else { return }
        var shown: [[UInt8]] = []
        for header in headers where !shown.contains(header.name) { shown.append(header.name) }
        verdict.notes.append(.brokenSignatures(headers: shown, body: changesBody))
    }

    /// The names in the `h=` tag, in lower case.
    private static func signedNames(_ signature: [UInt8]) -> [[UInt8]] {
        for tag in signature.dropFirst("DKIM-Signature:".utf8.count).split(separator: UInt8(ascii: ";")) {
            let tag = tag.filter { !$0.isSpace }
            guard tag.starts(with: "h=".utf8) else { continue }
            return tag.dropFirst(2).split(separator: UInt8(ascii: ":")).map { $0.map(\.lowercased) }
        }
        return []
    }
}

/// A primary header that a rule has changed, removed or added.
struct ChangedHeader: Equatable {
    /// In lower case.
    let name: [UInt8]
    let isAdded: Bool
}
