// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Patterns

/// Parses a table as `dict_pcre.c` and `dict_regexp.c` do, with their warnings: a rule that can't be used is skipped,
/// and the others apply.
struct TableParser {
    let type: TableType
    let path: String
    let isForText: Bool
    private(set) var statements: [Table.Statement] = []
    /// By statement.
    private(set) var tags: [Int: String] = [:]
    private(set) var faults: [TableFault] = []
    /// The indices of the open `if`s.
    private var open: [Int] = []
    private var line = 0
    /// The tag of the rule that is parsed.
    private var tag: String?
    /// The number of faults not kept.
    private var moreFaults = 0
    /// A file that is not a table, such as a database, may have a fault in every line.
    private static let mostFaults = 1_000

    init(type: TableType, path: String, isForText: Bool) {
        self.type = type
        self.path = path
        self.isForText = isForText
    }

    mutating func parse(_ content: [UInt8]) {
        var lines = LogicalLines(content)
        while let logical = lines.next() {
            tag = readTag(logical)
            line = logical.number
            if logical.text[0].isSpace {
                warnAboutIndent(logical.text)
                continue
            }
            // A C string in Postfix, so it ends at the first NUL; trailing white space is removed.
            let text = logical.text.prefix { $0 != 0 }
            // In the words of Postfix 3.9 and later.
            if text.count < logical.text.count { warn("text after null byte may be ignored") }
            let end = (text.lastIndex { !$0.isSpace } ?? -1) + 1
            if end > 0 { parseRule(text[..<end]) }
        }
        for index in open.reversed() {
            line = statements[index].line
            warn("IF has no matching ENDIF")
        }
        for stray in lines.strayTags { warnOfTag(stray, "belongs to no rule: it must stand directly above one") }
        if moreFaults > 0 {
            faults.append(
                TableFault(
                    severity: .warning, type: type.rawValue, path: path, line: nil,
                    message: "\(type) map \(path): and \(moreFaults) more"))
        }
    }

    private mutating func parseRule(_ text: ArraySlice<UInt8>) {
        if !text[0].isAlphanumeric {
            parseMatch(text)
            return
        }
        if tag != nil { warn("a tag above IF or ENDIF belongs to no rule") }
        if hasKeyword(text, "if", length: 2) {
            parseIf(text.dropFirst(2))
        } else if hasKeyword(text, "endif", length: 5) {
            parseEndif(text.dropFirst(5))
        } else {
            skip("ignoring unrecognized request")
        }
    }

    private func hasKeyword(
        _ text: ArraySlice<UInt8>, _ keyword: StaticString, length: Int
    ) -> Bool {
        text.prefix(length).equalsIgnoringCase(keyword)
            && (text.count == length || !text[length].isAlphanumeric)
    }

    private mutating func parseMatch(_ text: ArraySlice<UInt8>) {
        var rest = text
        guard let first = readPattern(&rest) else { return }
        var second: ParsedPattern?
        if type == .regexp, rest.first == UInt8(ascii: "!") {
            second = readPattern(&rest)
            if second == nil { return }
        }
        rest = rest.drop(while: \.isSpace)
        if rest.isEmpty { warn("no replacement text: using empty string") }
        guard let replacement = parseReplacement(rest, negated: first.negated),
            let expression = compile(first, wantsGroups: replacement.largestGroup > 0)
        else { return }
        guard replacement.largestGroup <= expression.groupCount else {
            skip(
                "out of range replacement index \"\(replacement.largestGroup)\": "
                    + "skipping this rule")
            return
        }
        var secondExpression: Expression?
        if let second {
            secondExpression = compile(second, wantsGroups: false)
            if secondExpression == nil { return }
        }
        append(.match(replacement), expression, secondExpression)
    }

    private mutating func parseReplacement(
        _ text: ArraySlice<UInt8>, negated: Bool
    ) -> Replacement? {
        let (replacement, replacementFaults) = Replacement.parse(text)
        for fault in replacementFaults { warn(about: fault, in: text) }
        guard let replacement else {
            skip("bad replacement syntax: skipping this rule")
            return nil
        }
        guard replacement.largestGroup == 0 || !negated else {
            skip("$number found in negative match replacement text: skipping this rule")
            return nil
        }
        return replacement
    }

    private mutating func parseIf(_ text: ArraySlice<UInt8>) {
        var rest = text.drop(while: \.isSpace)
        guard let pattern = readPattern(&rest) else { return }
        rest = rest.drop(while: \.isSpace)
        if !rest.isEmpty {
            warn("ignoring extra text after IF statement: \"\(printable(rest))\"")
            warn("do not prepend whitespace to statements between IF and ENDIF")
        }
        guard let expression = compile(pattern, wantsGroups: false) else { return }
        append(.if(endif: nil), expression, nil)
        open.append(statements.count - 1)
    }

