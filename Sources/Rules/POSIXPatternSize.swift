// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// An estimate of the memory and stack that glibc needs to compile and match a pattern, to refuse those with which it
/// needs too much. With a repeated back-reference to a group that matched the empty string, it recurses without end
/// (CVE-2018-20796).
struct POSIXPatternSize {
    /// glibc copies what is repeated, and repeats of repeats multiply: sixty stacked `{2,}` would exhaust the memory.
    private static let mostPositions = 250_000
    /// Each level takes 700 bytes of stack, and some threads have only 2 MB.
    private static let mostNesting = 1_000
    /// Each takes up to 130 bytes of stack if it may match the empty string, and a group twice that.
    private static let mostOperators = 10_000

    /// An operator that may match the empty string is an epsilon transition, and each of them keeps a list of all that
    /// follow it.
    private static let longestStretch = 2_000
    /// For each assertion, glibc copies all the transitions that follow it: 64 assertions in a row are the most.
    private static let mostCopiedTransitions = 64 * 64
    private static let mostAssertions = 2_000

    /// Bytes, classes and the like, with all repeats expanded.
    private var positions = 0
    /// Groups, repeats, alternatives and assertions, with all repeats expanded.
    private var operators = 0
    /// `^`, `$` and the like, with all repeats expanded.
    private var assertions = 0
    /// The operators between two bytes that must match, where there are most.
    private var stretch = 0
    /// The assertions between two bytes that must match, where there are most.
    private var stretchAssertions = 0
    private var mayBeEmpty = false
    /// The groups that `\1` to `\9` refer to; bit 0 for the first.
    private var references: UInt16 = 0
    /// Those of them with a repeat around the reference.
    private var repeatedReferences: UInt16 = 0

    /// Why `source` is too large; nil if it is not.
    static func excess(of source: [UInt8], isExtended: Bool) -> String? {
        var parser = Parser(source: source, isExtended: isExtended)
        while !parser.isAtEnd {
            if parser.positions > mostPositions { return tooManyCopies }
            if parser.depth > mostNesting {
                return "pattern too deep: its groups are nested more than \(mostNesting) deep"
            }
            parser.readItem()
        }
        let size = parser.finish()
        if size.repeatedReferences & parser.emptyGroups != 0 {
            return "repeated back-reference to a group that may be empty: the system's library can end the process"
        }
        return size.excess
    }

    private static let tooManyCopies = "pattern too large: its repeats expand to more than \(mostPositions) copies"

    private var excess: String? {
        if positions > Self.mostPositions { return Self.tooManyCopies }
        if operators > Self.mostOperators {
            return "pattern too large: it has more than \(Self.mostOperators) groups, repeats and alternatives"
        }
        if assertions > Self.mostAssertions {
            return "pattern too large: it has more than \(Self.mostAssertions) assertions, such as ^ and $"
        }
        if stretch > Self.longestStretch || stretch * stretchAssertions > Self.mostCopiedTransitions {
            return "pattern too large: too many operators and assertions follow each other without a byte that must "
                + "match between them"
        }
        return nil
    }

    /// - Parameters:
    ///   - count: how many copies glibc makes.
    ///   - isLoop: a copy can be repeated without end.
    private func repeated(_ count: Int, isOptional: Bool, isLoop: Bool) -> POSIXPatternSize {
        var size = self
        size.repeatedReferences |= references
        size.positions = Self.product(positions, count, most: Self.mostPositions)
        size.operators = Self.product(operators, count, most: Self.mostOperators) + 1
        size.assertions = Self.product(assertions, isLoop ? 3 * count : count, most: Self.mostAssertions)
        size.mayBeEmpty = mayBeEmpty || isOptional
        // The time for an assertion in a loop doubles with each of them.
        let copies = (size.mayBeEmpty ? count : 1) * (isLoop && stretchAssertions > 0 ? 2 : 1)
        size.stretch = Self.product(stretch, copies, most: Self.longestStretch) + 1
        size.stretchAssertions = Self.product(stretchAssertions, copies, most: Self.longestStretch)
        return size
    }

    private static func product(_ count: Int, _ factor: Int, most: Int) -> Int {
        let (product, overflows) = count.multipliedReportingOverflow(by: max(factor, 1))
        return overflows ? most + 1 : min(product, most + 1)
    }

    /// An open group, or the whole pattern.
    private struct Group {
        /// All branches so far; its stretches are those of the branches that are complete.
        private(set) var size = POSIXPatternSize()
        /// The stretch at the end of the branch under way, and its assertions.
        private var run = 0
        private var runAssertions = 0
        /// The branch under way.
        private var branch = POSIXPatternSize(mayBeEmpty: true)
        /// Its bit in `references`; 0 after the ninth.
        let bit: UInt16

        init(number: Int) { bit = number < 9 ? 1 << number : 0 }

        mutating func append(_ item: POSIXPatternSize) {
            size.positions += item.positions
            size.operators += item.operators
            size.assertions += item.assertions
            size.references |= item.references
            size.repeatedReferences |= item.repeatedReferences
            run = min(run + item.stretch, POSIXPatternSize.longestStretch + 1)
            runAssertions = min(runAssertions + item.stretchAssertions, POSIXPatternSize.longestStretch + 1)
            branch.stretch = max(branch.stretch, run)
            branch.stretchAssertions = max(branch.stretchAssertions, runAssertions)
            guard !item.mayBeEmpty else { return }
            (run, runAssertions) = (item.stretch, item.stretchAssertions)
            branch.mayBeEmpty = false
        }

