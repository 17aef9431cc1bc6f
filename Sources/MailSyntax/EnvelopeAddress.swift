// SPDX-License-Identifier: Apache-2.0

/// Addresses of the envelope, as Postfix reads and writes them.
///
/// MAIL and RCPT have an address in its external form: `<"a b"@example.org>`, perhaps with phrases and comments. The
/// milter gets that argument as the client sent it. Postfix itself, and so the policy server, uses the internal form:
/// the address alone, without brackets and quotes, as `a b@example.org`. Its last `@` begins the domain.
package enum EnvelopeAddress {
    /// The internal form of the address in an argument of MAIL or RCPT (`extract_addr` in smtpd.c). Empty for the null
    /// reverse-path, and for an argument without an address.
    ///
    /// Postfix refuses an argument with several addresses. Of such an argument, this is the last one.
    package static func internalForm(of argument: [UInt8]) -> ArraySlice<UInt8> {
        let text = isBracketed(argument) ? argument[1..<argument.count - 1] : argument[...]
        if isPlain(text) { return text }
        return text.withUnsafeBytes { text in AddressTokens(text[routeEnd(of: text)...]).lastAddress }
    }

    /// The sender in its internal form, as smtpd names it to the policy server, except for its case.
    ///
    /// It differs from the argument of MAIL only for the `address_verify_sender` of the same Postfix. smtpd removes the
    /// time stamp of `address_verify_sender_ttl`, and writes the rest as main.cf does (verify_sender_addr.c).
    ///
    /// - Parameter resolved: the macro {mail_addr}. Postfix makes it of the sender without the time stamp, in lower
    ///   case (smtpd_resolve.c).
    package static func sender(of argument: [UInt8], resolved: [UInt8]) -> ArraySlice<UInt8> {
        let sender = internalForm(of: argument)
        let resolved = internalForm(of: resolved)
        guard sender.count > resolved.count else { return sender }
        let base = resolved.prefix { $0 != UInt8(ascii: "@") }
        let stamp = sender.dropFirst(base.count).prefix { $0.isAlphanumeric }
        guard !base.isEmpty, !stamp.isEmpty else { return sender }
        let bare = sender[..<stamp.startIndex] + sender[stamp.endIndex...]
        return isSame(bare, resolved) ? bare : sender
    }

    /// Whether both are the same, apart from ASCII case.
    package static func isSame(_ one: ArraySlice<UInt8>, _ other: ArraySlice<UInt8>) -> Bool {
        one.elementsEqual(other) { $0.lowercased == $1.lowercased }
    }

    /// Appends the external form of an internal one, without brackets (quote_822_local.c): the local part in quotes if
    /// it needs them.
    package static func appendExternal(_ address: some Collection<UInt8>, to text: inout [UInt8]) {
        let address = Array(address)
        let start = address.withUnsafeBytes { routeEnd(of: $0) }
        let end = address[start...].lastIndex(of: UInt8(ascii: "@")) ?? address.endIndex
        text += address[..<start]
        if isDotString(address[start..<end]) {
            text += address[start..<end]
        } else {
            text.append(UInt8(ascii: "\""))
            for byte in address[start..<end] {
                if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || byte == 0x0d {
                    text.append(UInt8(ascii: "\\"))
                }
                text.append(byte)
            }
            text.append(UInt8(ascii: "\""))
        }
        text += address[end...]
    }

    /// The external form in brackets, for MAIL and RCPT.
    package static func argument(_ address: some Collection<UInt8>) -> [UInt8] {
        var argument = [UInt8(ascii: "<")]
        if !address.isEmpty { appendExternal(address, to: &argument) }
        argument.append(UInt8(ascii: ">"))
        return argument
    }

    static func isBracketed(_ text: some BidirectionalCollection<UInt8>) -> Bool {
        text.count >= 2 && text.first == UInt8(ascii: "<") && text.last == UInt8(ascii: ">")
    }

    /// Where the address begins after its source route (`@a,@b:user@host`, RFC 5321 4.1.2). Postfix looks no further
    /// than the first colon.
    static func routeEnd(of address: UnsafeRawBufferPointer) -> Int {
        guard address.first == UInt8(ascii: "@") else { return 0 }
        return address.firstIndex(of: UInt8(ascii: ":")).map { $0 + 1 } ?? 0
    }

    /// Whether both forms of the text are the same, as for nearly all addresses. False also for some others.
    private static func isPlain(_ text: ArraySlice<UInt8>) -> Bool {
        text.withUnsafeBytes { text in
            for byte in text {
                switch byte {
                case UInt8(ascii: "("), UInt8(ascii: ")"), UInt8(ascii: "<"), UInt8(ascii: ">"), UInt8(ascii: "["),
                    UInt8(ascii: "]"), UInt8(ascii: "\\"), UInt8(ascii: "\""), UInt8(ascii: ","), UInt8(ascii: ":"),
                    UInt8(ascii: ";"), 0x20, 0x09, 0x0a, 0x0d:
                    return false
                default: break
                }
            }
            return true
        }
    }

    /// Whether a local part needs no quotes. As in Postfix, all bytes but `specials`, blanks and control characters can
    /// be in an atom.
    private static func isDotString(_ localPart: ArraySlice<UInt8>) -> Bool {
        var afterDot = true
        for byte in localPart {
            switch byte {
            case UInt8(ascii: "."):
                if afterDot { return false }
                afterDot = true
            case 0...0x20, 0x7f, UInt8(ascii: "("), UInt8(ascii: ")"), UInt8(ascii: "<"), UInt8(ascii: ">"),
                UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: "\\"), UInt8(ascii: "\""), UInt8(ascii: ","),
                UInt8(ascii: ":"), UInt8(ascii: ";"), UInt8(ascii: "@"):
                return false
            default: afterDot = false
            }
        }
        return !afterDot
    }
}
