// SPDX-License-Identifier: Apache-2.0
import Decoding
import Foundation
import Testing

/// Archives that would take much memory or time without bounds.
@Suite struct ZipTests {
    private struct Collector: PartEvents {
        var lines: [String] = []

        mutating func text(_ lines: UnsafeRawBufferPointer, of part: Part) {}
        mutating func limitReached(_ limit: PartLimit, in part: Part) {}
        mutating func attachment(_ listing: PartListing, of part: Part) {
            lines += listing.lines().split(separator: 0x0a).map { String(decoding: $0, as: UTF8.self) }
        }
    }

    private static func lines(_ archive: [UInt8]) -> [String] {
        var reader = PartReader(wantsText: false, wantsAttachments: true)
        var collector = Collector()
        Array("Content-Type: application/zip\n\n".utf8).withUnsafeBytes { reader.update($0, &collector) }
        archive.withUnsafeBytes { reader.update($0, &collector) }
        reader.finish(&collector)
        return collector.lines
    }

    private static func little(_ value: Int, _ size: Int) -> [UInt8] {
        (0..<size).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    private static func localHeader(_ name: [UInt8], _ content: [UInt8], method: Int, size: Int) -> [UInt8] {
        Array("PK\u{3}\u{4}".utf8) + little(20, 2) + little(0, 2) + little(method, 2) + little(0, 8)
            + little(content.count, 4) + little(size, 4) + little(name.count, 2) + little(0, 2) + name + content
    }

    private static func entry(_ name: [UInt8], _ packed: Int, method: Int, size: Int, at offset: Int) -> [UInt8] {
        Array("PK\u{1}\u{2}".utf8) + little(20, 4) + little(0, 2) + little(method, 2) + little(0, 8)
            + little(packed, 4) + little(size, 4) + little(name.count, 2) + little(0, 12) + little(offset, 4) + name
    }

    private static func end(_ count: Int, size: Int, offset: Int) -> [UInt8] {
        Array("PK\u{5}\u{6}".utf8) + little(0, 4) + little(count & 0xffff, 2) + little(count & 0xffff, 2)
            + little(size, 4) + little(offset, 4) + little(0, 2)
    }

    /// A million entries, all with the data of the first.
    @Test func aMillionEntries() {
        var archive = Self.localHeader(Array("a".utf8), Array("MZ".utf8), method: 0, size: 2)
        let offset = archive.count
        let entry = Self.entry(Array("a".utf8), 2, method: 0, size: 2, at: 0)
        archive.reserveCapacity(1_000_000 * entry.count + 1_000)
        for _ in 0..<1_000_000 { archive += entry }
        archive += Self.end(1_000_000, size: archive.count - offset, offset: offset)
        // Only the end is kept, and the directory does not fit into it.
        let lines = Self.lines(archive)
        #expect(lines.count == 1 && lines[0].hasSuffix("encrypted=no; limit"))
    }

    /// The bytes that may be decompressed are used up between the beginning of an archive and its whole.
    @Test(arguments: 0..<12) func archivesUntilTheBoundIsReached(others: Int) {
        // 600 bytes: the beginning of a local header whose name is longer than the rest, so it counts as no entry.
        let inner: [UInt8] = [
            0x0b, 0xf0, 0x66, 0x66, 0x61, 0xc0, 0x0a, 0xfe, 0xff, 0x67, 0x18, 0x05, 0xa3, 0x80, 0x4c, 0x00, 0x00,
        ]
        // A block that is not compressed.
        let other = [1] + Self.little(100, 2) + Self.little(~100, 2) + Array(repeating: UInt8(ascii: "x"), count: 100)
        let contents =
            Array(repeating: (packed: other, size: 100), count: others)
            + Array(repeating: (packed: inner, size: 600), count: 960)
        var (archive, directory): ([UInt8], [UInt8]) = ([], [])
        for content in contents {
            directory += Self.entry(
                Array("a".utf8), content.packed.count, method: 8, size: content.size, at: archive.count)
            archive += Self.localHeader(Array("a".utf8), content.packed, method: 8, size: content.size)
        }
        archive += directory + Self.end(contents.count, size: directory.count, offset: archive.count)
        let lines = Self.lines(archive)
        #expect(lines.count == contents.count + 1)
        #expect(lines[1 + others].hasPrefix("1/\(1 + others); application/zip;"))
        #expect(!lines[1 + others].hasSuffix("; limit"))
        #expect(lines.last!.hasSuffix("; limit"))
    }

    @Test func overlappingEntries() {
        var archive = Self.localHeader(Array("a".utf8), Array("MZ".utf8), method: 0, size: 2)
        let offset = archive.count
        for _ in 0..<5_000 { archive += Self.entry(Array("a".utf8), 2, method: 0, size: 2, at: 0) }
        archive += Self.end(5_000, size: archive.count - offset, offset: offset)
        let lines = Self.lines(archive)
        #expect(lines.count == 1_001 && lines[0].hasSuffix("; limit"))
        #expect(lines.dropFirst(2).allSatisfy { $0.contains("application/x-dosexec") && $0.hasSuffix("; damaged") })
    }

    /// The end of a long name has the extension, and stays.
    @Test func longNames() {
        let name = Array(repeating: UInt8(ascii: "n"), count: 65_000) + Array(".exe".utf8)
        var archive = Self.localHeader(name, Array("MZ".utf8), method: 0, size: 2)
        let offset = archive.count
        archive += Self.entry(name, 2, method: 0, size: 2, at: 0)
        archive += Self.end(1, size: archive.count - offset, offset: offset)
        let lines = Self.lines(archive)
        #expect(lines.count == 2 && lines[1].contains("n...n") && lines[1].contains("n.exe\""))
        #expect(lines[1].utf8.count < 2_000)
    }

    /// Programs that know the field show its name, in whichever of the two headers it is. Only two of many are listed.
    @Test func namesInUnicodePathFields() {
        func field(_ name: String) -> [UInt8] {
            Self.little(0x7075, 2) + Self.little(5 + name.utf8.count, 2) + [1] + Self.little(0, 4) + Array(name.utf8)
        }
        func extended(_ header: [UInt8], _ lengthAt: Int, _ name: Int, _ fields: [UInt8]) -> [UInt8] {
            header[..<lengthAt] + Self.little(fields.count, 2) + header[(lengthAt + 2)..<(name + 5)] + fields
                + header[(name + 5)...]
        }
        let other = Self.little(0x5455, 2) + Self.little(1, 2) + [0]
        let many = (0..<1_000).flatMap { field("n\($0).txt") }
        let local = Self.localHeader(Array("a.txt".utf8), Array("MZ".utf8), method: 0, size: 2)
        let central = Self.entry(Array("a.txt".utf8), 2, method: 0, size: 2, at: 0)
        for (inLocal, inCentral, names) in [
            (other, other + field("грязь.exe"), ["a.txt", "грязь.exe"]), (field("b.exe"), other, ["a.txt", "b.exe"]),
            (other, field("first.exe") + many + field("last.exe"), ["a.txt", "first.exe", "last.exe"]),
            (other, field("a.txt"), ["a.txt"]), (other, field("b.exe").dropLast(), ["a.txt"]),
        ] {
            let whole = extended(local, 28, 30, inLocal)
            let directory = extended(central, 30, 46, Array(inCentral))
            let lines = Self.lines(whole + directory + Self.end(1, size: directory.count, offset: whole.count))
            let expected = names.map { "; name=\"\($0)\"" }.joined() + "; declared"
            #expect(lines.count == 2 && lines[1].contains("application/x-dosexec" + expected), "\(lines)")
            // Without a directory.
            if inLocal.count > other.count {
                let cut = Self.lines(whole)
                #expect(cut.count == 2 && cut[1].contains(expected), "\(cut)")
            }
        }
    }

    /// Every entry is the archive itself, without an end.
    @Test func anArchiveOfItself() {
        let archive = Self.quine()
        func file(_ name: String, _ type: String) -> String {
            "; application/zip; name=\"\(name)\"; declared=\"\(type)\"; size=\(archive.count); encrypted=no"
        }
        let entry = file("quine.zip", "")
        #expect(
            Self.lines(archive) == [
                "1" + file("", "application/zip"), "1/1" + entry, "1/1/1" + entry, "1/1/1/1\(entry); limit",
            ])
    }

