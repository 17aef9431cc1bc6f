// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Draws an index with a given probability in constant time (Walker's alias method, built as by Vose 1991).
package struct AliasTable: Sendable {
    /// Holds one n-th of the probability: its own index below `threshold` (in units of 2^-64), `alias` above it.
    package struct Column: Sendable {
        package var threshold: UInt64
        package var alias: UInt32
    }

    package let columns: [Column]

    /// - Precondition: 1 to 2^32 weights, none negative, their sum above zero.
    package init(weights: [Double]) {
        let sum = weights.reduce(0, +)
        precondition(!weights.isEmpty && sum > 0 && weights.allSatisfy { $0 >= 0 })
        var shares = weights.map { $0 / sum * Double(weights.count) }
        var columns = weights.indices.map { Column(threshold: .max, alias: UInt32($0)) }
        var small = shares.indices.filter { shares[$0] < 1 }
        var large = shares.indices.filter { shares[$0] >= 1 }
        while let giver = large.last, let taker = small.popLast() {
            columns[taker] = Column(threshold: UInt64(shares[taker] * 0x1p64), alias: UInt32(giver))
            shares[giver] -= 1 - shares[taker]
            if shares[giver] < 1 {
                large.removeLast()
                small.append(giver)
            }
        }
        self.columns = columns
    }

    /// Index i (from 0) has a probability proportional to 1 / (i + 1)^exponent; an exponent of 0 is uniform.
    package static func zipf(count: Int, exponent: Double) -> AliasTable {
        AliasTable(weights: (1...count).map { 1 / pow(Double($0), exponent) })
    }

    package func draw(using random: inout SplitMix64) -> Int {
        let (index, fraction) = random.next().multipliedFullWidth(by: UInt64(columns.count))
        let column = columns[Int(index)]
        return fraction < column.threshold ? Int(index) : Int(column.alias)
    }
}
