// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Converts text to UTF-8 with the character sets of the system's iconv.
///
/// What becomes of a text depends on nothing else, however iconv treats bytes that are not valid: each text has a new
/// converter, and a long text is converted in blocks of a fixed size.
///
/// iconv loads the module of a character set when it is first used. A decoder keeps the last few open, and tries only
/// so many of one message, as the sender chooses the names.
struct Charsets: ~Copyable {
    /// U+FFFD in UTF-8: stands for what can't be decoded.
    static let replacement: [UInt8] = [0xef, 0xbf, 0xbd]

    private struct Charset {
        let name: [UInt8]
        var converter: Converter
        /// Whether the current message has used it.
        var isUsed = true
    }

    private enum Converter {
        /// For UTF-8 and unknown names: the bytes stay as they are, and those that are not UTF-8 are replaced later.
        case none
        /// In its initial state.
        case utf7(UTF7)
        case iconv(IconvCharset)
    }

    /// The last used comes last.
    private var open: [Charset] = []
    /// How many the current message may still open. Those that an earlier message has left open count, too, so that a
    /// text does not depend on the messages before.
    private var openable = Charsets.mostOfMessage
    /// The converter of the current long text.
    private var converter = Converter.none
    /// Bytes of it that are not converted yet.
    private var block: [UInt8] = []

    private static let mostOpen = 16
    private static let mostOfMessage = 32
    /// Bytes.
    private static let blockSize = 4_096
    /// Bytes.
    private static let longestName = 40

    deinit { for charset in open { Self.close(charset) } }

    private static func close(_ charset: Charset) {
        if case .iconv(let iconv) = charset.converter { iconv.close() }
    }

    mutating func beginMessage() {
        openable = Self.mostOfMessage
        for index in open.indices { open[index].isUsed = false }
    }

    /// Appends `bytes`, which begin a text, as UTF-8; `name` is in lower case. What can't be converted becomes U+FFFD.
    ///
    /// - Returns: the bytes at the end that are the beginning of a character.
    mutating func convert(_ bytes: [UInt8], from name: [UInt8], to result: inout [UInt8]) -> [UInt8] {
        guard let index = charset(name) else {
            result += bytes
            return []
        }
        switch open[index].converter {
        case .none: result += bytes
        case .utf7(var utf7):
            utf7.decode(bytes, to: &result)
            utf7.finish(to: &result)
        case .iconv(let iconv):
            guard iconv.keepsASCII, bytes.allSatisfy({ 0x20...0x7e ~= $0 }) else {
                return renew(index, iconv).convert(bytes, to: &result, endsText: true, most: HeaderDecoder.mostBytes)
            }
            result += bytes
        }
        return []
    }

    /// Begins a long text. The last one may have been left before its end. Until the end of this one, nothing else may
    /// be converted.
    ///
    /// - Returns: whether the text must be converted. In UTF-8, and in an unknown character set, it stays as it is.
    mutating func beginText(from name: [UInt8]) -> Bool {
        block.removeAll(keepingCapacity: true)
        guard let index = charset(name) else { return false }
        converter = open[index].converter
        switch converter {
        case .none: return false
        case .utf7: break
        case .iconv(let iconv): converter = .iconv(renew(index, iconv))
        }
        return true
    }

    /// Appends the next bytes of a long text as UTF-8. Some of it may come with a later call.
    mutating func convert(text: UnsafeRawBufferPointer, isLast: Bool, to result: inout [UInt8]) {
        switch converter {
        case .none: return
        case .utf7(var utf7):
            utf7.decode(text, to: &result)
            if isLast { utf7.finish(to: &result) }
            converter = .utf7(utf7)
        case .iconv(let iconv):
            var text = text
            while !text.isEmpty {
                let count = min(text.count, Self.blockSize - block.count)
                block.append(contentsOf: text[..<count])
                text = UnsafeRawBufferPointer(rebasing: text[count...])
                if block.count == Self.blockSize { block = iconv.convert(block: block, endsText: false, to: &result) }
            }
            guard isLast else { return }
            if !iconv.convert(block: block, endsText: true, to: &result).isEmpty { result += Self.replacement }
            block.removeAll(keepingCapacity: true)
        }
    }

    // MARK: - Names

    private mutating func charset(_ name: [UInt8]) -> Int? {
        let index = open.lastIndex { $0.name == name }
        if index.map({ open[$0].isUsed }) != true {
            guard openable > 0 else { return nil }
            openable -= 1
        }
        if let index {
            if index != open.count - 1 { open.append(open.remove(at: index)) }
            open[open.count - 1].isUsed = true
        } else {
            if open.count == Self.mostOpen { Self.close(open.removeFirst()) }
            open.append(Charset(name: name, converter: Self.converter(name)))
        }
        return open.count - 1
    }

    private mutating func renew(_ index: Int, _ iconv: IconvCharset) -> IconvCharset {
        let new = iconv.renewed()
        open[index].converter = .iconv(new)
        return new
    }

    private static func converter(_ name: [UInt8]) -> Converter {
        // `//TRANSLIT` and the like are no part of a name.
        guard name.count <= longestName, name.allSatisfy({ $0.isAlphanumeric || "-_.:+()".utf8.contains($0) })
        else { return .none }
        // iconv ignores these characters, so `u(tf-7` must be known as what it is.
        let text = String(decoding: name.filter { !"+()".utf8.contains($0) }, as: UTF8.self)
        guard !text.isEmpty, let charset = usual[text] ?? text, !internalNames.contains(charset) else { return .none }
        switch charset {
        case "utf-7", "utf7": return .utf7(UTF7(forMailboxes: false))
        case "utf-7-imap": return .utf7(UTF7(forMailboxes: true))
        default: return IconvCharset(charset).map { .iconv($0) } ?? .none
        }
    }

    /// Names that stand for others in mail programs (WHATWG Encoding Standard 4.2). nil is UTF-8: text that claims to
    /// be ASCII is shown as UTF-8 if it is that.
    private static let usual: [String: String?] = [
        "utf-8": nil, "utf8": nil, "us-ascii": nil, "ascii": nil, "unknown-8bit": nil, "unicode-1-1-utf-8": nil,
        "iso-8859-1": "windows-1252", "latin1": "windows-1252", "latin-1": "windows-1252", "iso8859-1": "windows-1252",
        "iso_8859-1": "windows-1252", "cp-1252": "windows-1252", "iso-8859-9": "windows-1254", "latin5": "windows-1254",
        "iso-8859-11": "cp874", "tis-620": "cp874", "windows-874": "cp874", "iso-8859-8-i": "iso-8859-8",
        "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "gb_2312-80": "gb18030", "big5": "big5-hkscs",
        "shift_jis": "cp932", "shift-jis": "cp932", "sjis": "cp932", "x-sjis": "cp932", "ks_c_5601-1987": "cp949",
        "ks_c_5601-1989": "cp949", "euc-kr": "cp949", "x-mac-roman": "macintosh", "unicode": "utf-16",
        "unicode-1-1-utf-7": "utf-7", "csunicode11utf7": "utf-7", "csutf7": "utf-7",
    ]

    /// Names of iconv's for the program's own memory.
    private static let internalNames: Set<String> = ["internal", "wchar_t", "char", "ucs-4-internal", "ucs-2-internal"]
}
