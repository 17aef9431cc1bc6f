// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// How values become canonical, so that each sender has only one key.
package struct KeyForms: Equatable, Sendable {
    /// Number of leading bits of an IPv4 address that form its key.
    package var ipv4Prefix = 32
    /// Number of leading bits of an IPv6 address that form its key. One customer usually has a /64 or more.
    package var ipv6Prefix = 64
    /// Postfix's `recipient_delimiter`: `user+tag` counts as `user`. If empty, tags are part of the address.
    package var recipientDelimiter: [UInt8] = []
    /// The domain to add to a SASL login without one. If empty, such logins stay unchanged.
    package var defaultDomain: [UInt8] = []

    package init() {}
}

/// An attribute in a key or condition, and how its value becomes canonical.
package struct KeyPart: Equatable, Sendable {
    package enum Form: Sendable {
        case address, domain, host, login, network, verbatim
    }

    package let name: String
    package let attribute: Int
    package let form: Form

    /// `sender_domain`, `recipient_domain` and `sasl_domain` are the domain parts of the attributes they name.
    package init(_ name: String, in names: inout AttributeNames) {
        self.name = name
        switch name {
        case "sender_domain", "recipient_domain":
            attribute = names.index(of: String(name.dropLast("_domain".count)))
            form = .domain
        case "sasl_domain":
            attribute = names.index(of: "sasl_username")
            form = .domain
        default:
            attribute = names.index(of: name)
            form =
                switch name {
                case "sender", "recipient", "sasl_sender": .address
                case "sasl_username": .login
                case "client_address", "server_address": .network
                case "client_name", "reverse_client_name", "helo_name": .host
                default: .verbatim
                }
        }
    }

    /// Whether the value is the name of a domain or host.
    var isHost: Bool { form == .domain || form == .host }

    /// Whether the value depends on the recipient.
    package var isPerRecipient: Bool { name == "recipient" || name == "recipient_domain" }

    /// Whether `defaultDomain` applies to a value without a domain.
    fileprivate var takesDefaultDomain: Bool {
        switch form {
        case .address, .domain, .login: name.hasPrefix("sasl_")
        case .host, .network, .verbatim: false
        }
    }

    /// Appends the canonical value. Returns false without one: an empty attribute, the null sender, an address without
    /// domain.
    package func append(_ value: UnsafeRawBufferPointer, to key: inout [UInt8], forms: KeyForms) -> Bool {
        guard !value.isEmpty else { return false }
        switch form {
        case .verbatim,
            _ where isCanonical(value, forms: forms):
            key.append(contentsOf: value)
        case .host:
            // Postfix sends this for all clients whose name it can't find or verify.
            if name != "helo_name", value.elementsEqual("unknown".utf8) { return false }
            key.append(contentsOf: CanonicalAddress.folded(value))
        case .network:
            return Self.appendNetwork(value, to: &key, forms: forms)
        case .domain where Self.isPlainAddress(value, delimiters: []):
            key.append(contentsOf: value[(value.lastIndex(of: UInt8(ascii: "@"))! + 1)...])
        case .address, .domain, .login:
            return appendAddress(value, to: &key, forms: forms)
        }
        return true
    }

    /// The canonical form of a value; nil without one.
    package func canonical(_ value: [UInt8], forms: KeyForms) -> [UInt8]? {
        var canonical: [UInt8] = []
        return value.withUnsafeBytes { append($0, to: &canonical, forms: forms) } ? canonical : nil
    }

    /// A quick test whether a value is already canonical, as most values are. False also for some canonical values.
    fileprivate func isCanonical(_ value: UnsafeRawBufferPointer, forms: KeyForms) -> Bool {
        switch form {
        case .verbatim: true
        case .network: forms.ipv4Prefix == 32 && Self.isDotted(value)
        case .address: Self.isPlainAddress(value, delimiters: forms.recipientDelimiter)
        case .login: Self.isPlainAddress(value, delimiters: forms.recipientDelimiter, foldsLocalPart: true)
        case .host: Self.isPlainHost(value) && (name == "helo_name" || !value.elementsEqual("unknown".utf8))
        case .domain: false
        }
    }

    /// Appends the canonical form of an administrator's input, which can be a value of a request or its canonical form.
    /// Returns false if no request can have such a value.
    fileprivate func append(written value: UnsafeRawBufferPointer, to key: inout [UInt8], forms: KeyForms) -> Bool {
        switch form {
        case .network:
            return Self.append(writtenNetwork: value, to: &key, forms: forms)
        case .domain:
            // Reject a whole address: an action meant for one user must not apply to the whole domain.
            let name = value.first == UInt8(ascii: "@") ? value.dropFirst() : value[...]
            guard !name.isEmpty, !name.contains(UInt8(ascii: "@")) else { return false }
            key.append(contentsOf: CanonicalAddress.folded(name))
            return true
        case .address, .host, .login, .verbatim:
            return append(value, to: &key, forms: forms)
        }
    }

    private static func append(
        writtenNetwork value: UnsafeRawBufferPointer, to key: inout [UInt8], forms: KeyForms
    ) -> Bool {
        let slash = value.firstIndex(of: UInt8(ascii: "/"))
        let text = Array(value[..<(slash ?? value.endIndex)])
        guard let address = IPAddress(text) else { return false }
        let length = address.isIPv4 ? forms.ipv4Prefix : forms.ipv6Prefix
        if let slash, !value[(slash + 1)...].elementsEqual(String(length).utf8) { return false }
        return text.withUnsafeBytes { appendNetwork($0, to: &key, forms: forms) }
    }

    private func appendAddress(_ value: UnsafeRawBufferPointer, to key: inout [UInt8], forms: KeyForms) -> Bool {
        var address = CanonicalAddress(value, delimiters: forms.recipientDelimiter)
        if !InternationalText.isASCII(address.localPart) {
            address.localPart =
                form == .login
                ? InternationalText.folded(address.localPart) : InternationalText.composed(address.localPart)
        } else if form == .login {
            address.localPart = address.localPart.map(\.lowercased)
        }
        if address.domain.isEmpty, takesDefaultDomain { address.domain = forms.defaultDomain }
        if form == .domain {
            key.append(contentsOf: address.domain)
            return !address.domain.isEmpty
        }
        guard !address.localPart.isEmpty || !address.domain.isEmpty else { return false }
        key.append(contentsOf: address.localPart)
        if !address.domain.isEmpty {
            key.append(UInt8(ascii: "@"))
            key.append(contentsOf: address.domain)
        }
        return true
    }

    private static func isPlainAddress(
        _ value: UnsafeRawBufferPointer, delimiters: [UInt8], foldsLocalPart: Bool = false
    ) -> Bool {
        var inDomain = false
        for byte in value {
            switch byte {
            case UInt8(ascii: "@"):
                if inDomain { return false }
                inDomain = true
            case UInt8(ascii: "<"), UInt8(ascii: ":"), 0x80...0xff:
                return false
            case UInt8(ascii: "A")...UInt8(ascii: "Z") where inDomain || foldsLocalPart:
                return false
            default:
                if !inDomain, !delimiters.isEmpty, delimiters.contains(byte) { return false }
            }
        }
        return inDomain && value.last != UInt8(ascii: ".") && value.last != UInt8(ascii: "@")
    }

    private static func isPlainHost(_ value: UnsafeRawBufferPointer) -> Bool {
        for byte in value where byte >= 0x80 || byte != byte.lowercased { return false }
        return value.last != UInt8(ascii: ".")
    }

    private static func isDotted(_ value: UnsafeRawBufferPointer) -> Bool {
        for byte in value where byte &- UInt8(ascii: "0") >= 10 && byte != UInt8(ascii: ".") { return false }
        return true
    }

    /// `192.0.2.1`, `192.0.2.0/24` or `2001:db8::/64`; a value that is no address is taken as it is.
    private static func appendNetwork(_ value: UnsafeRawBufferPointer, to key: inout [UInt8], forms: KeyForms) -> Bool {
        guard let address = IPAddress(value) else {
            if value.elementsEqual("unknown".utf8) { return false }
            key.append(contentsOf: value)
            return true
        }
        let length = address.isIPv4 ? forms.ipv4Prefix : forms.ipv6Prefix
        address.prefix(length).append(to: &key)
        if length < address.bits { key.append(contentsOf: "/\(length)".utf8) }
        return true
    }
}

