// SPDX-License-Identifier: Apache-2.0
import Report
import Testing

@Suite struct AlertMarksTests {
    @Test func eachIsValidOnce() {
        let marks = AlertMarks()
        let (first, second) = (marks.make(), marks.make())
        #expect(first != second)
        #expect(!marks.redeem([]))
        #expect(!marks.redeem(Array(first.dropLast().utf8)))
        #expect(marks.redeem(Array(" \(first)".utf8)))
        #expect(!marks.redeem(Array(" \(first)".utf8)))
        #expect(marks.redeem(Array(second.utf8)))
    }

    @Test func areBounded() {
        let marks = AlertMarks()
        let made = (0..<150).map { _ in marks.make() }
        #expect(made.filter { marks.redeem(Array($0.utf8)) } == Array(made.suffix(100)))
    }
}
