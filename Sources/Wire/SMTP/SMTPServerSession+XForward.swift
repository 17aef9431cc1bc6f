// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

extension SMTPServerSession {
    /// The value of an XFORWARD attribute of the transaction; nil without one, or if the client does not know it.
    package func forwarded(_ attribute: XForwardAttribute) -> [UInt8]? {
        for line in xforward {
            for word in line.readableBytesView.split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 < 0x20 }) {
                guard let equals = word.firstIndex(of: UInt8(ascii: "=")), word[..<equals].isWord(attribute.word)
                else { continue }
                let value = Self.withoutXText(word[(equals + 1)...])
                return value.isEmpty || value.elementsEqual("[UNAVAILABLE]".utf8) ? nil : value
            }
        }
        return nil
    }

    /// Decodes xtext (RFC 3461 4): `+3D` is `=`. Other text stays as it is.
    private static func withoutXText(_ text: ByteBufferView) -> [UInt8] {
        var result: [UInt8] = []
        var rest = text
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "+"), let code = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16),
                rest.count >= 2
            {
                result.append(code)
                rest = rest.dropFirst(2)
            } else {
                result.append(byte)
            }
        }
        return result
    }
}
