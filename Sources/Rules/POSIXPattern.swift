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
        guard Self.positions(source, isExtended: options.contains(.extended)) <= Self.mostPositions else {
            throw Failure(message: "its repeats multiply to more than \(Self.mostPositions) copies")
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

    /// glibc copies what is repeated, and what holds repeats again: sixty stacked `{2,}` would take all memory there is.
    private static let mostPositions = 250_000

    /// How many bytes, classes and the like there are in `source` when all repeats are written out, about.
    private static func positions(_ source: [UInt8], isExtended: Bool) -> Int {
        var groups = [0]
        var last = 0
        var index = 0
        func add(_ count: Int) {
            groups[groups.count - 1] += count
            last = count
        }
        func multiply(by factor: Int) {
            let (product, overflows) = last.multipliedReportingOverflow(by: max(factor, 1))
            let grown = overflows ? mostPositions + 1 : min(product, mostPositions + 1)
            groups[groups.count - 1] += grown - last
            last = grown
        }
        while index < source.count, groups[groups.count - 1] <= mostPositions {
            var byte = source[index]
            index += 1
            // What an operator is with a backslash in a basic expression, it is without one in an extended one.
            var isOperator = isExtended
            if byte == UInt8(ascii: "\\"), index < source.count {
                byte = source[index]
                index += 1
                isOperator.toggle()
            } else if byte == UInt8(ascii: "[") {
                // Its end is a bracket that is not its first byte.
                let start = index < source.count && source[index] == UInt8(ascii: "^") ? index + 1 : index
                index = source.dropFirst(start + 1).firstIndex(of: UInt8(ascii: "]")).map { $0 + 1 } ?? source.count
                add(1)
                continue
            }
            switch byte {
            case UInt8(ascii: "(") where isOperator: groups.append(0)
            case UInt8(ascii: ")") where isOperator && groups.count > 1: add(groups.removeLast())
            case UInt8(ascii: "+") where isOperator: multiply(by: 2)
            case UInt8(ascii: "{") where isOperator:
                let text = source[index...].prefix { $0.isDigit || $0 == UInt8(ascii: ",") }
                let bounds = text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
                    .map { Int(String(decoding: $0, as: UTF8.self)) }
                index += text.count
                multiply(by: bounds.last.flatMap { $0 } ?? (bounds.first.flatMap { $0 } ?? 0) + 1)
            case UInt8(ascii: "*"): break
            case UInt8(ascii: "?") where isOperator, UInt8(ascii: "}") where isOperator: break
            default: add(1)
            }
        }
        return groups.reduce(0, +)
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
            return regexec(expression, base, groups.count, groups.baseAddress, REG_STARTEND)
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
