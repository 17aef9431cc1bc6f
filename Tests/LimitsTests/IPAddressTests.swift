// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

@Suite struct IPAddressTests {
    private func text(_ address: IPAddress) -> String {
        var bytes: [UInt8] = []
        address.append(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Each address and its shortest form (RFC 5952 4).
    @Test(arguments: [
        ("192.0.2.1", "192.0.2.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("IPv6:2001:db8::1", "2001:db8::1"),
        ("[IPv6:2001:DB8::1]", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::", "::"),
        ("::1", "::1"),
        ("1::", "1::"),
        ("2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
        ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
        ("::192.0.2.1", "::c000:201"),
        ("2001:db8:1:2:3:4:192.0.2.1", "2001:db8:1:2:3:4:c000:201"),
    ])
    func shortestForm(written: String, expected: String) throws {
        #expect(text(try #require(IPAddress(written))) == expected)
    }

    @Test(arguments: [
        "", " ", "192.0.2", "192.0.2.1.", ".192.0.2.1", "192.0.2.1.1", "192.0.2.256", "192.0.02.1", "192.0..1",
        "192.0.2.-1",
        "192.0.2.1 ", "1921", "a.b.c.d", ":", ":::", "1::2::3", ":1:2:3:4:5:6:7", "1:2:3:4:5:6:7:", "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9", "1::2:3:4:5:6:7:8", "12345::", "g::", "192.0.2.1::", "::192.0.2",
        "1:2:3:4:5:6:7:192.0.2.1", "[]",
        "[::1", "fe80::1%eth0", "unknown", "IPv6:",
    ])
    func isNoAddress(text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test(arguments: [
        ("192.0.2.255", 24, "192.0.2.0"), ("192.0.2.255", 25, "192.0.2.128"), ("192.0.2.255", 0, "0.0.0.0"),
        ("192.0.2.255", 32, "192.0.2.255"), ("2001:db8::1", 128, "2001:db8::1"),
        ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::"),
        ("2001:db8:1:2:3:4:5:6", 48, "2001:db8:1::"), ("2001:db8:1:2:ffff::", 65, "2001:db8:1:2:8000::"),
        ("2001:db8::1", 0, "::"),
    ])
    func prefix(of address: String, length: Int, expected: String) {
        #expect(text(IPAddress(address)!.prefix(length)) == expected)
    }

    @Test(arguments: [
        ("192.0.2.0/24", "192.0.2.7", true), ("192.0.2.0/24", "192.0.3.7", false), ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false), ("0.0.0.0/0", "255.0.0.1", true), ("0.0.0.0/0", "2001:db8::1", false),
        ("::/0", "192.0.2.1", false), ("2001:db8::/32", "2001:db8:ffff::", true),
        ("[2001:db8::]/32", "2001:db9::", false),
        ("192.0.2.0/24", "::ffff:192.0.2.1", true), ("[::ffff:127.0.0.0]/104", "127.255.0.1", true),
        ("[::ffff:127.0.0.0]/104", "128.0.0.1", false), ("::ffff:192.0.2.0/120", "192.0.2.7", true),
        ("[::ffff:0:0]/96", "198.51.100.1", true), ("[2001:db8::/32]", "2001:db8:1::", true),
        ("[192.0.2.0/24]", "192.0.2.7", true),
    ])
    func contains(network: String, address: String, expected: Bool) throws {
        #expect(try #require(Network(network)).contains(IPAddress(address)!) == expected)
    }

    @Test(arguments: [
        "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/-1", "192.0.2.0/+24", "192.0.2.0/24/24", "/24",
        "2001:db8::1/64",
        "2001:db8::/129", "::ffff:0:0/95", "[::ffff:127.0.0.1]/104", "[192.0.2.0/24", "192.0.2/24", "192.0.2.0/2x",
    ])
    func isNoNetwork(text: String) {
        #expect(Network(text) == nil)
    }

    @Test(arguments: [
        ("192.0.2.0/24", "192.0.2.64/26", ["192.0.2.128/25", "192.0.2.0/26"]),
        ("192.0.2.0/24", "192.0.2.0/24", []), ("192.0.2.0/26", "192.0.2.0/24", []),
        ("192.0.2.0/24", "198.51.100.0/24", ["192.0.2.0/24"]), ("0.0.0.0/0", "::/0", ["0.0.0.0/0"]),
        ("2001:db8::/32", "2001:db8::/34", ["2001:db8:8000::/33", "2001:db8:4000::/34"]),
    ])
    func subtracting(network: String, other: String, expected: [String]) throws {
        let difference = try #require(Network(network)).subtracting(try #require(Network(other)))
        #expect(difference.map(\.description).sorted() == expected.sorted())
    }
}
