// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

@Suite struct LookupTableTests {
    private func texthash(_ text: String) -> LookupTable.Contents { LookupTable.text(Array(text.utf8)) }
    private func cidr(_ text: String) -> LookupTable.Contents { LookupTable.networks(Array(text.utf8)) }

    private static let table = """
        # A comment.
        Alice@Example.org   whole
        example.org         domain
        .example.org        dotted
        org                 top
        bob@                local
        192.0.2.1           address
        192.0               octets
        2001:db8:1          groups
        mail.example.com    host
        """

    /// access(5): the whole, the domain and those above it, `user@`; addresses octet by octet.
    @Test(arguments: [
        ("alice@example.org", "whole"), ("ALICE@EXAMPLE.ORG", "whole"), ("bob@example.org", "domain"),
        ("bob@sub.example.org", "dotted"),
        ("bob@other.org", "top"), ("bob@example.net", "local"), ("carol@example.net", nil), ("192.0.2.1", "address"),
        ("192.0.2.2", "octets"), ("192.1.2.1", nil), ("2001:db8:1::5", "groups"), ("2001:db8:1:0::/64", "groups"),
        ("2001:db8:2::5", nil),
        ("192.0.2.0/24", "octets"), ("mail.example.com", "host"), ("x.mail.example.com", "host"), ("example.com", nil),
        ("", nil),
    ])
    func text(key: String, expected: String?) {
        let contents = texthash(Self.table)
        #expect(contents.faults == [])
        #expect(contents.table.lookup(Array(key.utf8), isHost: true) == expected)
    }

    @Test(arguments: [
        ("192.0.2.1", "first"), ("192.0.2.200", "second"), ("198.51.100.1", "outside"), ("203.0.113.1", "third"),
        ("2001:db8::1", "six"),
        ("2001:db8::/64", "six"), ("2001:db9::1", nil), ("alice", nil), ("", nil),
    ])
    func networks(key: String, expected: String?) {
        let contents = cidr(
            "192.0.2.0/25 first\n192.0.2.0/24\tsecond\n203.0.113.0/24 third\n!192.0.2.0/24 outside\n2001:db8::/32 six\n"
        )
        #expect(contents.faults == [])
        #expect(contents.table.lookup(Array(key.utf8), isHost: true) == expected)
    }

    /// A line may have either form of a domain. Keys of requests have A-labels.
    @Test(arguments: [
        ("bob@xn--bcher-kva.example", "domain"), ("bob@mail.xn--bcher-kva.example", "dotted"),
        ("jürgen@xn--fa-hia.example", "whole"), ("Jürgen", "login"), ("müller@example.net", "local"),
        ("jürgen@example.net", nil),
    ])
    func international(key: String, expected: String?) {
        let contents = texthash(
            """
            BÜCHER.example domain
            .bücher.example dotted
            JÜRGEN@faß.example whole
            ju\u{308}rgen login
            Müller@ local
            """
        )
        #expect(contents.faults == [])
        #expect(contents.table.lookup(Array(key.utf8), isHost: false) == expected)
        #expect(texthash("bücher.example a\nxn--bcher-kva.example b\n").faults.map(\.line) == [2])
    }

    /// Postfix util/readlline.c.
    @Test func continuationLines() {
        let contents = texthash("  # comment\n\na 1\n  2\n# comment inside\n\n\t3 \nb 4")
        #expect(contents.table.lookup(Array("a".utf8), isHost: true) == "1  2\t3")
        #expect(contents.table.lookup(Array("b".utf8), isHost: true) == "4")
        #expect(contents.results.map(\.line) == [3, 8])
    }

    @Test func allFaultsOfATextAreReported() {
        let contents = texthash("a 1\nb\nc 2\nA 3\nd: 4\n")
        #expect(contents.faults.map(\.line) == [2, 4, 5])
        #expect(
            contents.faults.map(\.message) == [
                "expected 'key result', found only 'b'", "duplicate key 'A', first used in line 1",
                "key 'd:' ends in ':'; expected 'key result' without a colon",
            ])
        #expect(contents.results.map(\.text) == ["1", "2"])
    }

    @Test func allFaultsOfNetworksAreReported() {
        let contents = cidr("192.0.2.1/24 a\n192.0.2.0/24\nif 192.0.2.0/24\n! 192.0.2.0/24 b\n!!192.0.2.0/24 c\n")
        #expect(contents.faults.map(\.line) == [1, 2, 3, 4])
        #expect(contents.results.map(\.line) == [5])
        #expect(contents.table.lookup(Array("192.0.2.1".utf8), isHost: true) == "c")
    }

    /// Each part of a joined key has its domain in A-labels.
    @Test func joinedKeysBeyondASCII() {
        let table = texthash("User@B\u{fc}cher.example|b\u{fc}cher.example 500/1h").table
        let key = "user@xn--bcher-kva.example|xn--bcher-kva.example"
        #expect(table.lookup(Array(key.utf8), isHost: false) == "500/1h")
    }
}
