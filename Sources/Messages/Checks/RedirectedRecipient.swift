// SPDX-License-Identifier: Apache-2.0

/// Whose parameters of RCPT (RFC 3461) a redirected message keeps. Postfix's queue manager delivers such a message
/// once, with those of the recipient that comes first in the order of bytes.
struct RedirectedRecipient {
    /// Separated by spaces.
    private(set) var parameters: [UInt8] = []
    /// nil before the first recipient.
    private var address: ArraySlice<UInt8>?

    /// - Parameter address: the internal form.
    mutating func add(_ address: ArraySlice<UInt8>, _ parameters: [UInt8]) {
        if let first = self.address, !address.lexicographicallyPrecedes(first) { return }
        (self.address, self.parameters) = (address, parameters)
    }
}
