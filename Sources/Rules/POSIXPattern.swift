// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import MailSyntax

/// A pattern of a `regexp:` table, compiled by the regex library of the system, as in Postfix.
final class POSIXPattern: Sendable {
    struct Options: OptionSet, Hashable {
        let rawValue: Int32
        static let extended = Options(rawValue: REG_EXTENDED)
        static let caseless = Options(rawValue: REG_ICASE)
        static let newlines = Options(rawValue: REG_NEWLINE)
        /// No groups are needed, so the matcher may stop at the first match.
        static let noGroups = Options(rawValue: REG_NOSUB)
    }

    /// The message is that of regerror(3), or of `POSIXPatternSize`.
    struct Failure: Error {
        let message: String
    }

    // Safe to share: regexec takes the expression as const (POSIX), and glibc locks its caches. Only init and deinit
    // change the expression itself.
    nonisolated(unsafe) private let expression: UnsafeMutablePointer<regex_t>
    let groupCount: Int
    /// Whether it may have a back-reference, for which regexec takes exponential time.
    let refersBack: Bool

    init(_ source: [UInt8], options: Options) throws(Failure) {
        if let excess = POSIXPatternSize.excess(of: source, isExtended: options.contains(.extended)) {
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
        refersBack = zip(source, source.dropFirst()).contains {
            $0 == UInt8(ascii: "\\") && UInt8(ascii: "1")...UInt8(ascii: "9") ~= $1
        }
    }

    deinit {
        regfree(expression)
        expression.deallocate()
    }

    /// Searches `bytes` and fills `groups`, with an offset of -1 for a group that took no part. Returns 0,
    /// `_REG_NOMATCH`, or an error for `message`.
    func match(
        _ bytes: UnsafeRawBufferPointer, groups: UnsafeMutableBufferPointer<regmatch_t>
    ) -> Int32 {
        groups[0].rm_so = 0
        groups[0].rm_eo = regoff_t(clamping: bytes.count)
        var empty: CChar = 0
        return withUnsafePointer(to: &empty) { empty in
            let base = bytes.baseAddress?.assumingMemoryBound(to: CChar.self) ?? empty
            let code = regexec(expression, base, groups.count, groups.baseAddress, REG_STARTEND)
            if code == 0 { Self.repair(groups) }
            return code
        }
    }

    /// In a pattern with `\1`, glibc may return a repeated group that ends before it begins. Postfix treats it as
    /// empty.
    private static func repair(_ groups: UnsafeMutableBufferPointer<regmatch_t>) {
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
