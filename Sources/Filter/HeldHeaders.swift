// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Headers that wait until it is known whether the message has a DKIM-Signature, because sets depend on it.
struct HeldHeaders {
    /// Bytes of memory. A signature after that does not count.
    private static let most = 1 << 18

    fileprivate(set) var blocks: [(text: [UInt8], headers: [Header])] = []
    private var size = 0

    /// - Returns: whether there was room for the block.
    fileprivate mutating func append(_ block: HeaderBlock) -> Bool {
        size += block.text.count + block.headers.count * MemoryLayout<Header>.stride
        guard size <= Self.most else { return false }
        blocks.append((Array(block.text), block.headers))
        return true
    }
}

extension MessageChecker {
    /// Keeps headers, and lets all of them go if they say enough.
    mutating func hold(_ block: HeaderBlock) {
        guard held?.append(block) == true else {
            release(isSigned: false)
            return headers(block)
        }
        if block.headers.contains(where: { $0.place == .primary && $0.name == .dkimSignature }) {
            release(isSigned: true)
        }
    }

    /// Leaves out the sets that are for other messages, and checks the headers that have waited.
    mutating func release(isSigned: Bool) {
        guard let blocks = held?.blocks else { return }
        held = nil
        leaveOutSets(isSigned: isSigned)
        for (text, headers) in blocks {
            text.withUnsafeBytes { self.headers(HeaderBlock(text: $0, headers: headers)) }
        }
    }
}
