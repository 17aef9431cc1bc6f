// SPDX-License-Identifier: Apache-2.0
internal import CVectorscan
internal import Glibc
internal import Patterns
internal import Synchronization

private let lastNumber = Atomic<UInt64>(0)

/// The patterns of a list as one Vectorscan database. A single scan of many headers or body lines finds the rules that
/// may match each of them. PCRE2 or the regex library then decides.
package final class FastPass: Sendable {
    // Safe to share: a database is read-only once compiled, and scratch is per thread (Hyperscan API reference,
    // "Scratch space").
    nonisolated(unsafe) let database: OpaquePointer?
    let subject: FastPattern.Subject
    /// Identifies the pass. Unlike its address, it is never reused.
    let number: UInt64
    /// By rule number: whether the database has its pattern.
    private let covered: [Bool]
    /// The rules to try on every key, ascending: those not in the database, and negated ones.
    let always: [UInt32]
    /// The effort of negated rules, whose patterns may exceed a match limit where they do not match.
    private let efforts: [Int: Effort]
    /// The name of its file in the cache; nil without one.
    let cachedName: String?

    init(
        database: OpaquePointer?, subject: FastPattern.Subject, covered: [Bool], list: RuleList, cachedName: String?
    ) {
        self.database = database
        self.cachedName = cachedName
        self.subject = subject
        number = lastNumber.wrappingAdd(1, ordering: .relaxed).newValue
        self.covered = covered
        always = list.entries.indices.filter { rule in
            guard case .match = list.entries[rule].statement.operation else { return false }
            return !covered[rule] || list.entries[rule].statement.expression?.negated == true
        }.map(UInt32.init)
        var efforts: [Int: Effort] = [:]
        for (rule, entry) in list.entries.enumerated() where covered[rule] {
            guard let expression = entry.statement.expression, expression.negated, case .pcre = expression.engine else {
                continue
            }
            efforts[rule] = PatternRewriter.effort(of: expression.source, subject: subject)
        }
        self.efforts = efforts
    }

    deinit { hs_free_database(database) }

    var ruleCount: Int { covered.count }

    func covers(_ rule: Int) -> Bool { covered[rule] }

    /// Whether a negated rule whose pattern does not match may exceed a match limit, so that it does not apply.
    func mayExceed(_ limits: MatchLimits, rule: Int, _ expression: Expression, keyLength: Int) -> Bool {
        efforts[rule]?.mayExceed(limits, keyLength: keyLength, groupCount: expression.groupCount) ?? false
    }

    /// The rules whose pattern is not in the database.
    package var uncovered: [Int] { covered.indices.filter { !covered[$0] } }
}

extension RuleList {
    /// What the rules of the list match, in the rules for headers or the body.
    func subject(body: Bool) -> FastPattern.Subject { body ? .lines : isForText ? .decodedHeaders : .headers }
}

// MARK: - Building

extension FastPass {
    /// The patterns of a list that can be rewritten, in the order of its rules.
    struct Plan: Equatable {
        var rules: [UInt32] = []
        var patterns: [FastPattern] = []

        init(_ list: RuleList, subject: FastPattern.Subject) {
            for (rule, entry) in list.entries.enumerated() {
                guard let source = entry.statement.expression?.source,
                    let pattern = FastPattern(source, subject: subject)
                else { continue }
                rules.append(UInt32(rule))
                patterns.append(pattern)
            }
            reduceToKeywords()
        }

        /// Reduces patterns to their keyword, except where many share it: mail that contains it would have to be tried
        /// on all of them.
        private mutating func reduceToKeywords() {
            var sharing: [[UInt8]: Int] = [:]
            for pattern in patterns { if let keyword = pattern.keyword { sharing[keyword, default: 0] += 1 } }
            for index in patterns.indices {
                guard let keyword = patterns[index].keyword, sharing[keyword, default: 0] <= Self.mostSharing else {
                    continue
                }
                patterns[index].reduceToKeyword()
            }
        }