        /// Stretches of branches that may be empty follow from the same place, so they add up.
        mutating func endBranch() {
            let emptyBefore = size.mayBeEmpty
            if branch.mayBeEmpty && emptyBefore {
                size.stretch += branch.stretch
                size.stretchAssertions += branch.stretchAssertions
            } else {
                size.stretch = max(size.stretch, branch.stretch)
                size.stretchAssertions = max(size.stretchAssertions, branch.stretchAssertions)
            }
            size.mayBeEmpty = emptyBefore || branch.mayBeEmpty
            branch = POSIXPatternSize(mayBeEmpty: true)
            (run, runAssertions) = (0, 0)
        }

        mutating func beginAlternative() {
            endBranch()
            size.operators += 1
        }

        /// As an item of the group around it.
        mutating func close() -> POSIXPatternSize {
            endBranch()
            size.operators += 2
            size.stretch += 2
            return size
        }
    }

    private struct Parser {
        let source: [UInt8]
        let isExtended: Bool
        private var index = 0
        /// The whole pattern and the open groups, the innermost last.
        private var groups = [Group(number: 9)]
        private var groupCount = 0
        /// The closed groups that may match the empty string, as in `references`.
        private(set) var emptyGroups: UInt16 = 0
        /// The last item, which a quantifier multiplies. It is not in its group yet.
        private var last: POSIXPatternSize?

        init(source: [UInt8], isExtended: Bool) {
            self.source = source
            self.isExtended = isExtended
        }

        var isAtEnd: Bool { index == source.count }
        var depth: Int { groups.count }
        /// The positions of the innermost group.
        var positions: Int { groups[groups.count - 1].size.positions }

        mutating func readItem() {
            var byte = source[index]
            index += 1
            // Basic expressions have the operators with a backslash that extended ones have without.
            var isOperator = isExtended
            var assertions = "^$".utf8.contains(byte) ? 1 : 0
            if byte == UInt8(ascii: "\\"), !isAtEnd {
                byte = source[index]
                index += 1
                isOperator.toggle()
                // glibc takes \b and \B for an alternative of two assertions.
                assertions = "bB".utf8.contains(byte) ? 3 : "<>`'".utf8.contains(byte) ? 1 : 0
                if UInt8(ascii: "1")...UInt8(ascii: "9") ~= byte {
                    let bit: UInt16 = 1 << (byte - UInt8(ascii: "1"))
                    return add(POSIXPatternSize(positions: 1, mayBeEmpty: true, references: bit))
                }
            } else if byte == UInt8(ascii: "[") {
                skipBrackets()
                return add(POSIXPatternSize(positions: 1))
            }
            switch byte {
            case UInt8(ascii: "(") where isOperator:
                finishItem()
                groups.append(Group(number: groupCount))
                groupCount += 1
            case UInt8(ascii: ")") where isOperator && groups.count > 1:
                last = closeGroup()
            case UInt8(ascii: "+") where isOperator: multiply(by: 2, isLoop: true)
            case UInt8(ascii: "{") where isOperator: readInterval()
            case UInt8(ascii: "*"): multiply(by: 1, isOptional: true, isLoop: true)
            case UInt8(ascii: "?") where isOperator: multiply(by: 1, isOptional: true)
            case UInt8(ascii: "}") where isOperator: break
            case UInt8(ascii: "|") where isOperator:
                finishItem()
                groups[groups.count - 1].beginAlternative()
            default:
                add(
                    POSIXPatternSize(
                        positions: 1, operators: assertions, assertions: assertions, stretch: assertions,
                        stretchAssertions: assertions, mayBeEmpty: assertions > 0))
            }
        }

        /// The size of the whole, with groups that are not closed.
        mutating func finish() -> POSIXPatternSize {
            while groups.count > 1 { last = closeGroup() }
            finishItem()
            groups[0].endBranch()
            return groups[0].size
        }

        private mutating func closeGroup() -> POSIXPatternSize {
            finishItem()
            var group = groups.removeLast()
            let size = group.close()
            if size.mayBeEmpty { emptyGroups |= group.bit }
            return size
        }

        /// Skips to the closing bracket; one directly after the opening `[` or `[^` is literal.
        private mutating func skipBrackets() {
            let start = !isAtEnd && source[index] == UInt8(ascii: "^") ? index + 1 : index
            index = source.dropFirst(start + 1).firstIndex(of: UInt8(ascii: "]")).map { $0 + 1 } ?? source.count
        }

        /// `{n}`, `{n,}` or `{n,m}`. A larger number than `mostPositions` is too large in any case.
        private mutating func readInterval() {
            let text = source[index...].prefix { $0.isDigit || $0 == UInt8(ascii: ",") }
            let bounds = text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
                .map { Int(String(decoding: $0, as: UTF8.self)).map { min($0, POSIXPatternSize.mostPositions + 1) } }
            index += text.count
            let least = bounds.first.flatMap { $0 } ?? 0
            let most = bounds.last.flatMap { $0 }
            multiply(by: most ?? least + 1, isOptional: least == 0, isLoop: most == nil)
        }

        private mutating func add(_ size: POSIXPatternSize) {
            finishItem()
            last = size
        }

        private mutating func finishItem() {
            if let last { groups[groups.count - 1].append(last) }
            last = nil
        }

        private mutating func multiply(by count: Int, isOptional: Bool = false, isLoop: Bool = false) {
            last = last?.repeated(count, isOptional: isOptional, isLoop: isLoop)
        }
    }
}
