// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc

/// The write-ahead log of a journal segment, as bytes (https://www.sqlite.org/fileformat2.html#walformat).
///
/// SQLite reads a log up to the first frame whose checksum is wrong, silently: checksums are cumulative, so that frame
/// makes all later ones wrong as well. But each frame has its own checksum in its header, so the frames behind a
/// damaged one can still be checked, with the checksum that the damaged one has stored.
struct WriteAheadLog {
    /// What SQLite would not read.
    struct Loss {
        /// The number of all frames of the log.
        var frames: Int
        /// The number of frames that SQLite would ignore without `mended`.
        var ignored: Int
        /// The number of damaged frames, which are not in `mended`.
        var damaged: Int
        var damagedBytes: Int
        /// The log without the damaged frames.
        var mended: Data
    }

    /// The two halves of a checksum.
    private struct Sum: Equatable {
        var first: UInt32 = 0
        var second: UInt32 = 0
    }

    private static let headerSize = 32
    private static let frameHeaderSize = 24
    /// For checksums of little-endian words. SQLite writes the byte order of the machine.
    private static let magic: UInt32 = 0x377f_0682
    private static let version: UInt32 = 3_007_000

    private let bytes: UnsafeRawBufferPointer
    private let pageSize: Int
    private var frameSize: Int { Self.frameHeaderSize + pageSize }
    private var frames: Int { (bytes.count - Self.headerSize) / frameSize }

    /// Looks for frames that SQLite would ignore although the log continues after them.
    ///
    /// - Parameter pageSize: that of the database.
    /// - Returns: nil if there are none. A last frame that was cut short is none: a crash leaves it.
    static func loss(in log: Data, pageSize: Int) -> Loss? {
        log.withUnsafeBytes { WriteAheadLog(bytes: $0, pageSize: pageSize).loss() }
    }

    /// Whether the log begins with a whole frame of its own.
    static func hasFrames(_ log: Data, pageSize: Int) -> Bool {
        log.withUnsafeBytes { bytes in
            let log = WriteAheadLog(bytes: bytes, pageSize: pageSize)
            return bytes.count >= headerSize + log.frameSize && log.salt(headerSize + 8) == log.salt(16)
        }
    }

    /// Whether the log says that another format of it is used. SQLite opens no database with such a log.
    static func hasOtherVersion(_ log: Data) -> Bool {
        log.withUnsafeBytes { bytes in
            guard bytes.count >= headerSize else { return false }
            let log = WriteAheadLog(bytes: bytes, pageSize: 0)
            return log.word(0) & ~1 == magic && log.word(4) != version
        }
    }

