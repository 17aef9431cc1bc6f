// SPDX-License-Identifier: Apache-2.0

/// An IPv4 or IPv6 address as 128 bits. An IPv4 address is in the low 32 bits.
package struct IPAddress: Hashable, Sendable {
    package private(set) var high: UInt64
    package private(set) var low: UInt64
    package let isIPv4: Bool

    /// Parses `192.0.2.1`, `2001:db8::1`, `::ffff:192.0.2.1` (which becomes IPv4), and the forms `[...]` and `IPv6:` of
    /// Postfix.
    package init?(_ text: some BidirectionalCollection<UInt8>) {
        var text = text[...]
        if text.first == UInt8(ascii: "["), text.last == UInt8(ascii: "]"), text.count > 2 {
            text = text.dropFirst().dropLast()
        }
        let prefix = text.prefix(5)
        if prefix.count == 5, prefix.elementsEqual("IPv6:".utf8, by: { $0 | 0x20 == $1 | 0x20 }) {
            text = text.dropFirst(5)
        }
        if text.contains(UInt8(ascii: ":")) {
            guard let (high, low) = Self.ipv6(text) else { return nil }
            let isMapped = high == 0 && low >> 32 == 0xffff
            self.init(high: high, low: isMapped ? low & 0xffff_ffff : low, isIPv4: isMapped)
        } else {
            guard let address = Self.ipv4(text) else { return nil }
            self.init(high: 0, low: UInt64(address), isIPv4: true)
        }
    }

    package init?(_ text: String) {
        self.init(Array(text.utf8))
    }

    private init(high: UInt64, low: UInt64, isIPv4: Bool) {
        self.high = high
        self.low = low
        self.isIPv4 = isIPv4
    }

    package var bits: Int { isIPv4 ? 32 : 128 }

    /// The address with all bits after the first `length` cleared.
    package func prefix(_ length: Int) -> IPAddress {
        var masked = self
        if isIPv4 {
            masked.low &= length == 0 ? 0 : (0xffff_ffff << UInt64(32 - length)) & 0xffff_ffff
        } else {
            masked.high &= length >= 64 ? .max : length == 0 ? 0 : .max << UInt64(64 - length)
            masked.low &= length == 128 ? .max : length <= 64 ? 0 : .max << UInt64(128 - length)
        }
        return masked
    }

    /// The address with its bit number `number`, counted from 1, changed.
    fileprivate func flippingBit(_ number: Int) -> IPAddress {
        var flipped = self
        let place = bits - number
        if place < 64 { flipped.low ^= 1 << UInt64(place) } else { flipped.high ^= 1 << UInt64(place - 64) }
        return flipped
    }

    /// Appends the address in its shortest form (RFC 5952).
    package func append(to text: inout [UInt8]) {
        if isIPv4 {
            for shift in [24, 16, 8, 0] as [UInt64] {
                if shift != 24 { text.append(UInt8(ascii: ".")) }
                text.append(contentsOf: String((low >> shift) & 0xff).utf8)
            }
            return
        }
        let groups = (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> UInt64(48 - 16 * ($0 % 4))) }
        let gap = Self.longestRunOfZeros(groups)
        var index = 0
        while index < 8 {
            if index == gap.lowerBound, gap.count > 1 {
                text.append(contentsOf: "::".utf8)
                index = gap.upperBound
            } else {
                if index > 0, index != gap.upperBound || gap.count < 2 { text.append(UInt8(ascii: ":")) }
                text.append(contentsOf: String(groups[index], radix: 16).utf8)
                index += 1
            }
        }
    }

    private static func longestRunOfZeros(_ groups: [UInt16]) -> Range<Int> {
        var longest = 0..<0
        var start = 0
        for index in 0...groups.count where index == groups.count || groups[index] != 0 {
            if index - start > longest.count { longest = start..<index }
            start = index + 1
        }
        return longest
    }

    private static func ipv4(_ text: some Collection<UInt8>) -> UInt32? {
        var value: UInt32 = 0
        var octets = 0
        for part in text.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
            guard (1...3).contains(part.count), part.count == 1 || part.first != UInt8(ascii: "0"),
                part.allSatisfy({ $0 &- UInt8(ascii: "0") < 10 })
            else { return nil }
            let octet = part.reduce(UInt32(0)) { $0 * 10 + UInt32($1 - UInt8(ascii: "0")) }
            guard octet < 256 else { return nil }
            value = value << 8 | octet
            octets += 1
        }
        return octets == 4 ? value : nil
    }

    private static func ipv6(_ text: some BidirectionalCollection<UInt8>) -> (high: UInt64, low: UInt64)? {
        let parts = text.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard (3...9).contains(parts.count) else { return nil }
        var groups: [UInt16] = []
        var gap: Int?
        for (index, part) in parts.enumerated() {
            if part.isEmpty {
                let atEdge = index == 0 || index == parts.count - 1
                if atEdge {
                    guard parts[index == 0 ? 1 : index - 1].isEmpty else { return nil }
                    continue
                }
                guard gap == nil else { return nil }
                gap = groups.count
            } else if index == parts.count - 1, part.contains(UInt8(ascii: ".")) {
                guard let address = ipv4(part) else { return nil }
                groups += [UInt16(truncatingIfNeeded: address >> 16), UInt16(truncatingIfNeeded: address)]
            } else {
                guard part.count <= 4, let group = hexadecimal(part) else { return nil }
                groups.append(group)
            }
        }
        if let gap {
            guard groups.count < 8 else { return nil }
            groups.insert(contentsOf: repeatElement(0, count: 8 - groups.count), at: gap)
        }
        guard groups.count == 8 else { return nil }
        let halves = [groups[..<4], groups[4...]].map { $0.reduce(UInt64(0)) { $0 << 16 | UInt64($1) } }
        return (halves[0], halves[1])
    }

    private static func hexadecimal(_ digits: some Collection<UInt8>) -> UInt16? {
        var value: UInt16 = 0
        for byte in digits {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt16(byte - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt16(byte - UInt8(ascii: "a") + 10)
            case UInt8(ascii: "A")...UInt8(ascii: "F"): value = value << 4 | UInt16(byte - UInt8(ascii: "A") + 10)
            default: return nil
            }
        }
        return value
    }
}