        private static let mostSharing = 2

        /// Removes the patterns at `positions`.
        mutating func remove(_ positions: Set<Int>) {
            let kept = rules.indices.filter { !positions.contains($0) }
            rules = kept.map { rules[$0] }
            patterns = kept.map { patterns[$0] }
        }
    }

    /// Compiles the patterns of `list`, or loads them from `cache`. Ten thousand patterns take seconds to compile.
    package static func build(
        for list: RuleList, body: Bool, cache: FastPassCache? = nil
    ) -> FastPass {
        let subject = list.subject(body: body)
        var plan = Plan(list, subject: subject)
        if let stored = cache?.load(plan, subject) {
            plan.remove(stored.refused)
            return FastPass(plan, stored.database, subject, list, cachedName: stored.name)
        }
        let (database, refused) = compile(plan)
        let name = cache?.store(database, refused: refused, plan, subject)
        plan.remove(refused)
        return FastPass(plan, database, subject, list, cachedName: name)
    }

    private convenience init(
        _ plan: Plan, _ database: OpaquePointer?, _ subject: FastPattern.Subject, _ list: RuleList, cachedName: String?
    ) {
        var covered = [Bool](repeating: false, count: list.entries.count)
        if database != nil { for rule in plan.rules { covered[Int(rule)] = true } }
        self.init(database: database, subject: subject, covered: covered, list: list, cachedName: cachedName)
    }

    /// Compiles all patterns but those that Vectorscan refuses, and returns the positions of these.
    private static func compile(_ plan: Plan) -> (OpaquePointer?, refused: Set<Int>) {
        guard !plan.rules.isEmpty else { return (nil, []) }
        if let database = compile(plan, without: []) { return (database, []) }
        let refused = Set(plan.patterns.indices.filter { !isValid(plan.patterns[$0]) })
        return (compile(plan, without: refused), refused)
    }

    private static func compile(_ plan: Plan, without refused: Set<Int>) -> OpaquePointer? {
        let kept = plan.patterns.indices.filter { !refused.contains($0) }
        // One allocation holds all expressions, each followed by a NUL.
        var text: [CChar] = []
        var offsets: [Int] = []
        for position in kept {
            offsets.append(text.count)
            text += plan.patterns[position].expression.map(CChar.init(bitPattern:)) + [0]
        }
        let flags = kept.map { compileFlags(of: plan.patterns[$0]) }
        let rules = kept.map { plan.rules[$0] }
        return text.withUnsafeBufferPointer { text in
            var expressions = offsets.map { offset in text.baseAddress.map { $0 + offset } }
            return expressions.withUnsafeMutableBufferPointer { expressions in
                var database: OpaquePointer?
                var failure: UnsafeMutablePointer<hs_compile_error_t>?
                hs_compile_multi(
                    expressions.baseAddress, flags, rules, UInt32(kept.count), UInt32(HS_MODE_BLOCK), nil,
                    &database, &failure)
                hs_free_compile_error(failure)
                return database
            }
        }
    }

    private static func compileFlags(of pattern: FastPattern) -> UInt32 {
        UInt32(HS_FLAG_MULTILINE) | (pattern.caseless ? UInt32(HS_FLAG_CASELESS) : 0)
            | (pattern.isUnicode ? UInt32(HS_FLAG_UTF8) : 0)
    }

    private static func isValid(_ pattern: FastPattern) -> Bool {
        var info: UnsafeMutablePointer<hs_expr_info_t>?
        var failure: UnsafeMutablePointer<hs_compile_error_t>?
        let text = pattern.expression.map(CChar.init(bitPattern:)) + [0]
        defer {
            free(info)
            hs_free_compile_error(failure)
        }
        return hs_expression_info(text, compileFlags(of: pattern), &info, &failure) == HS_SUCCESS
    }
}
