// SPDX-License-Identifier: Apache-2.0
internal import Decoding

extension Target {
    /// The decoded text of a header is UTF-8 without control characters and within its bound. It does not depend on
    /// what was decoded before. Plain text stays as it is.
    static let decodedHeader = Target(name: "decoded-header") { input in
        let decoder = HeaderDecoder()
        let (first, second) = (decode(input, decoder), decode(input, decoder))
        precondition(first == second && first == decode(input, HeaderDecoder()))
        precondition(first.count <= HeaderDecoder.mostBytes)
        precondition(first.allSatisfy { $0 >= 0x20 && $0 != 0x7f })
        precondition(String(validating: first, as: UTF8.self) != nil)
        let isPlain = input.allSatisfy { 0x20...0x7e ~= $0 && $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "*") }
        if isPlain { precondition(first.elementsEqual(input)) }
    }
}

private func decode(_ header: UnsafeRawBufferPointer, _ decoder: HeaderDecoder) -> [UInt8] {
    var text: [UInt8] = []
    decoder.beginMessage()
    decoder.decode(header, into: &text)
    return text
}
