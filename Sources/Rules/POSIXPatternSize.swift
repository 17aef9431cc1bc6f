// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// An estimate of the memory and stack that glibc needs to compile a pattern, to refuse the ones that need too much.
struct POSIXPatternSize {
    /// glibc copies what is repeated, and repeats of repeats multiply: sixty stacked `{2,}` would exhaust the memory.
    private static let mostPositions = 250_000
    /// Each level takes 700 bytes of stack, and some threads have only 2 MB.
    private static let mostNesting = 1_000
    /// Each takes up to 130 bytes of stack if it may match the empty string, and a group twice that.
    private static let mostOperators = 10_000

    /// Bytes, classes and the like, with all repeats expanded.
    private var positions = 0
    /// Groups, repeats, alternatives and assertions, with all repeats expanded.
    private var operators = 0

    /// Why `source` is too large; nil if it is not.
    static func excess(of source: [UInt8], isExtended: Bool) -> String? {
        var parser = Parser(source: source, isExtended: isExtended)
        let tooManyCopies = "pattern too large: its repeats expand to more than \(mostPositions) copies"
        while !parser.isAtEnd {
            if parser.groups[parser.groups.count - 1].positions > mostPositions { return tooManyCopies }
            if parser.groups.count > mostNesting {
                return "pattern too deep: its groups are nested more than \(mostNesting) deep"
            }
            parser.readItem()
        }
        let whole = parser.groups.reduce(into: POSIXPatternSize()) {
            $0.positions += $1.positions
            $0.operators += $1.operators
        }
        if whole.positions > mostPositions { return tooManyCopies }
        if whole.operators > mostOperators {
            return "pattern too large: it has more than \(mostOperators) groups, repeats and alternatives"
        }
        return nil
    }

    private func repeated(_ count: Int) -> POSIXPatternSize {
        POSIXPatternSize(
            positions: Self.product(positions, count, most: Self.mostPositions),
            operators: Self.product(operators, count, most: Self.mostOperators) + 1)
    }

    private static func product(_ count: Int, _ factor: Int, most: Int) -> Int {
        let (product, overflows) = count.multipliedReportingOverflow(by: max(factor, 1))
        return overflows ? most + 1 : min(product, most + 1)
    }

    private struct Parser {
        let source: [UInt8]
        let isExtended: Bool
        private var index = 0
        /// The sizes so far of the whole pattern and of the open groups, the innermost last.
        private(set) var groups = [POSIXPatternSize()]
        /// The size of the last item, which a quantifier multiplies.
        private var last = POSIXPatternSize()

        init(source: [UInt8], isExtended: Bool) {
            self.source = source
            self.isExtended = isExtended
        }

        var isAtEnd: Bool { index == source.count }

        mutating func readItem() {
            var byte = source[index]
            index += 1
            // Basic expressions have the operators with a backslash that extended ones have without.
            var isOperator = isExtended
            var isAssertion = "^$".utf8.contains(byte)
            if byte == UInt8(ascii: "\\"), !isAtEnd {
                byte = source[index]
                index += 1
                isOperator.toggle()
                isAssertion = "<>bB`'".utf8.contains(byte)
            } else if byte == UInt8(ascii: "[") {
                skipBrackets()
                return add(POSIXPatternSize(positions: 1))
            }
            switch byte {
            case UInt8(ascii: "(") where isOperator: groups.append(POSIXPatternSize(operators: 2))
            case UInt8(ascii: ")") where isOperator && groups.count > 1: add(groups.removeLast())
            case UInt8(ascii: "+") where isOperator: multiply(by: 2)
            case UInt8(ascii: "{") where isOperator: multiply(by: readInterval())
            case UInt8(ascii: "*"): multiply(by: 1)
            case UInt8(ascii: "?") where isOperator: multiply(by: 1)
            case UInt8(ascii: "}") where isOperator: break
            case UInt8(ascii: "|") where isOperator: add(POSIXPatternSize(operators: 1))
            default: add(POSIXPatternSize(positions: 1, operators: isAssertion ? 1 : 0))
            }
        }

        /// Skips to the closing bracket; one directly after the opening `[` or `[^` is literal.
        private mutating func skipBrackets() {
            let start = !isAtEnd && source[index] == UInt8(ascii: "^") ? index + 1 : index
            index = source.dropFirst(start + 1).firstIndex(of: UInt8(ascii: "]")).map { $0 + 1 } ?? source.count
        }

        /// The number of copies that `{n}`, `{n,}` or `{n,m}` makes.
        private mutating func readInterval() -> Int {
            let text = source[index...].prefix { $0.isDigit || $0 == UInt8(ascii: ",") }
            let bounds = text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
                .map { Int(String(decoding: $0, as: UTF8.self)) }
            index += text.count
            return bounds.last.flatMap { $0 } ?? (bounds.first.flatMap { $0 } ?? 0) + 1
        }

        private mutating func add(_ size: POSIXPatternSize) {
            groups[groups.count - 1].positions += size.positions
            groups[groups.count - 1].operators += size.operators
            last = size
        }

        private mutating func multiply(by count: Int) {
            groups[groups.count - 1].positions -= last.positions
            groups[groups.count - 1].operators -= last.operators
            add(last.repeated(count))
        }
    }
}
