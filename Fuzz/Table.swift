// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Patterns
internal import Rules

extension Target {
    /// Parsing any table must not crash, warnings must have valid line numbers, and a key must match the same rule with
    /// and without the fast pass.
    ///
    /// The first byte chooses `pcre:` or `regexp:`, and whether the keys are decoded text; the table ends at the first
    /// 0xff, and a key follows.
    static let table = Target(name: "table") { input in
        var choices = Choices(input)
        let choice = choices.byte()
        let type: TableType = choice & 1 == 0 ? .pcre : .regexp
        let isForText = choice & 2 != 0
        let input = choices.rest
        let end = input.firstIndex(of: 0xff) ?? input.count
        let content = Array(input[..<end])
        let key = input.dropFirst(end + 1)
        // Nested repetition makes regcomp(3) allocate all memory.
        if type == .regexp, content.count(where: { $0 == UInt8(ascii: "{") }) > 1 || hasStackedCounts(content) {
            return
        }

        let table = Table(type: type, path: "table", content: content, isForText: isForText)
        let lines = content.count(where: { $0 == 0x0a }) + 1
        for fault in table.warnings { precondition(fault.line.map { 1...lines ~= $0 } ?? true) }
        let list = RuleList(tables: [table])
        precondition(list.lint(isBody: true).allSatisfy { $0.line.map { 1...lines ~= $0 } ?? true })
        guard !list.isEmpty, !isForText || isText(key) else { return }

        for isBody in isForText ? [false] : [false, true] {
            let pass = FastPass.build(for: list, body: isBody)
            // A body line has no newline.
            let subject = isBody ? key.prefix { $0 != 0x0a } : key
            // AddressSanitizer expects a NUL after the subject, although regexec(3) gets the length.
            (Array(subject) + [0]).withUnsafeBytes {
                compare(UnsafeRawBufferPointer(rebasing: $0.dropLast()), list, pass)
            }
        }
    }
}

/// Whether the key may be a decoded header: UTF-8 in NFC without control characters.
private func isText(_ key: some Collection<UInt8>) -> Bool {
    guard key.allSatisfy({ $0 >= 0x20 }), let text = String(validating: key, as: UTF8.self) else { return false }
    return Array(text.precomposedStringWithCanonicalMapping.utf8) == Array(key)
}

/// Nested repetition, such as `a+++++`.
private func hasStackedCounts(_ content: [UInt8]) -> Bool {
    zip(content, content.dropFirst()).contains { "+*?{".utf8.contains($0) && "+*?{".utf8.contains($1) }
}

private func compare(_ key: UnsafeRawBufferPointer, _ list: RuleList, _ pass: FastPass) {
    let matcher = Matcher(limits: MatchLimits(steps: 10_000))
    let slow = matcher.firstMatch(key, in: list)
    let fast = matcher.firstMatch(key: key, in: list, pass: pass)
    // The fast pass skips rules that can't match, so only the slow pass reaches their limits.
    guard matcher.givenUp.isEmpty else { return }
    precondition(slow?.rule == fast?.rule && slow?.text == fast?.text)
}
