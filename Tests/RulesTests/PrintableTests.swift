// SPDX-License-Identifier: Apache-2.0
import Rules
import Testing

@Suite struct PrintableTests {
    @Test func `no character moves the cursor, reverses text or is invisible`() {
        #expect(printable("a\u{1b}[2J\u{9b}\u{202e}b\u{2028}\u{feff}".utf8) == "a?[2J??b??")
        #expect(printable([0x61, 0xff, 0x62]) == "a?b")
    }

    @Test func `scripts that need joiners keep them`() {
        #expect(printable("می\u{200c}خواهم 漢字 é".utf8) == "می\u{200c}خواهم 漢字 é")
    }
}
