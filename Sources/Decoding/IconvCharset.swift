// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// A character set of iconv(3), with one converter. It is closed by hand.
struct IconvCharset {
    private let name: String
    private let handle: iconv_t
    /// Whether printable ASCII stands for itself, at the beginning of a text.
    let keepsASCII: Bool
    /// Whether it does so everywhere, and line ends, too.
    private let keepsText: Bool
    /// Bytes of the smallest character.
    private let unit: Int

    /// nil if iconv does not know the name, which is in lower case.
    init?(_ name: String) {
        guard let handle = Self.open(name) else { return nil }
        (self.name, self.handle) = (name, handle)
        let printable: [UInt8] = Array(0x20...0x7e)
        var converted: [UInt8] = []
        keepsASCII =
            Self.convert(printable, handle, 1, to: &converted, endsText: true, most: .max).isEmpty
            && converted == printable
        keepsText = keepsASCII && !Self.stateful.contains { name.hasPrefix($0) }
        converted = []
        _ = Self.convert([0, 0, 0, 0], handle, 1, to: &converted, endsText: true, most: .max)
        unit = converted == [0] ? 4 : converted == [0, 0] ? 2 : 1
    }

    /// How the names of character sets begin in which ASCII may stand for other characters in the middle of a text.
    private static let stateful = ["iso-2022", "iso2022", "csiso2022", "hz", "tscii"]

    private init(_ charset: IconvCharset, _ handle: iconv_t) {
        (name, self.handle) = (charset.name, handle)
        (keepsASCII, keepsText, unit) = (charset.keepsASCII, charset.keepsText, charset.unit)
    }

    /// The same with a new converter; this one is closed. iconv can't reset all, such as the byte order of UTF-16.
    func renewed() -> Self {
        guard let new = Self.open(name) else {
            // No memory.
            iconv(handle, nil, nil, nil, nil)
            return self
        }
        close()
        return Self(self, new)
    }

    func close() { iconv_close(handle) }

    private static func open(_ name: String) -> iconv_t? {
        guard let handle = iconv_open("UTF-8", name), Int(bitPattern: handle) != -1 else { return nil }
        return handle
    }

    /// Appends the next block of a long text as UTF-8.
    ///
    /// - Parameters:
    ///   - block: begins with what the last call has returned.
    ///   - endsText: the text ends here.
    /// - Returns: the bytes at the end that are the beginning of a character.
    func convert(block: [UInt8], endsText: Bool, to result: inout [UInt8]) -> [UInt8] {
        guard keepsText, block.allSatisfy({ 0x20...0x7e ~= $0 || 0x09...0x0a ~= $0 }) else {
            return convert(block, to: &result, endsText: endsText, most: .max)
        }
        // The converters of windows-1258 and the like hold back a letter that an accent may follow.
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { Self.finish(handle, $0, to: &result) }
        result += block
        return []
    }

    /// Appends `bytes` as UTF-8, until the result has `most` bytes. What can't be converted becomes U+FFFD.
    ///
    /// - Returns: the bytes at the end that are the beginning of a character.
    func convert(_ bytes: [UInt8], to result: inout [UInt8], endsText: Bool, most: Int) -> [UInt8] {
        Self.convert(bytes, handle, unit, to: &result, endsText: endsText, most: most)
    }

    private static func convert(
        _ bytes: [UInt8], _ handle: iconv_t, _ unit: Int, to result: inout [UInt8], endsText: Bool, most: Int
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
                            result += Charsets.replacement
                            return []
                        }
                        return rest
                    default:
                        // An invalid character. What follows it is shown.
                        result += Charsets.replacement
                        let skipped = min(unit, left)
                        input = input.map { $0 + skipped }
                        left -= skipped
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
}
