// SPDX-License-Identifier: Apache-2.0

/// A mail address of the envelope in its canonical form, so that each mailbox has one key.
///
/// This removes source routes, which Postfix removes from recipients in several places, and a trailing dot of the
/// domain. The domain is in lower case and A-labels. The local part keeps its case: only the receiving host may
/// interpret it (RFC 5321 2.4).
package struct CanonicalAddress: Equatable, Sendable {
    package var localPart: [UInt8]
    /// Empty if the address has none.
    package var domain: [UInt8]

    /// - Parameters:
    ///   - address: the internal form (see `EnvelopeAddress`), or an external form in brackets. Postfix accepts no
    ///     internal form that begins and ends with a bracket.
    ///   - delimiters: Postfix's `recipient_delimiter`. The address extension after the first of them is removed if
    ///     Postfix would remove it.
    package init(_ address: UnsafeRawBufferPointer, delimiters: [UInt8] = []) {
        if EnvelopeAddress.isBracketed(address) {
            let internalForm = EnvelopeAddress.internalForm(of: Array(address))
            self = internalForm.withUnsafeBytes { CanonicalAddress(internalForm: $0[...], delimiters) }
        } else {
            self.init(internalForm: address[...], delimiters)
        }
    }

    private init(internalForm: Slice<UnsafeRawBufferPointer>, _ delimiters: [UInt8]) {
        var bytes = internalForm
        while bytes.first == UInt8(ascii: "@"), let colon = bytes.firstIndex(of: UInt8(ascii: ":")) {
            bytes = bytes[(colon + 1)...]
        }
        // An empty domain is none, as with `resolve_null_domain` of Postfix. Some characters of a domain stand for
        // nothing (IDNA).
        domain = []
        while domain.isEmpty, let at = bytes.lastIndex(of: UInt8(ascii: "@")) {
            domain = Self.folded(bytes[(at + 1)...])
            bytes = bytes[..<at]
        }
        localPart = Array(bytes)
        if let cut = localPart.firstIndex(where: delimiters.contains), cut > 0,
            !Self.isReserved(localPart, delimiters: delimiters)
        {
            localPart.removeSubrange(cut...)
        }
    }

    /// The internal form.
    package var bytes: [UInt8] { domain.isEmpty ? localPart : localPart + [UInt8(ascii: "@")] + domain }

    /// Whether Postfix never splits the local part (global/split_addr.c).
    private static func isReserved(_ localPart: [UInt8], delimiters: [UInt8]) -> Bool {
        let folded = localPart.map(\.lowercased)
        if folded == Array("mailer-daemon".utf8) || folded == Array("double-bounce".utf8) { return true }
        guard delimiters.contains(UInt8(ascii: "-")) else { return false }
        let request = Array("-request".utf8)
        return folded.starts(with: "owner-".utf8)
            || folded.count > request.count && folded.suffix(request.count) == request[...]
    }

    /// A domain or host name in lower case and A-labels, without trailing dots.
    package static func folded(_ name: some BidirectionalCollection<UInt8>) -> [UInt8] {
        var bytes = name.map(\.lowercased)
        if !InternationalText.isASCII(bytes) { bytes = InternationalText.asciiDomain(bytes) }
        while bytes.count > 1, bytes.last == UInt8(ascii: ".") { bytes.removeLast() }
        return bytes
    }
}
