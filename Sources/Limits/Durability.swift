// SPDX-License-Identifier: Apache-2.0

/// What a batch survives once its answers have gone out.
package enum Durability: String, CaseIterable, Sendable {
    /// A crash of the service (`kill -9`): the kernel has the batch. A loss of power takes what the kernel has not
    /// written back, by default at most the last 35 seconds.
    case commit
    /// A crash of the machine: the batch is on the disk (fsync).
    case power
    /// Neither: batches are written together, at most 100 ms later.
    case relaxed
}
