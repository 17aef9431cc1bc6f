// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Decodes the content of one part after the other. Bytes go in, lines come out.
struct LeafReader: ~Copyable {
    /// Bytes of UTF-8, before HTML becomes text.
    static let mostText = 1 << 20
    static let mostTextOfMessage = 4 << 20
    /// Bytes that are decoded at a time.
    private static let pieceSize = 16_384

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
    private var transfer = TransferDecoder(.identity)
    private var text = Text.none
    /// The beginning of a character.
    private var rest: [UInt8] = []
    private var lines: [UInt8] = []
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

    mutating func begin(_ part: Part, _ headers: ContentHeaders) {
        (self.part, self.headers) = (part, headers)
        transfer = TransferDecoder(.init(headers.encoding))
        text = .none
        if wantsText {
            charsets.beginText()
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
        rest.removeAll(keepingCapacity: true)
        head.removeAll(keepingCapacity: true)
    }

    mutating func update(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) {
        if !wantsAttachments, case .none = text { return }
        var start = 0
        while start < bytes.count {
            let end = min(start + Self.pieceSize, bytes.count)
            let count = transfer.decode(UnsafeRawBufferPointer(rebasing: bytes[start..<end]), to: buffer.start)
            take(UnsafeRawBufferPointer(start: buffer.start, count: count), isLast: false, &events)
            start = end
        }
    }

    mutating func finish(_ events: inout some PartEvents) {
        let count = transfer.finish(to: buffer.start)
        take(UnsafeRawBufferPointer(start: buffer.start, count: count), isLast: true, &events)
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
        guard !headers.charset.isEmpty else { return takeText(bytes, &events) }
        var converted: [UInt8] = []
        rest.append(contentsOf: bytes)
        rest = charsets.convert(piece: rest, from: headers.charset, isLast: isLast, to: &converted)
        if isLast, !rest.isEmpty { converted += Charsets.replacement }
        converted.withUnsafeBytes { takeText($0, &events) }
    }

    private mutating func takeText(_ bytes: UnsafeRawBufferPointer, _ events: inout some PartEvents) {
        let room = min(Self.mostText - textSize, Self.mostTextOfMessage - textOfMessage)
        let taken = UnsafeRawBufferPointer(rebasing: bytes.prefix(room))
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
        report(&events)
        if bytes.count > room { events.limitReached(.text, in: part) }
    }

    private mutating func report(_ events: inout some PartEvents) {
        guard !lines.isEmpty else { return }
        lines.withUnsafeBytes { events.text($0, of: part) }
        lines.removeAll(keepingCapacity: true)
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
        if FileType.of(head[...]) != AttachmentList.zip { archive = nil }
        events.attachment(PartListing(attachments, file, archive), of: part)
        archive = nil
    }
}

/// A buffer of a fixed size.
private final class PieceBuffer {
    let start: UnsafeMutablePointer<UInt8>

    init(_ count: Int) { start = .allocate(capacity: count) }

    deinit { start.deallocate() }
}
