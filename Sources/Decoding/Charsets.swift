// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import MailSyntax

/// Converts text to UTF-8 with the character sets of the system's iconv.
///
/// iconv loads the module of a character set when it is first used. A decoder keeps the last few open, and tries only
/// so many of one message, as the sender chooses the names.
struct Charsets: ~Copyable {
    /// U+FFFD in UTF-8: stands for what can't be decoded.
    static let replacement: [UInt8] = [0xef, 0xbf, 0xbd]

    private struct Charset {
        let name: [UInt8]
        /// nil for UTF-8 and for unknown names: the bytes stay as they are, and those that are not UTF-8 are replaced
        /// later.
        let handle: iconv_t?
        /// Whether printable ASCII stands for itself, at the beginning of a text.
        let keepsASCII: Bool
        /// Whether it does so everywhere, and line ends, too.
        let keepsText: Bool
        /// Whether the current message has used it.
        var isUsed = true
    }

    /// The last used comes last.
    private var open: [Charset] = []
    /// How many the current message may still open. Those that an earlier message has left open count, too, so that a
    /// text does not depend on the messages before.
    private var openable = Charsets.mostOfMessage

    private static let mostOpen = 16
    private static let mostOfMessage = 32
    /// Bytes.
    private static let longestName = 40

    deinit { for charset in open { Self.close(charset) } }

    private static func close(_ charset: Charset) {
        if let handle = charset.handle { iconv_close(handle) }
    }

    mutating func beginMessage() {
        openable = Self.mostOfMessage
        for index in open.indices { open[index].isUsed = false }
    }

    /// Begins a long text. The last one may have been left before its end.
    func beginText() {
        for charset in open { if let handle = charset.handle { iconv(handle, nil, nil, nil, nil) } }
    }

    /// Appends `bytes` as UTF-8; `name` is in lower case. What can't be converted becomes U+FFFD. The state of the
    /// character set is the initial one, before and after.
    ///
    /// - Returns: the bytes at the end that are the beginning of a character.
    mutating func convert(_ bytes: [UInt8], from name: [UInt8], to result: inout [UInt8]) -> [UInt8] {
        guard let charset = charset(name), let handle = charset.handle else {
            result += bytes
            return []
        }
        if charset.keepsASCII, bytes.allSatisfy({ 0x20...0x7e ~= $0 }) {
            result += bytes
            return []
        }
        return Self.convert(bytes, handle, to: &result)
    }

    /// Whether text in a character set stays as it is: in UTF-8, and in one that is unknown.
    mutating func isUTF8(_ name: [UInt8]) -> Bool { charset(name)?.handle == nil }

    /// Appends the next piece of a long text as UTF-8. Between the pieces, nothing else may be converted.
    ///
    /// - Parameters:
    ///   - piece: begins with what the last call has returned.
    ///   - isLast: the text ends here, and the state of the character set is the initial one again.
    mutating func convert(
        piece: [UInt8], from name: [UInt8], isLast: Bool, to result: inout [UInt8]
    ) -> [UInt8] {
        guard let charset = charset(name), let handle = charset.handle else {
            result += piece
            return []
        }
        if charset.keepsText, piece.allSatisfy({ 0x20...0x7e ~= $0 || 0x09...0x0a ~= $0 }) {
            // The converters of windows-1258 and the like hold back a letter that an accent may follow.
            withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { Self.finish(handle, $0, to: &result) }
            result += piece
            return []
        }
        return Self.convert(piece, handle, to: &result, endsText: isLast, most: .max)
    }

