// SPDX-License-Identifier: Apache-2.0
internal import Glibc

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

    /// `regerror`'s words.
    struct Failure: Error {
        let message: String
    }

    // Safe to share: regexec takes the expression as const (POSIX), and glibc locks the caches
    // it keeps behind it; only init and deinit change it otherwise.
    nonisolated(unsafe) private let expression: UnsafeMutablePointer<regex_t>
    let groupCount: Int

    init(_ source: [UInt8], options: Options) throws(Failure) {
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
