// SPDX-License-Identifier: Apache-2.0

package enum WeirVersion {
    /// As CHANGELOG.md has it.
    package static let current = "0.1.0"
}
