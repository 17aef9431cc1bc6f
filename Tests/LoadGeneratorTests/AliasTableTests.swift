// SPDX-License-Identifier: Apache-2.0
import Glibc
import LoadGenerator
import Testing

@Suite struct AliasTableTests {
    /// The probability of each index, summed over the columns that can give it.
    private func probabilities(of table: AliasTable) -> [Double] {
        var sums = [Double](repeating: 0, count: table.columns.count)
        for (index, column) in table.columns.enumerated() {
            let own = Double(column.threshold) / 0x1p64
            sums[index] += own
            sums[Int(column.alias)] += 1 - own
        }
        return sums.map { $0 / Double(table.columns.count) }
    }

    @Test(arguments: [0, 0.5, 1, 1.1, 2.5]) func `zipf columns add up to the exact probabilities`(exponent: Double) {
        let count = 1000
        let weights = (1...count).map { 1 / pow(Double($0), exponent) }
        let sum = weights.reduce(0, +)
        for (drawn, weight) in zip(probabilities(of: .zipf(count: count, exponent: exponent)), weights) {
            #expect(abs(drawn - weight / sum) < 1e-12)
        }
    }
}
