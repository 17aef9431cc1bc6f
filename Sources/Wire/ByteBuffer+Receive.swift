// SPDX-License-Identifier: Apache-2.0
package import NIOCore

extension ByteBuffer {
    /// Appends received bytes.
    ///
    /// - Parameters:
    ///   - most: the size of the space for `read`, in bytes.
    ///   - read: writes received bytes to that space and returns their number, or 0 or less if there are none.
    /// - Returns: the result of `read`.
    mutating func receive(upTo most: Int, _ read: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
        var count = 0
        writeWithUnsafeMutableBytes(minimumWritableBytes: most) { room in
            count = read(UnsafeMutableRawBufferPointer(rebasing: room[..<most]))
            return max(0, count)
        }
        if readableBytes == 0 { self = ByteBuffer() }
        return count
    }

    /// Frees the memory of bytes that were read; all memory if none are left.
    package mutating func giveUpRead() {
        if readableBytes == 0 { self = ByteBuffer() } else { discardReadBytes() }
    }
}
