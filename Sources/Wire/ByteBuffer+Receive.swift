// SPDX-License-Identifier: Apache-2.0
package import NIOCore

extension ByteBuffer {
    /// Appends what has come.
    ///
    /// - Parameters:
    ///   - most: bytes to make room for.
    ///   - read: writes what has come to the room, and says how much that is; nothing is taken where it is not above 0.
    /// - Returns: what `read` has.
    mutating func receive(upTo most: Int, _ read: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
        var count = 0
        writeWithUnsafeMutableBytes(minimumWritableBytes: most) { room in
            count = read(UnsafeMutableRawBufferPointer(rebasing: room[..<most]))
            return max(0, count)
        }
        if readableBytes == 0 { self = ByteBuffer() }
        return count
    }

    /// Gives the memory up that was read, and all of it where nothing is left.
    package mutating func giveUpRead() {
        if readableBytes == 0 { self = ByteBuffer() } else { discardReadBytes() }
    }
}