    /// An archive whose only entry decompresses to the archive.
    ///
    /// `P` is what stands before the data, and `S` what stands after it. `L(n)` and `R(n)` are blocks of 10 bytes: the
    /// first says that n bytes follow as they are, the second repeats the last n bytes of the output. What each line
    /// below writes is the beginning of the next ones, as in a program that prints itself.
    private static func quine() -> [UInt8] {
        let name = Array("quine.zip".utf8)
        func parts(_ stream: Int) -> (before: [UInt8], after: [UInt8]) {
            let size = 30 + name.count + stream + 46 + name.count + 22
            var before = localHeader(name, [], method: 8, size: size)
            before.replaceSubrange(18..<22, with: little(stream, 4))
            let directory = entry(name, stream, method: 8, size: size, at: 0)
            return (before, directory + end(1, size: directory.count, offset: before.count + stream))
        }
        func stream(_ P: [UInt8], _ S: [UInt8]) -> [UInt8] {
            let (LP, RP) = (literal(P.count + 10), repeated(P.count + 10))
            let (LS, RS) = (literal(S.count + 10), repeated(S.count + 10, isLast: true))
            let (L0, L1, L4, R4) = (literal(0), literal(10), literal(40), repeated(40))
            let pieces = [
                [LP, P, LP],
                [RP],
                [L1, RP], [L1, L1], [L4, RP, L1, L1, L4],
                [R4],
                [L4, R4, L4, R4, L4],
                [R4],
                [L4, R4, L0, L0, LS],
                [R4],
                [L0, L0],
                [LS, RS, S],
                [RS],
            ]
            return Array(pieces.joined().joined())
        }
        // All sizes are fixed.
        let (before, after) = parts(stream(parts(0).before, parts(0).after).count)
        return before + stream(before, after) + after
    }

