// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import MailSyntax

/// Decodes the content of one part after the other. Bytes go in, lines come out.
struct LeafReader: ~Copyable {
    /// Bytes of UTF-8, before HTML becomes text.
    static let mostText = 1 << 20
    static let mostTextOfMessage = 4 << 20
    /// Bytes that are decoded at a time.
    private static let pieceSize = 16_384
    /// The same for lines that can't be taken as they are.
    private static let oddSize = 1_024

    private enum Text {
        /// The part is not text.
        case none
        case plain(PlainText)
        case html(HTMLText)
    }

    private let wantsText: Bool
    private let wantsAttachments: Bool
    private let buffer = PieceBuffer(pieceSize + TransferDecoder.margin)
    private var charsets = Charsets()
    private let attachments = AttachmentList()
    private let memory: (any SharedMemory)?

    private var part = Part(path: [], offset: 0)
    private var headers = ContentHeaders()
    private var isAmbiguous = false
    private var transfer = TransferDecoder(.identity)
    /// Whether the content is its own decoded form, but for its line ends.
    private var isIdentity = true
    /// Whether the bytes of the character set are UTF-8, or are taken for it; nil if that is not known yet.
    private var isUTF8: Bool?
    private var text = Text.none
    private var lines = LineBuffer(capacity: 2 * pieceSize)
    private var textSize = 0
    private var textOfMessage = 0
    private var size = 0
    private var head: [UInt8] = []
    /// nil for a part that does not begin like a zip archive.
    private var archive: KeptArchive?

    init(wantsText: Bool, wantsAttachments: Bool, memory: (any SharedMemory)?) {
        self.wantsText = wantsText
        self.wantsAttachments = wantsAttachments
        self.memory = memory
    }

    mutating func beginMessage() {
        (text, textOfMessage) = (.none, 0)
        archive = nil
        charsets.beginMessage()
        attachments.beginMessage()
    }

    /// - Parameter isAmbiguous: whether its headers, or those around it, contradict each other.
    mutating func begin(_ part: Part, _ headers: ContentHeaders, isAmbiguous: Bool) {
        (self.part, self.headers, self.isAmbiguous) = (part, headers, isAmbiguous)
        let encoding = TransferDecoder.Encoding(headers.encoding)
        transfer = TransferDecoder(encoding)
        isIdentity = encoding == .identity
        isUTF8 = headers.charset.isEmpty ? true : nil
        text = .none
        if wantsText {
            let type = headers.type
            if type.elementsEqual("text/html".utf8) || type.elementsEqual("application/xhtml+xml".utf8) {
                text = .html(HTMLText())
            } else if type.isEmpty || type.starts(with: "text/".utf8) || type.starts(with: "message/".utf8)
                || type.starts(with: "multipart/".utf8)
            {
                text = .plain(PlainText())
            }
        }
        (textSize, size, archive) = (0, 0, nil)
        head.removeAll(keepingCapacity: true)
    }