    private mutating func parseEndif(_ text: ArraySlice<UInt8>) {
        guard let opened = open.popLast() else {
            warn("ignoring ENDIF without matching IF")
            return
        }
        if text.contains(where: { !$0.isSpace }) { warn("ignoring extra text after ENDIF") }
        let start = statements[opened]
        statements[opened] = Table.Statement(
            line: start.line, operation: .if(endif: statements.count),
            expression: start.expression, second: nil, enclosing: start.enclosing)
        append(.endif, nil, nil)
    }

    private mutating func append(
        _ operation: Table.Statement.Operation, _ expression: Expression?, _ second: Expression?
    ) {
        if case .match = operation { tags[statements.count] = tag }
        statements.append(
            Table.Statement(
                line: line, operation: operation, expression: expression, second: second,
                enclosing: open.last))
    }
}

// MARK: - Patterns

extension TableParser {
    private struct ParsedPattern {
        let source: [UInt8]
        let negated: Bool
        let flags: ArraySlice<UInt8>
    }

    /// Parses `!`s, the delimited pattern and its flags, and removes them from `rest`.
    private mutating func readPattern(_ rest: inout ArraySlice<UInt8>) -> ParsedPattern? {
        let start = rest.firstIndex { !$0.isSpace && $0 != UInt8(ascii: "!") } ?? rest.endIndex
        let negated = rest[..<start].count { $0 == UInt8(ascii: "!") } % 2 == 1
        guard start < rest.endIndex else {
            skip("no regexp: skipping this rule")
            return nil
        }
        let delimiter = rest[start]
        let end = closingDelimiter(rest[(start + 1)...], delimiter)
        guard end < rest.endIndex else {
            skip(
                "no closing regexp delimiter \"\(printable([delimiter]))\": "
                    + (type == .pcre ? "ignoring" : "skipping") + " this rule")
            return nil
        }
        let source = Array(rest[start + 1..<end])
        rest = rest[(end + 1)...]
        let flags = rest.prefix {
            !$0.isSpace && !(type == .regexp && $0 == UInt8(ascii: "!"))
        }
        rest = rest[flags.endIndex...]
        return checkFlags(flags)
            ? ParsedPattern(source: source, negated: negated, flags: flags) : nil
    }

    /// The index of the closing delimiter, or `endIndex`. A `\` escapes the next byte.
    private func closingDelimiter(_ text: ArraySlice<UInt8>, _ delimiter: UInt8) -> Int {
        var index = text.startIndex
        while index < text.endIndex, text[index] != delimiter || text[index] == UInt8(ascii: "\\") {
            if text[index] == UInt8(ascii: "\\") {
                // dict_regexp.c treats a `\` at the end of the line as the closing delimiter.
                if index + 1 == text.endIndex { return type == .regexp ? index : text.endIndex }
                index += 1
            }
            index += 1
        }
        return index
    }

    private mutating func checkFlags(_ flags: ArraySlice<UInt8>) -> Bool {
        let valid: [UInt8] = Array((type == .pcre ? "imsxAEU" : "imx").utf8)
        for flag in flags where !valid.contains(flag) {
            if type == .pcre, flag == UInt8(ascii: "X") {
                warn("ignoring obsolete regexp option \"X\"")
            } else {
                skip("unknown regexp option \"\(printable([flag]))\": skipping this rule")
                return false
            }
        }
        return true
    }

    private mutating func compile(_ pattern: ParsedPattern, wantsGroups: Bool) -> Expression? {
        switch type {
        case .pcre: compilePCRE(pattern)
        case .regexp: compilePOSIX(pattern, wantsGroups: wantsGroups)
        }
    }

    private mutating func compilePCRE(_ pattern: ParsedPattern) -> Expression? {
        var options: PatternOptions = isForText ? [.caseless, .dotAll, .unicode] : [.caseless, .dotAll]
        for flag in pattern.flags {
            switch flag {
            case UInt8(ascii: "i"): options.formSymmetricDifference(.caseless)
            case UInt8(ascii: "m"): options.formSymmetricDifference(.multiline)
            case UInt8(ascii: "s"): options.formSymmetricDifference(.dotAll)
            case UInt8(ascii: "x"): options.formSymmetricDifference(.extended)
            case UInt8(ascii: "A"): options.formSymmetricDifference(.anchored)
            case UInt8(ascii: "E"): options.formSymmetricDifference(.dollarEndOnly)
            case UInt8(ascii: "U"): options.formSymmetricDifference(.ungreedy)
            default: break
            }
        }
        do {
            return Expression(
                engine: .pcre(try Pattern(pattern.source, options: options)),
                negated: pattern.negated,
                source: PatternSource(bytes: pattern.source, syntax: .pcre(options)))
        } catch {
            skip("error in regex at offset \(error.offset): \(error.message)")
            return nil
        }
    }