    private static func literal(_ count: Int) -> [UInt8] {
        [0, 0, 0, 0xff, 0xff, 0] + little(count, 2) + little(~count, 2)
    }

    /// A match of `count` bytes in a block with fixed codes (RFC 1951 3.2.6), blocks without content, and a stored one
    /// that ends at a byte.
    private static func repeated(_ count: Int, isLast: Bool = false) -> [UInt8] {
        var bits: [UInt8] = []
        func code(_ value: Int, _ count: Int) { bits += (0..<count).reversed().map { UInt8(value >> $0 & 1) } }
        func number(_ value: Int, _ count: Int) { bits += (0..<count).map { UInt8(value >> $0 & 1) } }
        // The largest base at or below the value: its code and its extra bits.
        let length = [(35, 273, 3), (43, 274, 3), (83, 278, 4)].last { $0.0 <= count }!
        let distance = [(33, 10, 4), (49, 11, 4), (65, 12, 5)].last { $0.0 <= count }!
        number(0b010, 3)
        code(length.1 - 256, 7)
        number(count - length.0, length.2)
        code(distance.1, 5)
        number(count - distance.0, distance.2)
        code(0, 7)
        while bits.count < 38 { number(0b010, 10) }
        number(isLast ? 1 : 0, 3)
        precondition(41...48 ~= bits.count)
        let bytes = stride(from: 0, to: 48, by: 8).map { start in
            (0..<8).reduce(UInt8(0)) { $0 | (start + $1 < bits.count ? bits[start + $1] << UInt8($1) : 0) }
        }
        return bytes + [0, 0, 0xff, 0xff]
    }

    /// Blocks without content take time, too.
    @Test func emptyBlocks() {
        let name = Array("a".utf8)
        // Blocks with fixed codes that end at once: 3 + 7 bits each.
        let content = [UInt8](repeating: 0, count: 1 << 20).indices.map {
            [0x02, 0x08, 0x20, 0x80, 0x00][$0 % 5] as UInt8
        }
        var archive = Self.localHeader(name, content, method: 8, size: 0)
        let offset = archive.count
        for _ in 0..<100 { archive += Self.entry(name, content.count, method: 8, size: 1, at: 0) }
        archive += Self.end(100, size: archive.count - offset, offset: offset)
        let lines = Self.lines(archive)
        #expect(lines.count == 101 && lines.last!.hasSuffix("; limit"))
    }

    /// From the end of a large archive, its directory is read.
    @Test func theEndOfALargeArchive() {
        let name = Array("large".utf8)
        let content = [UInt8](repeating: 1, count: 9 << 20)
        var archive = Self.localHeader(name, content, method: 0, size: content.count)
        let second = archive.count
        archive += Self.localHeader(Array("a.exe".utf8), Array("MZ".utf8), method: 0, size: 2)
        let offset = archive.count
        archive += Self.entry(name, content.count, method: 0, size: content.count, at: 0)
        archive += Self.entry(Array("a.exe".utf8), 2, method: 0, size: 2, at: second)
        archive += Self.end(2, size: archive.count - offset, offset: offset)
        #expect(
            Self.lines(archive) == [
                "1; application/zip; name=\"\"; declared=\"application/zip\"; "
                    + "size=\(archive.count); encrypted=no; limit",
                "1/1; application/octet-stream; name=\"large\"; declared=\"\"; size=\(9 << 20); encrypted=no; limit",
                "1/2; application/x-dosexec; name=\"a.exe\"; declared=\"\"; size=2; encrypted=no",
            ])
    }
}
