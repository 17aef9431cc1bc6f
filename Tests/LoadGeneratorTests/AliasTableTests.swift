// SPDX-License-Identifier: Apache-2.0
import Glibc
import LoadGenerator
import Testing

@Suite struct AliasTableTests {
    private func zipfProbabilities(count: Int, exponent: Double) -> [Double] {
        let weights = (1...count).map { 1 / pow(Double($0), exponent) }
        return weights.map { $0 / weights.reduce(0, +) }
    }

    @Test(arguments: [1, 2, 3, 1000], [0, 0.5, 1, 1.1, 2.5])
    func `the columns add up to the exact probabilities`(count: Int, exponent: Double) {
        let table = AliasTable.zipf(count: count, exponent: exponent)
        var sums = [Double](repeating: 0, count: count)
        for (index, column) in table.columns.enumerated() {
            let own = Double(column.threshold) / 0x1p64
            sums[index] += own / Double(count)
            sums[Int(column.alias)] += (1 - own) / Double(count)
        }
        for (sum, probability) in zip(sums, zipfProbabilities(count: count, exponent: exponent)) {
            #expect(abs(sum - probability) < 1e-12)
        }
    }

    @Test func `draws follow the weights`() {
        let count = 50
        let draws = 1_000_000
        let table = AliasTable.zipf(count: count, exponent: 1.1)
        var random = SplitMix64(seed: 7)
        var counts = [Int](repeating: 0, count: count)
        for _ in 0..<draws { counts[table.draw(using: &random)] += 1 }
        var chiSquare = 0.0
        for (count, probability) in zip(counts, zipfProbabilities(count: count, exponent: 1.1)) {
            let expected = probability * Double(draws)
            chiSquare += (Double(count) - expected) * (Double(count) - expected) / expected
        }
        // Chi-squared with 49 degrees of freedom: one seed in 1,000 exceeds 85.4.
        #expect(chiSquare < 85.4)
    }

    @Test func `an index with weight zero is never drawn`() {
        let table = AliasTable(weights: [0, 3, 0, 1])
        var random = SplitMix64(seed: 1)
        let drawn = Set((0..<10_000).map { _ in table.draw(using: &random) })
        #expect(drawn == [1, 3])
    }
}

@Suite struct SplitMix64Tests {
    // The first numbers of the reference implementation, splitmix64.c, with this seed.
    @Test func `gives the published sequence`() {
        var random = SplitMix64(seed: 1_234_567)
        let numbers = (0..<5).map { _ in random.next() }
        #expect(
            numbers == [
                6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
                4_593_380_528_125_082_431, 16_408_922_859_458_223_821,
            ])
    }

    @Test func `bounded numbers reach both ends of the range`() {
        var random = SplitMix64(seed: 3)
        let drawn = Set((0..<1000).map { _ in random.next(below: 7) })
        #expect(drawn == Set(0..<7))
    }
}