    private func loss() -> Loss? {
        guard bytes.count >= Self.headerSize + frameSize else { return nil }
        var header = Data(bytes[0..<Self.headerSize])
        let isHeaderSound =
            word(0) == Self.magic && word(4) == Self.version && Int(word(8)) == pageSize
            && sum(of: 0..<24, from: Sum()) == storedSum(24)
        if !isHeaderSound {
            header = makeHeader()
        }
        let headerSalt = header.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 16, as: UInt64.self) }
        var sound: [Int] = []
        var damaged = 0
        var ignored: Int?
        // The first frame continues the checksum of the header, which may be damaged itself.
        var before = [storedSum(24), header.withUnsafeBytes { Self.sum(of: $0[0..<24], from: Sum()) }]
        for frame in 0..<frames {
            let start = start(frame)
            let hasSalt = salt(start + 8) == headerSalt
            let stored = storedSum(start + 16)
            let isSound = hasSalt && before.contains { frameSum(start, from: $0) == stored }
            if isSound { sound.append(frame) } else { damaged += 1 }
            if !isSound || !isHeaderSound, ignored == nil { ignored = frames - frame }
            before = [stored]
        }
        guard let ignored, damaged > 0 || !isHeaderSound else { return nil }
        // Frames without a salt at the end were never written before a power failure.
        let isTornEnd = ignored == damaged && salt(start(frames - 1) + 8) == 0
        guard isHeaderSound ? !isTornEnd : !sound.isEmpty else { return nil }
        return Loss(
            frames: frames, ignored: ignored, damaged: damaged, damagedBytes: damaged * frameSize,
            mended: mended(header, sound))
    }

    /// A header for the frames of a log whose own is damaged.
    private func makeHeader() -> Data {
        var header = Data(count: Self.headerSize)
        header.withUnsafeMutableBytes { header in
            Self.store(Self.magic, in: header, at: 0)
            Self.store(Self.version, in: header, at: 4)
            Self.store(UInt32(pageSize), in: header, at: 8)
            header.storeBytes(of: salt(Self.headerSize + 8), toByteOffset: 16, as: UInt64.self)
            Self.storeSum(Self.sum(of: UnsafeRawBufferPointer(header)[0..<24], from: Sum()), in: header, at: 24)
        }
        return header
    }

    /// The log without its damaged frames.
    ///
    /// The first transaction has no counts, but the pages that are needed to read any others. So its frames are kept,
    /// even damaged ones. Page 1 gets the number of pages, because the frame that had it may have been damaged.
    private func mended(_ header: Data, _ sound: [Int]) -> Data {
        let firstCommit = sound.first(where: isCommit) ?? 0
        guard let lastCommit = sound.last(where: isCommit) else { return header }
        let kept = (0...firstCommit) + sound.filter { firstCommit < $0 && $0 <= lastCommit }
        var mended = header
        mended.reserveCapacity(Self.headerSize + (kept.count + 1) * frameSize)
        var sum = header.withUnsafeBytes { Self.storedSum($0, 24) }
        func append(_ frame: Data) {
            var frame = frame
            frame.withUnsafeMutableBytes { bytes in
                UnsafeMutableRawBufferPointer(rebasing: bytes[8..<16]).copyBytes(from: header[16..<24])
                sum = Self.sum(of: UnsafeRawBufferPointer(bytes)[0..<8], from: sum)
                sum = Self.sum(of: UnsafeRawBufferPointer(bytes)[Self.frameHeaderSize...], from: sum)
                Self.storeSum(sum, in: bytes, at: 16)
            }
            mended += frame
        }
        for frame in kept { append(content(frame)) }
        guard let first = kept.last(where: { word(start($0)) == 1 }) else { return mended }
        let pages = word(start(lastCommit) + 4)
        var page = content(first)
        page.withUnsafeMutableBytes { bytes in
            Self.store(pages, in: bytes, at: 4)
            Self.store(pages, in: bytes, at: Self.frameHeaderSize + 28)
        }
        append(page)
        return mended
    }

    private func start(_ frame: Int) -> Int { Self.headerSize + frame * frameSize }

    private func content(_ frame: Int) -> Data { Data(bytes[start(frame)..<start(frame) + frameSize]) }

    /// Whether the frame is the last of a transaction. It has the number of pages then.
    private func isCommit(_ frame: Int) -> Bool { word(start(frame) + 4) != 0 }

    // MARK: Numbers, which are big-endian, and checksums

    private func word(_ offset: Int) -> UInt32 {
        UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    private func salt(_ offset: Int) -> UInt64 { bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self) }

    private func storedSum(_ offset: Int) -> Sum { Self.storedSum(bytes, offset) }

    private static func storedSum(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> Sum {
        Sum(
            first: UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)),
            second: UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)))
    }

    private static func store(_ word: UInt32, in bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.storeBytes(of: word.bigEndian, toByteOffset: offset, as: UInt32.self)
    }

    private static func storeSum(_ sum: Sum, in bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        store(sum.first, in: bytes, at: offset)
        store(sum.second, in: bytes, at: offset + 4)
    }

    private func frameSum(_ start: Int, from seed: Sum) -> Sum {
        let header = sum(of: start..<start + 8, from: seed)
        return sum(of: start + Self.frameHeaderSize..<start + frameSize, from: header)
    }

    private func sum(of range: Range<Int>, from seed: Sum) -> Sum { Self.sum(of: bytes[range], from: seed) }

    private static func sum(of bytes: Slice<UnsafeRawBufferPointer>, from seed: Sum) -> Sum {
        let words = UnsafeRawBufferPointer(rebasing: bytes)
        var sum = seed
        for offset in stride(from: 0, to: words.count, by: 8) {
            let (low, high) = (
                words.loadUnaligned(fromByteOffset: offset, as: UInt32.self),
                words.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)
            )
            sum.first &+= UInt32(littleEndian: low) &+ sum.second
            sum.second &+= UInt32(littleEndian: high) &+ sum.first
        }
        return sum
    }
}
