// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// The directory of a zip archive (APPNOTE.TXT 4.3), or what can be found of it.
struct ZipDirectory {
    /// What of an archive was not kept.
    enum Missing { case nothing, beginning, end }

    struct Entry {
        /// As stored, and whether it is UTF-8.
        var name: [UInt8]
        var isUTF8: Bool
        /// The name in the header before the data, if it is another one. Some programs use it.
        var localName: [UInt8]?
        /// In UTF-8, from fields behind the other names. Programs that know these fields show this name.
        var unicodeNames: [[UInt8]] = []
        var isEncrypted: Bool
        var method: Int
        var size: Int
        /// The bytes of its data in the archive, as far as they are there.
        var data: Range<Int>?
        /// Its header is broken, its data is not complete, or its data is that of another entry, too.
        var isDamaged = false
        /// Its header or some of its data was not kept.
        var isCut = false
    }

    private(set) var entries: [Entry] = []
    /// There is no complete directory, though the archive is complete. Then the entries are those found by their own
    /// headers.
    private(set) var isDamaged = false
    /// There are more entries than may be listed, or some of the archive was not kept.
    private(set) var isLimited: Bool

    private let archive: UnsafeRawBufferPointer
    private let missing: Missing
    private let most: Int

    /// Bytes. No name is kept whole beyond.
    static let longestName = 1_024

    /// - Parameter most: the number of entries that may be listed.
    init(_ archive: UnsafeRawBufferPointer, missing: Missing, most: Int) {
        self.archive = archive
        self.missing = missing
        self.most = most
        isLimited = missing != .nothing
        if missing == .end || !readDirectory() {
            isDamaged = missing == .nothing
            if missing != .beginning { readLocalHeaders() }
        }
        markOverlaps()
    }

    // MARK: - Numbers

    private func number(_ offset: Int, _ size: Int) -> Int? {
        guard offset >= 0, offset + size <= archive.count else { return nil }
        var value = 0
        for index in (0..<size).reversed() { value = value << 8 | Int(archive[offset + index]) }
        return value
    }

    private func has(_ signature: Int, at offset: Int) -> Bool { number(offset, 4) == signature }

    private static let local = 0x0403_4b50
    private static let central = 0x0201_4b50
    private static let end = 0x0605_4b50

    // MARK: - The directory

    /// Finds the end record: it is followed by a comment of up to 64 KiB.
    private func endRecord() -> Int? {
        var offset = archive.count - 22
        let lowest = max(0, offset - 65_535)
        while offset >= lowest {
            if has(Self.end, at: offset) { return offset }
            offset -= 1
        }
        return nil
    }

    /// Reads the central directory. Returns false if there is none.
    private mutating func readDirectory() -> Bool {
        guard let end = endRecord(), let count = number(end + 10, 2), let size = number(end + 12, 4),
            let offset = number(end + 16, 4)
        else { return false }
        // What stands before the archive moves all offsets.
        var start = end - size
        if size == 0xffff_ffff || !has(Self.central, at: start) {
            guard let found = start64(end), has(Self.central, at: found) else {
                return count == 0 && size == 0
            }
            start = found
        }
        // Negative for what is missing at the beginning.
        let shift = size != 0xffff_ffff ? start - offset : missing == .beginning ? -1 << 62 : 0
        var position = start
        while has(Self.central, at: position) {
            guard entries.count < most else {
                isLimited = true
                return true
            }
            guard let next = readEntry(at: position, shift: shift) else { return false }
            position = next
        }
        // Zip64 has the number of entries elsewhere.
        return entries.count & 0xffff == count || count == 0xffff
    }

    /// The start of the directory by the end record of zip64 (APPNOTE 4.3.14), which is directly before its locator.
    private func start64(_ end: Int) -> Int? {
        guard has(0x0706_4b50, at: end - 20) else { return nil }
        let record = end - 20 - 56
        guard has(0x0606_4b50, at: record), let size = number(record + 40, 8), size >= 0, size <= record else {
            return nil
        }
        return record - size
    }