/// A network in CIDR form.
package struct Network: Hashable, Sendable, CustomStringConvertible {
    package let address: IPAddress
    package let prefixLength: Int

    /// Parses `192.0.2.0/24`, `[2001:db8::]/32`, `[2001:db8::/32]` or a single address. As in Postfix, bits after the
    /// prefix must be zero. A network of mapped addresses becomes IPv4, as clients do: `[::ffff:127.0.0.0]/104` is
    /// `127.0.0.0/8`.
    package init?(_ text: some BidirectionalCollection<UInt8>) {
        var text = text[...]
        if text.first == UInt8(ascii: "["), text.last == UInt8(ascii: "]"), text.contains(UInt8(ascii: "/")) {
            text = text.dropFirst().dropLast()
        }
        let slash = text.lastIndex(of: UInt8(ascii: "/"))
        let host = text[..<(slash ?? text.endIndex)]
        guard let address = IPAddress(host) else { return nil }
        var length = address.bits
        if let slash {
            guard let given = Self.length(text[text.index(after: slash)...], of: address, in: host) else { return nil }
            length = given
        }
        guard address.prefix(length) == address else { return nil }
        self.address = address
        prefixLength = length
    }

    private init(_ address: IPAddress, prefixLength: Int) {
        self.address = address
        self.prefixLength = prefixLength
    }

    /// A prefix length, which counts the bits of `host` as it is written; nil if it is out of range.
    private static func length(
        _ digits: some Collection<UInt8>, of address: IPAddress, in host: some Collection<UInt8>
    ) -> Int? {
        // Only digits, as in Postfix: `Int.init` also accepts a sign.
        guard digits.allSatisfy({ $0 &- UInt8(ascii: "0") < 10 }),
            let given = Int(String(decoding: digits, as: UTF8.self))
        else { return nil }
        let length = address.isIPv4 && host.contains(UInt8(ascii: ":")) ? given - 96 : given
        return (0...address.bits).contains(length) ? length : nil
    }

    package init?(_ text: String) {
        self.init(Array(text.utf8))
    }

    /// The loopback networks.
    package static let loopback = [Network("127.0.0.0/8")!, Network("::1")!]

    /// The network of an address with bits set after its prefix; nil for any other text.
    package static func masked(_ text: String) -> String? {
        let bytes = Array(text.utf8)
        let isBracketed = bytes.first == UInt8(ascii: "[") && bytes.last == UInt8(ascii: "]")
        let inner = isBracketed ? bytes.dropFirst().dropLast() : bytes[...]
        guard let slash = inner.lastIndex(of: UInt8(ascii: "/")), let address = IPAddress(inner[..<slash]),
            let length = length(inner[(slash + 1)...], of: address, in: inner[..<slash]),
            address.prefix(length) != address
        else { return nil }
        return Network(address.prefix(length), prefixLength: length).description
    }

    /// The networks that together are this one without `other`.
    package func subtracting(_ other: Network) -> [Network] {
        guard contains(other.address) || other.contains(address) else { return [self] }
        guard other.prefixLength > prefixLength else { return [] }
        // Each longer prefix of the other network has one sibling that is not in it.
        return (prefixLength + 1...other.prefixLength).map {
            Network(other.address.prefix($0).flippingBit($0), prefixLength: $0)
        }
    }

    package var description: String {
        var text: [UInt8] = []
        address.append(to: &text)
        return "\(String(decoding: text, as: UTF8.self))/\(prefixLength)"
    }

    package func contains(_ other: IPAddress) -> Bool {
        other.isIPv4 == address.isIPv4 && other.prefix(prefixLength) == address
    }
}
