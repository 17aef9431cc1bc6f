// SPDX-License-Identifier: Apache-2.0
import Rules
import Testing

struct LineFinderTests {
    private static let text = Array("ab\n\ncde\nf".utf8)

    /// The bounds as they are defined.
    private static func bounds(_ position: Int) -> Range<Int> {
        let start = text[..<position].lastIndex(of: 0x0a).map { $0 + 1 } ?? 0
        return start..<(text[position...].firstIndex(of: 0x0a) ?? text.count)
    }

    @Test func positionsInAnyOrder() {
        Self.text.withUnsafeBytes { text in
            for first in 0...text.count {
                for second in 0...text.count {
                    for third in 0...text.count {
                        var finder = LineFinder()
                        for position in [first, second, third] {
                            #expect(finder.line(of: position, in: text) == Self.bounds(position))
                        }
                    }
                }
            }
        }
    }

    /// A header of 100 KiB with thousands of hits is searched once: a newline that appears in it later is not found.
    @Test func aLineIsSearchedOnce() {
        var text = [UInt8](repeating: 0x78, count: 1000)
        text[499] = 0x0a
        text.withUnsafeMutableBytes { text in
            var finder = LineFinder()
            #expect(finder.line(of: 600, in: UnsafeRawBufferPointer(text)) == 500..<1000)
            text[700] = 0x0a
            #expect(finder.line(of: 800, in: UnsafeRawBufferPointer(text)) == 500..<1000)
        }
    }

    /// The search for the start of a line ends at the line before.
    @Test func theLineBeforeIsNotSearched() {
        var text = [UInt8](repeating: 0x78, count: 1000)
        text[499] = 0x0a
        text.withUnsafeMutableBytes { text in
            var finder = LineFinder()
            #expect(finder.line(of: 100, in: UnsafeRawBufferPointer(text)) == 0..<499)
            // Only a search that goes on before the position 499 misses the newline there.
            #expect(finder.line(of: 999, in: UnsafeRawBufferPointer(text)) == 500..<1000)
        }
    }
}
