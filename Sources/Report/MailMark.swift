// SPDX-License-Identifier: Apache-2.0

/// Marks mail that Weir itself has sent: 32 random hexadecimal digits.
func newMailMark() -> String {
    (0..<4).map { _ in String(UInt32.random(in: 0x1000_0000...(.max)), radix: 16) }.joined()
}
