// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import MailSyntax

/// A pattern of a `regexp:` table on the system's own regex library, the one that Postfix uses.
final class POSIXPattern: Sendable {
    struct Options: OptionSet, Hashable {
        let rawValue: Int32
        static let extended = Options(rawValue: REG_EXTENDED)
        static let caseless = Options(rawValue: REG_ICASE)
        static let newlines = Options(rawValue: REG_NEWLINE)
        /// No groups are wanted: the matcher may stop at the first match it finds.
        static let noGroups = Options(rawValue: REG_NOSUB)
    }

    /// `regerror`'s words, or ours.
    struct Failure: Error {
        let message: String
    }

    // Safe to share: regexec takes the expression as const (POSIX), and glibc locks the caches
    // it keeps behind it; only init and deinit change it otherwise.
    nonisolated(unsafe) private let expression: UnsafeMutablePointer<regex_t>
    let groupCount: Int

    init(_ source: [UInt8], options: Options) throws(Failure) {
        if let excess = PatternSize.excess(of: source, isExtended: options.contains(.extended)) {
            throw Failure(message: excess)
        }
        let expression = UnsafeMutablePointer<regex_t>.allocate(capacity: 1)
        expression.initialize(to: regex_t())
        let code = (source + [0]).withUnsafeBytes {
            regcomp(expression, $0.baseAddress!.assumingMemoryBound(to: CChar.self), options.rawValue)
        }
        guard code == 0 else {
            let failure = Failure(message: Self.message(code, expression))
            expression.deallocate()
            throw failure
        }
        self.expression = expression
        groupCount = expression.pointee.re_nsub
    }

    deinit {
        regfree(expression)
        expression.deallocate()
    }

    /// Searches `bytes`; fills `groups` from 0 on, with an offset of -1 for a group that took
    /// no part. The code is 0, `_REG_NOMATCH`, or what `message` explains.
    func match(
        _ bytes: UnsafeRawBufferPointer, groups: UnsafeMutableBufferPointer<regmatch_t>
    ) -> Int32 {
        groups[0].rm_so = 0
        groups[0].rm_eo = regoff_t(clamping: bytes.count)
        var empty: CChar = 0
        return withUnsafePointer(to: &empty) { empty in
            let base = bytes.baseAddress?.assumingMemoryBound(to: CChar.self) ?? empty
            let code = regexec(expression, base, groups.count, groups.baseAddress, REG_STARTEND)
            if code == 0 { Self.mend(groups) }
            return code
        }
    }

    /// glibc may say of a repeated group, in a pattern with `\1`, that it ends before it begins. Postfix takes that for empty.
    private static func mend(_ groups: UnsafeMutableBufferPointer<regmatch_t>) {
        for index in groups.indices where groups[index].rm_eo < groups[index].rm_so {
            groups[index].rm_eo = groups[index].rm_so
        }
    }

    func message(_ code: Int32) -> String { Self.message(code, expression) }

    private static func message(_ code: Int32, _ expression: UnsafePointer<regex_t>) -> String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
            regerror(code, expression, buffer.baseAddress, buffer.count)
            return String(cString: buffer.baseAddress!)
        }
    }
}

/// What a pattern costs glibc to compile, about.
private struct PatternSize {
    /// glibc copies what is repeated, and what holds repeats again: sixty stacked `{2,}` would take all memory there is.
    private static let mostPositions = 250_000
    /// Each takes 700 bytes of stack, in threads too that have but two megabytes.
    private static let mostNesting = 1_000
    /// Each takes up to 130 bytes of stack, where it may be passed over without text, and a group twice that.
    private static let mostOperators = 10_000

    /// Bytes, classes and the like when all repeats are written out.
    private var positions = 0
    /// Groups, repeats, alternatives and assertions then.
    private var operators = 0

    /// Why `source` would take too much; nil where it does not.
    static func excess(of source: [UInt8], isExtended: Bool) -> String? {
        var groups = [PatternSize()]
        var last = PatternSize()
        var index = 0
        func add(_ size: PatternSize) {
            groups[groups.count - 1].positions += size.positions
            groups[groups.count - 1].operators += size.operators
            last = size
        }
        func multiply(by factor: Int) {
            groups[groups.count - 1].positions -= last.positions
            groups[groups.count - 1].operators -= last.operators
            add(
                PatternSize(
                    positions: product(last.positions, factor, most: mostPositions),
                    operators: product(last.operators, factor, most: mostOperators) + 1))
        }
        while index < source.count {
            let positions = groups[groups.count - 1].positions
            if positions > mostPositions { return "its repeats multiply to more than \(mostPositions) copies" }
            if groups.count > mostNesting { return "its groups are more than \(mostNesting) deep" }
            var byte = source[index]
            index += 1
            // What an operator is with a backslash in a basic expression, it is without one in an extended one.
            var isOperator = isExtended
            var isAssertion = "^$".utf8.contains(byte)
            if byte == UInt8(ascii: "\\"), index < source.count {
                byte = source[index]
                index += 1
                isOperator.toggle()
                isAssertion = "<>bB`'".utf8.contains(byte)
            } else if byte == UInt8(ascii: "[") {
                // Its end is a bracket that is not its first byte.
                let start = index < source.count && source[index] == UInt8(ascii: "^") ? index + 1 : index
                index = source.dropFirst(start + 1).firstIndex(of: UInt8(ascii: "]")).map { $0 + 1 } ?? source.count
                add(PatternSize(positions: 1))
                continue
            }
            switch byte {
            case UInt8(ascii: "(") where isOperator: groups.append(PatternSize(operators: 2))
            case UInt8(ascii: ")") where isOperator && groups.count > 1: add(groups.removeLast())
            case UInt8(ascii: "+") where isOperator: multiply(by: 2)
            case UInt8(ascii: "{") where isOperator:
                let text = source[index...].prefix { $0.isDigit || $0 == UInt8(ascii: ",") }
                let bounds = text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
                    .map { Int(String(decoding: $0, as: UTF8.self)) }
                index += text.count
                multiply(by: bounds.last.flatMap { $0 } ?? (bounds.first.flatMap { $0 } ?? 0) + 1)
            case UInt8(ascii: "*"): multiply(by: 1)
            case UInt8(ascii: "?") where isOperator: multiply(by: 1)
            case UInt8(ascii: "}") where isOperator: break
            case UInt8(ascii: "|") where isOperator: add(PatternSize(operators: 1))
            default: add(PatternSize(positions: 1, operators: isAssertion ? 1 : 0))
            }
        }
        let whole = groups.reduce(into: PatternSize()) {
            $0.positions += $1.positions
            $0.operators += $1.operators
        }
        if whole.positions > mostPositions { return "its repeats multiply to more than \(mostPositions) copies" }
        if whole.operators > mostOperators {
            return "it has more than \(mostOperators) groups, repeats and alternatives"
        }
        return nil
    }

    private static func product(_ count: Int, _ factor: Int, most: Int) -> Int {
        let (product, overflows) = count.multipliedReportingOverflow(by: max(factor, 1))
        return overflows ? most + 1 : min(product, most + 1)
    }
}
