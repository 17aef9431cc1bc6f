// SPDX-License-Identifier: Apache-2.0

/// An address from the text of an action, as a command needs it. Postfix takes such text as it stands: what comes
/// before the last `@` is the local part, with every quote, comma and blank in it. In a command the local part is
/// quoted unless it is a dot-string.
///
/// `a@example.org, b@example.com` is one address: `"a@example.org, b"@example.com`.
package func quotedAddress(_ address: [UInt8]) -> [UInt8] {
    // `<a@example.org>` of a limit is ready for a command.
    if EnvelopeAddress.isBracketed(address) { return address }
    var quoted: [UInt8] = []
    EnvelopeAddress.appendExternal(address, to: &quoted)
    return quoted
}
