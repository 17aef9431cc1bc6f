// SPDX-License-Identifier: Apache-2.0

/// A number with its noun: `1 message`, `2 messages`.
func quantity(_ number: some BinaryInteger, _ noun: String) -> String {
    "\(number) \(noun)\(number == 1 ? "" : "s")"
}
