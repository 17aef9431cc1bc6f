// SPDX-License-Identifier: Apache-2.0
package import Filter

/// The pieces of an edited message in order. A piece of the original is no longer than one read of a spool file.
package struct MessagePieces {
    private let pieces: [Verdict.Piece]
    private var index = 0
    /// Bytes of the piece at `index` that were returned already.
    private var given = 0

    package static let most = 128 << 10

    package init(_ pieces: [Verdict.Piece]) {
        self.pieces = pieces
    }

    package mutating func next() -> Verdict.Piece? {
        guard index < pieces.count else { return nil }
        let piece = pieces[index]
        if case .original(let range) = piece, range.count - given > Self.most {
            let start = range.lowerBound + given
            given += Self.most
            return .original(start..<start + Self.most)
        }
        defer { (index, given) = (index + 1, 0) }
        if case .original(let range) = piece { return .original(range.lowerBound + given..<range.upperBound) }
        return piece
    }
}