    private mutating func compilePOSIX(
        _ pattern: ParsedPattern, wantsGroups: Bool
    ) -> Expression? {
        var options: POSIXPattern.Options = [.extended, .caseless]
        for flag in pattern.flags {
            switch flag {
            case UInt8(ascii: "i"): options.formSymmetricDifference(.caseless)
            case UInt8(ascii: "m"): options.formSymmetricDifference(.newlines)
            case UInt8(ascii: "x"): options.formSymmetricDifference(.extended)
            default: break
            }
        }
        let source = PatternSource(bytes: pattern.source, syntax: .posix(options))
        if !wantsGroups { options.insert(.noGroups) }
        do {
            return Expression(
                engine: .posix(try POSIXPattern(pattern.source, options: options)),
                negated: pattern.negated, source: source)
        } catch {
            skip(error.message)
            return nil
        }
    }
}

// MARK: - Tags

extension TableParser {
    /// In bytes.
    private static let longestTag = 64

    /// The tag of a line. A bad one counts as none; of several, the last counts.
    private mutating func readTag(_ logical: LogicalLines.Line) -> String? {
        for comment in logical.tags.dropLast() { warnOfTag(comment, "is not used: another tag follows") }
        guard let comment = logical.tags.last else { return nil }
        guard !comment.tag.isEmpty else {
            warnOfTag(comment, "is empty")
            return nil
        }
        guard comment.tag.count <= Self.longestTag else {
            warnOfTag(comment, "is longer than \(Self.longestTag) bytes")
            return nil
        }
        let tag = printable(comment.tag)
        guard tag.utf8.elementsEqual(comment.tag), !tag.unicodeScalars.contains(where: \.properties.isWhitespace) else {
            warnOfTag(comment, "has spaces, or characters that are not printable")
            return nil
        }
        return tag
    }

    private mutating func warnOfTag(_ comment: LogicalLines.TagComment, _ problem: String) {
        line = comment.number
        let text = comment.tag.prefix(Self.longestTag)
        warn("tag \"\(printable(text))\(text.count < comment.tag.count ? "..." : "")\" \(problem)")
    }
}

// MARK: - Faults

extension TableParser {
    private mutating func warn(_ message: String) { add(message, skipsRule: false) }

    private mutating func skip(_ message: String) { add(message, skipsRule: true) }

    private mutating func add(_ message: String, skipsRule: Bool) {
        guard faults.count < Self.mostFaults else {
            moreFaults += 1
            return
        }
        faults.append(
            TableFault(
                severity: .warning, type: type.rawValue, path: path, line: line,
                message: message, skipsRule: skipsRule))
    }

    private mutating func warn(about fault: ReplacementFault, in text: ArraySlice<UInt8>) {
        switch fault {
        case .truncated: warn("truncated macro reference: \"\(printable(text))\"")
        case .emptyName: warn("empty macro name: \"\(printable(text))\"")
        case .notANumber(let name):
            warn("non-numeric replacement index \"\(printable(name))\"")
        case .outOfRange(let name):
            let adjective = type == .pcre ? "out of range" : "out-of-range"
            warn("\(adjective) replacement index \"\(printable(name))\"")
        }
    }

    private mutating func warnAboutIndent(_ text: [UInt8]) {
        warn(
            "logical line must not start with whitespace: \"\(printable(text.prefix(30)))"
                + (text.count > 30 ? "...\"" : "\""))
    }
}

/// Bytes as text for a log or a terminal. As in Postfix's log, UTF-8 stays and everything else becomes `?`, and so do
/// invisible characters and those that change the direction of text (U+202E).
package func printable(_ bytes: some Sequence<UInt8>) -> String {
    var text = ""
    var decoder = UTF8()
    var iterator = bytes.makeIterator()
    while true {
        switch decoder.decode(&iterator) {
        case .scalarValue(let scalar): text.unicodeScalars.append(isPrintable(scalar) ? scalar : "?")
        case .error: text += "?"
        case .emptyInput: return text
        }
    }
}

private func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .lineSeparator, .paragraphSeparator: false
    // Persian and many languages of India need the joiners.
    case .format: scalar == "\u{200c}" || scalar == "\u{200d}"
    default: true
    }
}
