// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// A part, for the lines about it.
package final class PartListing {
    private let list: AttachmentList
    private let file: AttachmentList.File
    /// nil once it is read.
    private var archive: KeptArchive?
    private var written: [UInt8] = []
    /// What of the archive is left out. Known after `lines`.
    package private(set) var limit: PartLimit?

    init(_ list: AttachmentList, _ file: AttachmentList.File, _ archive: KeptArchive?) {
        self.list = list
        self.file = file
        self.archive = archive
    }

    /// Whether `lines` may take milliseconds.
    package var isArchive: Bool { archive != nil }

    /// The line of the part, and those of its entries, each with a newline. First to be called for one part after the
    /// other, in the order of the message: they share the bounds. May be called on any thread, but not while the reader
    /// is in use.
    package func lines() -> [UInt8] {
        if let archive {
            let missing = archive.isCut ? ZipDirectory.Missing.beginning : .nothing
            let isLimited = archive.bytes.withUnsafeBytes { list.add(file, $0, missing, to: &written) }
            limit = archive.isRefused ? .memory : isLimited ? .archive : nil
            self.archive = nil
        } else if written.isEmpty {
            list.add(file, to: &written)
        }
        return written
    }
}

/// Writes the lines about the parts of a message and the entries of their archives:
///
///     path; type/subtype; name="..."; declared="..."; size=...; encrypted=...
///
/// `damaged` at the end means that something can't be read, `limit` that something is left out because of a bound,
/// `ambiguous` that headers contradict each other.
final class AttachmentList {
    /// Entries of all archives of a message.
    static let mostEntries = 1_000
    /// Archives in archives.
    static let deepest = 3
    /// Bytes of an archive inside another one.
    static let largestArchive = 4 << 20
    /// Bytes that may be decompressed for a message.
    static let mostInflated = 1 << 20
    /// The most that a stored archive takes of them: reading its directory costs about as much.
    private static let mostCharged = 1 << 16
    /// Bytes of the text of a name.
    private static let longestName = 2_048

    private var entriesLeft = mostEntries
    private var inflateLeft = mostInflated
    private var charsets = Charsets()
    /// Whether a line has said `limit`.
    private var isLimited = false

    func beginMessage() {
        (entriesLeft, inflateLeft) = (Self.mostEntries, Self.mostInflated)
        charsets.beginMessage()
    }

    /// A file, as far as it is known.
    struct File {
        let path: [UInt8]
        /// UTF-8.
        var names: [[UInt8]]
        var declared: [UInt8] = []
        var size: Int
        /// Its first bytes; nil if they can't be read.
        var head: ArraySlice<UInt8>?
        var isEncrypted = false
        var isDamaged = false
        var isLimited = false
        var isAmbiguous = false
    }

    /// Appends the line of a part.
    func add(_ file: File, to lines: inout [UInt8]) { write(file, type: type(of: file), to: &lines) }

    /// Appends the lines of an archive and its entries.
    ///
    /// - Parameter archive: its bytes, as far as they were kept.
    /// - Returns: whether something is left out because of a bound.
    func add(
        _ file: File, _ archive: UnsafeRawBufferPointer, _ missing: ZipDirectory.Missing, to lines: inout [UInt8]
    ) -> Bool {
        isLimited = false
        list(file, archive, missing, depth: 1, to: &lines)
        return isLimited
    }

    // MARK: - Archives

    private func list(
        _ file: File, _ archive: UnsafeRawBufferPointer, _ missing: ZipDirectory.Missing, depth: Int,
        to lines: inout [UInt8]
    ) {
        let directory = ZipDirectory(archive, missing: missing, most: entriesLeft)
        entriesLeft -= directory.entries.count
        var file = file
        file.isEncrypted = directory.entries.contains(where: \.isEncrypted)
        file.isDamaged = file.isDamaged || directory.isDamaged
        file.isLimited = file.isLimited || directory.isLimited
        write(file, type: Self.typeOfZip(directory, archive), to: &lines)
        for (number, entry) in directory.entries.enumerated() {
            let path = file.path + Array("/\(number + 1)".utf8)
            add(entry, path, archive, depth: depth, to: &lines)
        }
    }

    private func add(
        _ entry: ZipDirectory.Entry, _ path: [UInt8], _ archive: UnsafeRawBufferPointer, depth: Int,
        to lines: inout [UInt8]
    ) {
        var file = File(path: path, names: names(of: entry), size: entry.size)
        file.isEncrypted = entry.isEncrypted
        file.isDamaged = entry.isDamaged
        file.isLimited = entry.isCut
        guard let data = entry.data, !entry.isEncrypted, !data.isEmpty else {
            return add(file, to: &lines)
        }
        let packed = UnsafeRawBufferPointer(rebasing: archive[data])
        file.head = unpack(packed, entry.method, most: FileType.headSize, &file)
        guard let head = file.head, FileType.of(head) == Self.zip else { return add(file, to: &lines) }
        guard depth < Self.deepest, entry.size <= Self.largestArchive, inflateLeft > 0 else {
            file.isLimited = true
            return write(file, type: Self.zip, to: &lines)
        }
        guard entry.method != 0 else {
            inflateLeft -= min(packed.count, Self.mostCharged)
            let inner = UnsafeRawBufferPointer(rebasing: packed.prefix(Self.largestArchive))
            let isCut = entry.isCut || inner.count < packed.count
            return list(file, inner, isCut ? .end : .nothing, depth: depth + 1, to: &lines)
        }
        guard let content = unpack(packed, entry.method, most: Self.largestArchive, &file) else { return }
        content.withUnsafeBytes { list(file, $0, file.isLimited ? .end : .nothing, depth: depth + 1, to: &lines) }
    }

