// SPDX-License-Identifier: Apache-2.0
import Foundation
import Testing

/// Damage that keeps to the format of SQLite's files (https://www.sqlite.org/fileformat2.html): pages in the wrong
/// place, wrong trees, frames of a write-ahead log with right checksums. The ledger opens, and counts.
@Suite struct DamagedPagesTests {
    @Test(arguments: 100..<104 as Range<UInt64>)
    func opensAndCounts(seed: UInt64) throws {
        let (_, sound) = try DamagedFilesTests.made.get()
        var random = SeededGenerator(seed: seed)
        for trial in 0..<50 {
            var files = sound
            let name = try #require(files.keys.sorted().randomElement(using: &random))
            var note = "seed \(seed), trial \(trial): \(name)"
            for _ in 0...Int.random(in: 0...2, using: &random) {
                var bytes = Array(try #require(files[name]))
                note +=
                    name.hasSuffix("-wal")
                    ? Self.damageLog(&bytes, random: &random) : Self.damageDatabase(&bytes, random: &random)
                files[name] = Data(bytes)
            }
            let folder = try DamagedFilesTests.Folder(files)
            let harness = try DamagedFilesTests.openSoon(folder, note)
            try harness.ask(rcpt("new", to: "a@example.org", user: "new"))
            #expect(harness.used("new", limit: "per-user") == [1], "\(note)")
            if trial % 4 == 0 { try harness.finishCheckpoint() }
        }
    }

    private static func damageDatabase(_ bytes: inout [UInt8], random: inout SeededGenerator) -> String {
        guard bytes.count >= 512 else { return ", nothing" }
        // 1 means 65,536.
        let size = max(512, Int(bytes[16]) << 8 | Int(bytes[17]))
        let pages = bytes.count / size
        guard pages > 0 else { return ", nothing" }
        let (page, other) = (Int.random(in: 0..<pages, using: &random), Int.random(in: 0..<pages, using: &random))
        // The first page begins with the header of the file.
        let tree = page * size + (page == 0 ? 100 : 0)
        switch Int.random(in: 0..<6, using: &random) {
        case 0:
            for index in 0..<size { bytes.swapAt(page * size + index, other * size + index) }
            return ", pages \(page) and \(other) are swapped"
        case 1:
            for index in 0..<size { bytes[page * size + index] = bytes[other * size + index] }
            return ", page \(page) is a copy of \(other)"
        case 2:
            for index in 0..<size { bytes[page * size + index] = 0 }
            return ", page \(page) is empty"
        case 3:
            bytes[tree + Int.random(in: 0..<12, using: &random)] = .random(in: 0...255, using: &random)
            return ", the header of the tree in page \(page)"
        case 4:
            let cell = tree + 8 + 2 * Int.random(in: 0..<20, using: &random)
            for index in cell..<cell + 2 { bytes[index] = .random(in: 0...255, using: &random) }
            return ", a cell of page \(page)"
        default:
            let place = Int.random(in: 16..<100, using: &random)
            bytes[place] = .random(in: 0...255, using: &random)
            return ", byte \(place) of the header"
        }
    }

    private static func damageLog(_ bytes: inout [UInt8], random: inout SeededGenerator) -> String {
        guard bytes.count > 32 else { return ", nothing" }
        let size = bytes[8..<12].reduce(0) { $0 << 8 | Int($1) } + 24
        guard size > 24, size <= 65_560 else { return ", nothing" }
        var frames = stride(from: 32, to: bytes.count - size + 1, by: size).map { Array(bytes[$0..<$0 + size]) }
        guard !frames.isEmpty else { return ", nothing" }
        let frame = Int.random(in: frames.indices, using: &random)
        let note: String
        switch Int.random(in: 0..<5, using: &random) {
        case 0:
            frames.remove(at: frame)
            note = ", frame \(frame) is missing"
        case 1:
            frames.swapAt(frame, Int.random(in: frames.indices, using: &random))
            note = ", frame \(frame) is swapped with another"
        case 2:
            frames.insert(frames[frame], at: Int.random(in: frames.indices, using: &random))
            note = ", frame \(frame) is there twice"
        case 3:
            // The page's number, and the size of the database after a transaction.
            frames[frame][Int.random(in: 0..<8, using: &random)] = UInt8.random(in: 0...3, using: &random)
            note = ", the header of frame \(frame)"
        default:
            for _ in 0..<8 {
                frames[frame][Int.random(in: 24..<size, using: &random)] = .random(in: 0...255, using: &random)
            }
            note = ", eight bytes in frame \(frame)"
        }
        bytes = withChecksums(Array(bytes[..<32]), frames)
        return note
    }

    /// The log with the checksums that SQLite expects. Those of words in the machine's order, little-endian.
    private static func withChecksums(_ header: [UInt8], _ frames: [[UInt8]]) -> [UInt8] {
        var (first, second) = (UInt32(0), UInt32(0))
        func add(_ bytes: some Collection<UInt8>) {
            let bytes = Array(bytes)
            func word(_ offset: Int) -> UInt32 {
                bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
            }
            for offset in stride(from: 0, to: bytes.count, by: 8) {
                first &+= word(offset) &+ second
                second &+= word(offset + 4) &+ first
            }
        }
        add(header[0..<24])
        var log = header
        for frame in frames {
            add(frame[0..<8])
            add(frame[24...])
            let sum = [first, second].flatMap { sum in [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: sum >> $0) } }
            log += frame[0..<16] + sum + frame[24...]
        }
        return log
    }
}
