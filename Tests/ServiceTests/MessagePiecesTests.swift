// SPDX-License-Identifier: Apache-2.0
import Filter
import Messages
import Testing

@Suite struct MessagePiecesTests {
    @Test func longMessagesAreCut() {
        let most = MessagePieces.most
        let text: Verdict.Piece = .new([UInt8](repeating: UInt8(ascii: "x"), count: most + 1))
        var pieces = MessagePieces([.original(5..<5 + most), text, .original(10..<11 + 2 * most), .original(0..<1)])
        var found: [Verdict.Piece] = []
        while let piece = pieces.next() { found.append(piece) }
        #expect(
            found == [
                .original(5..<5 + most), text, .original(10..<10 + most), .original(10 + most..<10 + 2 * most),
                .original(10 + 2 * most..<11 + 2 * most), .original(0..<1),
            ])
    }
}
