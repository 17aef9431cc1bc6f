// SPDX-License-Identifier: Apache-2.0
import Report
import Testing

@Suite struct TagFiguresTests {
    @Test func rulesOfATagAreSummed() {
        let figures = TagFigures.summary(of: [("spam", 3), ("news", 0), ("spam", 4)])
        #expect(figures == [.init(tag: "spam", rules: 2, hits: 7), .init(tag: "news", rules: 1, hits: 0)])
    }

    /// Metrics have no more label values than that, whatever the tables contain.
    @Test func furtherTagsAreCountedTogether() {
        let tagged = (0..<150).map { (tag: "tag\($0)", hits: $0) }
        let figures = TagFigures.summary(of: tagged + [(tag: "tag99", hits: 1000), (tag: "tag100", hits: 1000)])
        #expect(figures.count == TagFigures.most + 1)
        #expect(figures[99] == .init(tag: "tag99", rules: 2, hits: 1099))
        #expect(figures[100] == .init(tag: "all others", rules: 51, hits: (100..<150).reduce(1000, +)))
        #expect(figures.dropLast().map(\.tag) == (0..<100).map { "tag\($0)" })
    }
}