    private static func convert(
        _ bytes: [UInt8], _ handle: iconv_t, to result: inout [UInt8], endsText: Bool = true,
        most: Int = HeaderDecoder.mostBytes
    ) -> [UInt8] {
        var bytes = bytes
        return bytes.withUnsafeMutableBytes { bytes in
            withUnsafeTemporaryAllocation(of: CChar.self, capacity: 1_024) { buffer in
                var input = bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
                var left = bytes.count
                while left > 0, result.count < most {
                    let before = left
                    let isDone = run(handle, &input, &left, buffer, to: &result)
                    if isDone { continue }
                    switch errno {
                    case E2BIG where left < before: continue
                    case EINVAL:
                        let rest = Array(bytes.suffix(left))
                        if endsText { finish(handle, buffer, to: &result) }
                        // A rest that is no beginning of a character could grow from word to word.
                        guard rest.count < 16 else {
                            result += replacement
                            return []
                        }
                        return rest
                    default:
                        // An invalid byte. What follows it is shown.
                        result += replacement
                        input = input.map { $0 + 1 }
                        left -= 1
                    }
                }
                if endsText { finish(handle, buffer, to: &result) }
                return []
            }
        }
    }

    /// Converts as much as fits into `buffer`. Returns false on an error.
    private static func run(
        _ handle: iconv_t, _ input: inout UnsafeMutablePointer<CChar>?, _ left: inout Int,
        _ buffer: UnsafeMutableBufferPointer<CChar>, to result: inout [UInt8]
    ) -> Bool {
        var output = buffer.baseAddress
        var room = buffer.count
        let code = iconv(handle, &input, &left, &output, &room)
        let failure = errno
        result += UnsafeRawBufferPointer(buffer).prefix(buffer.count - room)
        errno = failure
        return code != -1
    }

    /// Writes what the conversion has kept back, and resets its state.
    private static func finish(
        _ handle: iconv_t, _ buffer: UnsafeMutableBufferPointer<CChar>, to result: inout [UInt8]
    ) {
        var output = buffer.baseAddress
        var room = buffer.count
        iconv(handle, nil, nil, &output, &room)
        result += UnsafeRawBufferPointer(buffer).prefix(buffer.count - room)
    }

    // MARK: - Names

    private mutating func charset(_ name: [UInt8]) -> Charset? {
        let index = open.lastIndex { $0.name == name }
        if index.map({ open[$0].isUsed }) != true {
            guard openable > 0 else { return nil }
            openable -= 1
        }
        if let index {
            if index != open.count - 1 { open.append(open.remove(at: index)) }
            open[open.count - 1].isUsed = true
            return open.last
        }
        if open.count == Self.mostOpen { Self.close(open.removeFirst()) }
        open.append(Self.opened(name))
        return open.last
    }

    private static func opened(_ name: [UInt8]) -> Charset {
        let unknown = Charset(name: name, handle: nil, keepsASCII: true, keepsText: true)
        // `//TRANSLIT` and the like are no part of a name.
        guard name.count <= longestName, name.allSatisfy({ $0.isAlphanumeric || "-_.:+()".utf8.contains($0) })
        else { return unknown }
        // iconv ignores these characters, so `i(so-2022-jp` must be known as what it is.
        let text = String(decoding: name.filter { !"+()".utf8.contains($0) }, as: UTF8.self)
        guard !text.isEmpty else { return unknown }
        guard let charset = usual[text] ?? text, !internalNames.contains(charset) else { return unknown }
        guard let handle = iconv_open("UTF-8", charset), Int(bitPattern: handle) != -1 else { return unknown }
        let printable: [UInt8] = Array(0x20...0x7e)
        var converted: [UInt8] = []
        let keepsASCII = convert(printable, handle, to: &converted).isEmpty && converted == printable
        let hasState = stateful.contains { charset.hasPrefix($0) }
        return Charset(name: name, handle: handle, keepsASCII: keepsASCII, keepsText: keepsASCII && !hasState)
    }

    /// The beginnings of names of character sets in which ASCII may stand for other characters.
    private static let stateful = [
        "iso-2022", "iso2022", "csiso2022", "utf-7", "utf7", "hz", "unicode", "utf-16", "tscii",
    ]

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
    ]

    /// Names of iconv's for the program's own memory.
    private static let internalNames: Set<String> = ["internal", "wchar_t", "char", "ucs-4-internal", "ucs-2-internal"]
}