    /// The first bytes of an entry; nil if its method is unknown or the budget is used up.
    private func unpack(
        _ packed: UnsafeRawBufferPointer, _ method: Int, most: Int, _ file: inout File
    ) -> ArraySlice<UInt8>? {
        guard inflateLeft > 0 || method != 0 && method != 8 else {
            file.isLimited = true
            return nil
        }
        switch method {
        case 0: return Array(packed.prefix(most))[...]
        case 8:
            var inflate = Inflate(packed, most: most, budget: inflateLeft)
            let end = inflate.run()
            inflateLeft -= inflate.spent
            // Where the data was cut, its end was not read.
            if case .damaged = end, !file.isLimited { file.isDamaged = true }
            if case .limit = end, most > FileType.headSize || inflate.output.count < most { file.isLimited = true }
            return inflate.output[...]
        default: return nil
        }
    }

    private func names(of entry: ZipDirectory.Entry) -> [[UInt8]] {
        let stored = [entry.name] + (entry.localName.map { [$0] } ?? [])
        let texts = stored.map { entry.isUTF8 ? $0 : text($0) } + entry.unicodeNames.map(text)
        var names: [[UInt8]] = []
        for name in texts where !names.contains(name) { names.append(name) }
        return names
    }

    /// APPNOTE D.1: CP437, but many programs write UTF-8 without saying so.
    private func text(_ name: [UInt8]) -> [UInt8] {
        if String(validating: name, as: UTF8.self) != nil { return name }
        var text: [UInt8] = []
        _ = charsets.convert(name, from: Array("cp437".utf8), to: &text)
        return text
    }

    // MARK: - Types

    static let zip = Array("application/zip".utf8)

    private func type(of file: File) -> [UInt8] {
        guard let head = file.head else { return Array("application/octet-stream".utf8) }
        guard !head.isEmpty else { return Array("inode/x-empty".utf8) }
        if let type = FileType.of(head) { return type }
        return Array((FileType.isText(head) ? "text/plain" : "application/octet-stream").utf8)
    }

    /// What the type of a document in an archive begins with, if its first entry gives that type. Any other stays a zip
    /// archive, whatever the sender has written there.
    private static let documentTypes = [
        "application/vnd.oasis.opendocument.", "application/vnd.sun.xml.", "application/epub+zip",
    ]

    /// Documents are archives with entries of certain names.
    private static func typeOfZip(_ directory: ZipDirectory, _ archive: UnsafeRawBufferPointer) -> [UInt8] {
        if let first = directory.entries.first, first.name.elementsEqual("mimetype".utf8), first.method == 0,
            let data = first.data, data.count < 100
        {
            let type = archive[data]
            let isKnown = documentTypes.contains { type.starts(with: $0.utf8) }
            if isKnown, type.allSatisfy({ $0.isAlphanumeric || "/.+-".utf8.contains($0) }) { return Array(type) }
        }
        let office = "application/vnd.openxmlformats-officedocument."
        var isOffice = false
        for entry in directory.entries where entry.name.elementsEqual("[Content_Types].xml".utf8) { isOffice = true }
        for entry in directory.entries {
            let name = entry.name
            if isOffice, name.starts(with: "word/".utf8) { return Array((office + "wordprocessingml.document").utf8) }
            if isOffice, name.starts(with: "xl/".utf8) { return Array((office + "spreadsheetml.sheet").utf8) }
            if isOffice, name.starts(with: "ppt/".utf8) { return Array((office + "presentationml.presentation").utf8) }
            if name.elementsEqual("AndroidManifest.xml".utf8) {
                return Array("application/vnd.android.package-archive".utf8)
            }
            if name.elementsEqual("META-INF/MANIFEST.MF".utf8) { return Array("application/java-archive".utf8) }
        }
        return zip
    }

    // MARK: - Lines

    private func write(_ file: File, type: [UInt8], to lines: inout [UInt8]) {
        lines += file.path + Array("; ".utf8) + type
        for name in file.names.isEmpty ? [[]] : file.names { Self.write("name", name, to: &lines) }
        Self.write("declared", file.declared, to: &lines)
        lines += Array("; size=\(file.size); encrypted=".utf8)
        let isUnknown = !file.isEncrypted && FileType.mayBeEncrypted.contains(type)
        lines += Array((isUnknown ? "unknown" : file.isEncrypted ? "yes" : "no").utf8)
        if file.isDamaged { lines += Array("; damaged".utf8) }
        if file.isLimited {
            lines += Array("; limit".utf8)
            isLimited = true
        }
        if file.isAmbiguous { lines += Array("; ambiguous".utf8) }
        lines.append(0x0a)
    }

    /// Writes `; name="value"`, with a `\` before `"` and `\`.
    private static func write(_ name: String, _ value: [UInt8], to lines: inout [UInt8]) {
        lines += Array("; \(name)=\"".utf8)
        var visible: [UInt8] = []
        VisibleText.append(value, to: &visible, most: longestName)
        for byte in visible {
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { lines.append(UInt8(ascii: "\\")) }
            lines.append(byte)
        }
        lines.append(UInt8(ascii: "\""))
    }
}
