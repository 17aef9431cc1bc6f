// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// The type of a file by its first bytes. A table instead of libmagic: its patterns and decompression have no bound
/// that an event loop could rely on. The names are those of file(1).
enum FileType {
    /// Bytes that `of` looks at.
    static let headSize = 512

    /// The type; nil where the table knows none.
    static func of(_ head: ArraySlice<UInt8>) -> [UInt8]? {
        for (offset, magic, type) in table where head.dropFirst(offset).starts(with: magic) { return type }
        return html(head)
    }

    /// Whether bytes look like text: no control characters but white space, ESC and the like.
    static func isText(_ head: ArraySlice<UInt8>) -> Bool {
        head.allSatisfy { $0 >= 0x20 && $0 != 0x7f || 0x07...0x0d ~= $0 || $0 == 0x1b }
    }

    private static func html(_ head: ArraySlice<UInt8>) -> [UInt8]? {
        let text = head.drop(while: \.isSpace).prefix(16).map(\.lowercased)
        if text.starts(with: "<!doctype html".utf8) || text.starts(with: "<html".utf8) { return bytes("text/html") }
        if text.starts(with: "<?xml".utf8) { return bytes("text/xml") }
        return nil
    }

    /// Types that may contain encrypted files without a sign of it in what Weir reads.
    static let mayBeEncrypted = [
        "application/x-rar", "application/x-7z-compressed", "application/pdf", "application/x-ole-storage",
    ].map { Array($0.utf8) }

    private static func bytes(_ text: StaticString) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    private static let table: [(offset: Int, magic: [UInt8], type: [UInt8])] =
        ([
            (0, bytes("MZ"), "application/x-dosexec"),
            (0, [0x7f] + bytes("ELF"), "application/x-executable"),
            (0, [0xcf, 0xfa, 0xed, 0xfe], "application/x-mach-binary"),
            (0, [0xce, 0xfa, 0xed, 0xfe], "application/x-mach-binary"),
            (0, [0xca, 0xfe, 0xba, 0xbe], "application/x-java-applet"),
            (0, [0x4c, 0, 0, 0, 1, 0x14, 2, 0], "application/x-ms-shortcut"),
            (0, bytes("#!"), "text/x-shellscript"),
            (0, bytes("PK\u{3}\u{4}"), "application/zip"),
            (0, bytes("PK\u{5}\u{6}"), "application/zip"),
            (0, bytes("Rar!\u{1a}\u{7}"), "application/x-rar"),
            (0, bytes("7z") + [0xbc, 0xaf, 0x27, 0x1c], "application/x-7z-compressed"),
            (0, [0x1f, 0x8b], "application/gzip"),
            (0, bytes("BZh"), "application/x-bzip2"),
            (0, [0xfd] + bytes("7zXZ") + [0], "application/x-xz"),
            (0, [0x28, 0xb5, 0x2f, 0xfd], "application/zstd"),
            (0, bytes("MSCF"), "application/vnd.ms-cab-compressed"),
            (0, [0x60, 0xea], "application/x-arj"),
            (2, bytes("-lh"), "application/x-lzh-compressed"),
            (7, bytes("**ACE**"), "application/x-ace-compressed"),
            (257, bytes("ustar"), "application/x-tar"),
            (0, [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1], "application/x-ole-storage"),
            (
                0, [0xe4, 0x52, 0x5c, 0x7b, 0x8c, 0xd8, 0xa7, 0x4d, 0xae, 0xb1, 0x53, 0x78, 0xd0, 0x29, 0x96, 0xd3],
                "application/onenote"
            ),
            (0, [0x78, 0x9f, 0x3e, 0x22], "application/vnd.ms-tnef"),
            (0, bytes("ITSF"), "application/vnd.ms-htmlhelp"),
            (0, bytes("%PDF-"), "application/pdf"),
            (0, bytes("%!"), "application/postscript"),
            (0, bytes("{\\rtf"), "text/rtf"),
            (0, bytes("-----BEGIN PGP"), "application/pgp"),
            (0, [0x89] + bytes("PNG\r\n\u{1a}\n"), "image/png"),
            (0, [0xff, 0xd8, 0xff], "image/jpeg"),
            (0, bytes("GIF8"), "image/gif"),
            (8, bytes("WEBP"), "image/webp"),
            (0, bytes("II*\0"), "image/tiff"),
            (0, bytes("MM\0*"), "image/tiff"),
            (0, bytes("BM"), "image/bmp"),
            (0, [0, 0, 1, 0], "image/vnd.microsoft.icon"),
            (0, bytes("FWS"), "application/x-shockwave-flash"),
            (0, bytes("CWS"), "application/x-shockwave-flash"),
            (0, bytes("ID3"), "audio/mpeg"),
            (0, bytes("OggS"), "application/ogg"),
            (8, bytes("WAVE"), "audio/x-wav"),
            (8, bytes("AVI "), "video/x-msvideo"),
            (4, bytes("ftyp"), "video/mp4"),
            (0, bytes("SQLite format 3\0"), "application/vnd.sqlite3"),
        ] as [(Int, [UInt8], String)]).map { ($0, $1, Array($2.utf8)) }
}