/// The attributes that form the key of a limit.
package struct KeyDefinition: Equatable, Sendable {
    /// Maximum length in bytes. A longer key is cut and ends in its hash, so clients can't make keys use more memory.
    package static let longest = 256

    package let parts: [KeyPart]
    package let forms: KeyForms

    package init(parts: [KeyPart], forms: KeyForms) {
        self.parts = parts
        self.forms = forms
    }

    package var isPerRecipient: Bool { parts.contains(where: \.isPerRecipient) }

    /// Identifies the meaning of the keys. The store compares it after a restart (`Limit.signature`). Forms that apply
    /// to none of the parts have their default values here, so changing them keeps the counts.
    package var signature: String {
        var used = KeyForms()
        for part in parts {
            switch part.form {
            case .network: (used.ipv4Prefix, used.ipv6Prefix) = (forms.ipv4Prefix, forms.ipv6Prefix)
            case .address, .login: used.recipientDelimiter = forms.recipientDelimiter
            case .domain, .host, .verbatim: break
            }
            if part.takesDefaultDomain { used.defaultDomain = forms.defaultDomain }
        }
        return parts.map(\.name).joined(separator: "|") + " /\(used.ipv4Prefix) /\(used.ipv6Prefix)"
            + " delimiter=\(String(decoding: used.recipientDelimiter, as: UTF8.self))"
            + " domain=\(String(decoding: used.defaultDomain, as: UTF8.self))"
    }

    /// Builds the key of a request in `key`. Returns false if a part has no value, and so the limit does not apply.
    ///
    /// Several parts are joined by `|`, and `\` escapes `|` and `\` inside them.
    package func build(_ attributes: Attributes, into key: inout [UInt8]) -> Bool {
        join(into: &key) { part, _, key in part.append(attributes[part.attribute], to: &key, forms: forms) }
    }

    /// The key, if it is a value of the request without any change; otherwise nil, and `build` has to be called.
    func asItStands(in attributes: Attributes) -> UnsafeRawBufferPointer? {
        guard parts.count == 1 else { return nil }
        let value = attributes[parts[0].attribute]
        guard 1...Self.longest ~= value.count, parts[0].isCanonical(value, forms: forms) else { return nil }
        return value
    }

    /// The key for an administrator's input: values of a request joined by `|`, or a key as Weir prints it. nil if no
    /// request can have such a key.
    package func canonical(_ text: [UInt8]) -> [UInt8]? {
        let values = values(of: text)
        guard values.count == parts.count else { return nil }
        var key: [UInt8] = []
        let isKey = join(into: &key) { part, index, key in
            values[index].withUnsafeBytes { part.append(written: $0, to: &key, forms: forms) }
        }
        return isKey ? key : nil
    }

    /// Splits a key into the values of its parts.
    func values(of key: [UInt8]) -> [[UInt8]] {
        guard parts.count > 1 else { return [key] }
        var values: [[UInt8]] = [[]]
        var escaped = false
        for byte in key {
            if escaped || (byte != UInt8(ascii: "\\") && byte != UInt8(ascii: "|")) {
                values[values.count - 1].append(byte)
                escaped = false
            } else if byte == UInt8(ascii: "\\") {
                escaped = true
            } else {
                values.append([])
            }
        }
        return values
    }

    @inline(__always)
    private func join(into key: inout [UInt8], _ append: (KeyPart, Int, inout [UInt8]) -> Bool) -> Bool {
        key.removeAll(keepingCapacity: true)
        for (index, part) in parts.enumerated() {
            if index > 0 { key.append(UInt8(ascii: "|")) }
            let start = key.count
            guard append(part, index, &key) else { return false }
            if parts.count > 1 { Self.escape(&key, from: start, most: longestPart) }
        }
        if key.count > Self.longest { Self.shorten(&key, from: 0, to: Self.longest) }
        return true
    }

    /// Maximum length of each part in bytes. With equal shares, a long value can't push the other parts out of the key.
    private var longestPart: Int { (Self.longest - parts.count + 1) / parts.count }

    private static func escape(_ key: inout [UInt8], from start: Int, most: Int) {
        let escapes = key[start...].count { isEscaped($0) }
        if key.count - start + escapes > most {
            // Half of it: every remaining byte may need an escape.
            shorten(&key, from: start, to: most / 2)
        }
        var index = start
        while index < key.count {
            if isEscaped(key[index]) {
                key.insert(UInt8(ascii: "\\"), at: index)
                index += 1
            }
            index += 1
        }
    }

    private static func isEscaped(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "|") || byte == UInt8(ascii: "\\") }

    /// Cuts the bytes from `start` on to `length` bytes, which end in `#` and a hash of the whole.
    private static func shorten(_ key: inout [UInt8], from start: Int, to length: Int) {
        var hash = SipHash(key: .init(low: 0, high: 0))
        key.withUnsafeBytes { hash.combine(UnsafeRawBufferPointer(rebasing: $0[start...])) }
        let digest = String(hash.finalize(), radix: 16)
        let end = start + max(length - digest.utf8.count - 1, 0)
        if end < key.count { key.removeSubrange(end...) }
        key.append(UInt8(ascii: "#"))
        key.append(contentsOf: digest.utf8)
    }
}
