// SPDX-License-Identifier: Apache-2.0

/// An address from the text of an action, as a command needs it. Postfix takes such text as it stands: what comes
/// before the last `@` is the local part, with every quote, comma and blank in it. In a command the local part is
/// quoted unless it is a dot-string (Postfix `quote_822_local.c`).
///
/// `a@example.org, b@example.com` is one address: `"a@example.org, b"@example.com`.
package func quotedAddress(_ address: [UInt8]) -> [UInt8] {
    var start = 0
    // A source route stays as it is.
    if address.first == UInt8(ascii: "@"), let colon = address.firstIndex(of: UInt8(ascii: ":")) { start = colon + 1 }
    let end = address[start...].lastIndex(of: UInt8(ascii: "@")) ?? address.endIndex
    let local = address[start..<end]
    // `<a@example.org>` of a limit is ready for a command.
    let isReady = address.first == UInt8(ascii: "<") && address.last == UInt8(ascii: ">")
    guard !isReady, !isDotString(local) else { return address }
    var quoted = address[..<start] + [UInt8(ascii: "\"")]
    for byte in local {
        if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { quoted.append(UInt8(ascii: "\\")) }
        quoted.append(byte)
    }
    quoted.append(UInt8(ascii: "\""))
    return Array(quoted + address[end...])
}

/// Whether Postfix sends the local part without quotes; bytes above 127 need none.
private func isDotString(_ local: ArraySlice<UInt8>) -> Bool {
    let dot = UInt8(ascii: ".")
    guard let first = local.first, first != dot, local.last != dot else { return false }
    var previous = first
    for byte in local {
        if byte <= 0x20 || byte == 0x7f || "()<>@,;:\\\"[]".utf8.contains(byte) { return false }
        if byte == dot, previous == dot, local.count > 1 { return false }
        previous = byte
    }
    return true
}