    /// Returns where the next entry begins.
    private mutating func readEntry(at offset: Int, shift: Int) -> Int? {
        guard let flags = number(offset + 8, 2), let method = number(offset + 10, 2),
            let packed = number(offset + 20, 4), let size = number(offset + 24, 4),
            let nameLength = number(offset + 28, 2), let extra = number(offset + 30, 2),
            let comment = number(offset + 32, 2), let header = number(offset + 42, 4),
            offset + 46 + nameLength <= archive.count
        else { return nil }
        var entry = Entry(
            name: name(at: offset + 46, nameLength), isUTF8: flags & 0x800 != 0, localName: nil,
            unicodeNames: unicodeNames(at: offset + 46 + nameLength, extra),
            isEncrypted: flags & 1 != 0 || method == 99, method: method, size: size, data: nil)
        addData(to: &entry, header: header, shift: shift, packed)
        entries.append(entry)
        return offset + 46 + nameLength + extra + comment
    }

    private func addData(to entry: inout Entry, header stored: Int, shift: Int, _ packed: Int) {
        // Programs that unpack also take an offset that is right although the directory's own one is not.
        let header = missing == .nothing && !has(Self.local, at: stored + shift) ? stored : stored + shift
        guard header >= 0 else {
            entry.isCut = true
            return
        }
        guard has(Self.local, at: header), let nameLength = number(header + 26, 2),
            let extra = number(header + 28, 2), header + 30 + nameLength + extra <= archive.count
        else {
            entry.isDamaged = true
            return
        }
        let name = name(at: header + 30, nameLength)
        if name != entry.name { entry.localName = name }
        entry.unicodeNames += unicodeNames(at: header + 30 + nameLength, extra)
        let start = header + 30 + nameLength + extra
        entry.isDamaged = packed != 0xffff_ffff && start + packed > archive.count
        entry.data = start..<min(start + packed, archive.count)
    }

    /// A longer name keeps its beginning and its end.
    private func name(at offset: Int, _ length: Int) -> [UInt8] {
        guard length > Self.longestName else { return Array(archive[offset..<offset + length]) }
        let half = Self.longestName / 2
        return Array(archive[offset..<offset + half]) + Array("...".utf8)
            + Array(archive[offset + length - half..<offset + length])
    }

    /// The names in the first and the last Unicode Path field of Info-ZIP (APPNOTE 4.6.9), whatever checksum stands
    /// before them. zip(1) writes this field for a name beyond ASCII.
    private func unicodeNames(at start: Int, _ length: Int) -> [[UInt8]] {
        var names: [[UInt8]] = []
        let end = min(start + length, archive.count)
        var offset = start
        while let kind = number(offset, 2), let size = number(offset + 2, 2), offset + 4 + size <= end {
            // The version and the checksum take 5 bytes.
            if kind == 0x7075, size > 5 { names = names.prefix(1) + [name(at: offset + 9, size - 5)] }
            offset += 4 + size
        }
        return names
    }

    // MARK: - Without a directory

    /// Reads one header after the other, as far as each says where the next one is.
    private mutating func readLocalHeaders() {
        entries = []
        var offset = 0
        while has(Self.local, at: offset) {
            guard entries.count < most else {
                isLimited = true
                return
            }
            guard let flags = number(offset + 6, 2), let method = number(offset + 8, 2),
                let packed = number(offset + 18, 4), let size = number(offset + 22, 4),
                let nameLength = number(offset + 26, 2), let extra = number(offset + 28, 2)
            else { return }
            let start = offset + 30 + nameLength + extra
            guard start <= archive.count else { return }
            // Bit 3: the size comes after the data.
            let hasSize = flags & 8 == 0
            let isComplete = hasSize ? start + packed <= archive.count : missing == .nothing
            entries.append(
                Entry(
                    name: name(at: offset + 30, nameLength), isUTF8: flags & 0x800 != 0, localName: nil,
                    unicodeNames: unicodeNames(at: offset + 30 + nameLength, extra),
                    isEncrypted: flags & 1 != 0 || method == 99, method: method, size: size,
                    data: start..<(hasSize ? min(start + packed, archive.count) : archive.count),
                    isDamaged: !isComplete && missing == .nothing, isCut: !isComplete && missing == .end))
            guard hasSize else { return }
            offset = start + packed
        }
    }

    /// Entries whose data is that of others, too, make an archive of any size out of a small file.
    private mutating func markOverlaps() {
        let order = entries.indices.filter { entries[$0].data != nil && !entries[$0].data!.isEmpty }.sorted {
            entries[$0].data!.lowerBound < entries[$1].data!.lowerBound
        }
        var end = 0
        for index in order {
            guard let data = entries[index].data else { continue }
            if data.lowerBound < end { entries[index].isDamaged = true }
            end = max(end, data.upperBound)
        }
    }
}