    mutating func update(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) {
        if !wantsAttachments, case .none = text { return }
        var start = 0
        while start < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[start...])
            var count = takeLines(rest, &events)
            if count == 0 {
                count = pieceLength(rest)
                let piece = UnsafeRawBufferPointer(rebasing: rest[..<count])
                let decoded = transfer.decode(piece, to: buffer.bytes.baseAddress!)
                take(buffer.prefix(decoded), isLast: false, &events)
            }
            start += count
            if lines.count >= Self.pieceSize { report(&events) }
        }
        report(&events)
    }

    /// Takes the lines of printable ASCII that the content begins with, if they are the text as it is.
    ///
    /// - Returns: how many bytes were taken.
    private mutating func takeLines(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) -> Int {
        guard isIdentity, isUTF8 == true, transfer.isAtStart, archive == nil,
            !wantsAttachments || head.count == FileType.headSize,
            case .plain(let plain) = text, plain.isAtLineStart,
            let start = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
        else { return 0 }
        let most = min(bytes.count, Self.pieceSize, room)
        let copied = weir_copy_lines(start, most, lines.place(for: most), TextLine.longest)
        lines.take(copied.written)
        let count = copied.read - copied.returns
        textSize += count
        textOfMessage += count
        size += count
        return copied.read
    }

    /// How many bytes to decode at once: up to the end of a line, if lines may be taken as they are after it.
    private func pieceLength(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard isIdentity, isUTF8 != false, case .plain = text else { return min(bytes.count, Self.pieceSize) }
        let most = min(bytes.count, Self.oddSize)
        return bytes[..<most].lastIndex(of: 0x0a).map { $0 + 1 } ?? most
    }

    /// Bytes of text that may still be shown.
    private var room: Int { min(Self.mostText - textSize, Self.mostTextOfMessage - textOfMessage) }

    mutating func finish(_ events: inout some PartEvents) {
        let count = transfer.finish(to: buffer.bytes.baseAddress!)
        take(buffer.prefix(count), isLast: true, &events)
        switch text {
        case .none: break
        case .plain(var plain): plain.finish(to: &lines)
        case .html(var html): html.finish(to: &lines)
        }
        text = .none
        report(&events)
        if wantsAttachments { list(&events) }
    }

    /// Takes decoded bytes.
    private mutating func take(_ bytes: UnsafeRawBufferPointer, isLast: Bool, _ events: inout some PartEvents) {
        if wantsAttachments { keep(bytes) }
        if case .none = text { return }
        if isUTF8 == nil, !bytes.isEmpty { isUTF8 = !charsets.beginText(from: headers.charset) }
        guard isUTF8 == false else { return takeText(bytes, &events) }
        var converted: [UInt8] = []
        charsets.convert(text: bytes, isLast: isLast, to: &converted)
        converted.withUnsafeBytes { takeText($0, &events) }
    }

    private mutating func takeText(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) {
        let room = room
        let taken = UnsafeBufferPointer(rebasing: bytes.assumingMemoryBound(to: UInt8.self).prefix(room))
        textSize += taken.count
        textOfMessage += taken.count
        switch text {
        case .none: return
        case .plain(var plain):
            text = .none
            plain.append(taken, to: &lines)
            if bytes.count > room { plain.finish(to: &lines) } else { text = .plain(plain) }
        case .html(var html):
            text = .none
            html.append(taken, to: &lines)
            if bytes.count > room { html.finish(to: &lines) } else { text = .html(html) }
        }
        if bytes.count > room {
            report(&events)
            events.limitReached(.text, in: part)
        }
    }

    private mutating func report(_ events: inout some PartEvents) {
        guard !lines.isEmpty else { return }
        events.text(lines.bytes, of: part)
        lines.removeAll()
    }

    // MARK: - Attachments

    private mutating func keep(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        let isFirst = size == 0
        size += bytes.count
        if head.count < FileType.headSize { head.append(contentsOf: bytes.prefix(FileType.headSize - head.count)) }
        if !head.starts(with: "PK".utf8.prefix(head.count)) {
            archive = nil
        } else if isFirst {
            archive = KeptArchive(memory)
        }
        archive?.append(bytes)
    }

    private mutating func list(_ events: inout some PartEvents) {
        var file = AttachmentList.File(path: part.path, names: headers.names, size: size)
        file.declared = headers.type.isEmpty ? Array("text/plain".utf8) : headers.type
        file.head = head[...]
        file.isAmbiguous = isAmbiguous
        if FileType.of(head[...]) != AttachmentList.zip { archive = nil }
        events.attachment(PartListing(attachments, file, archive), of: part)
        archive = nil
    }
}

/// A buffer of a fixed size.
private final class PieceBuffer {
    let bytes: UnsafeMutableBufferPointer<UInt8>

    init(_ count: Int) { bytes = .allocate(capacity: count) }

    deinit { bytes.deallocate() }

    func prefix(_ count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[..<count])
    }
}
