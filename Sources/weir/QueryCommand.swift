// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import Patterns
import Rules

/// `weir query`: one lookup in a table, with postmap(1)'s output and exit status.
struct QueryCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "query",
        abstract: "Looks up a key in a pcre: or regexp: table, as postmap -q does.",
        discussion: """
            Prints the result. With - as the key, reads keys from standard input, one per line, and prints each key \
            before its result.

            Exit status: 0 a rule matched, 1 no rule matched or the table can't be read.

            Example: weir query pcre:/etc/postfix/header_checks 'Subject: hello'
            """)

    @Flag(
        name: .shortAndLong,
        help: "Look up as header and body checks do: keys may hold any bytes, and an empty key matches nothing.")
    var checks = false

    @Flag(
        help: "Look up as the checks of decoded text do: patterns are about characters, and keys are UTF-8.")
    var decoded = false

    @Argument(help: "Table, as pcre:FILE or regexp:FILE.")
    var table: String

    @Argument(
        parsing: .captureForPassthrough,
        help: ArgumentHelp(
            "Key, which may start with a hyphen; - reads keys from standard input.", valueName: "key"))
    var keys: [String]

    private var key: String { keys[keys.endIndex - 1] }

    func validate() throws {
        guard keys.count == 1 || keys.count == 2 && keys[0] == "--" else {
            throw ValidationError("give one key")
        }
        guard !checks || !decoded else { throw ValidationError("give --checks or --decoded, not both") }
    }

    mutating func run() throws {
        let list: RuleList
        do {
            list = RuleList(tables: [try Table(named: table, isForText: decoded)])
        } catch {
            warn("fatal: \(error)".utf8)
            throw ExitCode.failure
        }
        for warning in list.tables[0].warnings { warn("warning: \(warning)".utf8) }

        var query = Query(list: list, isCheck: checks)
        let found = try key == "-" ? query.lookUpAll() : query.lookUp(rawArguments([key])[0], echo: false)
        if !found { throw ExitCode.failure }
    }
}

/// Looks up keys in one table.
private struct Query {
    let list: RuleList
    let isCheck: Bool
    /// PCRE2's own limits, as in Postfix.
    let matcher = Matcher(limits: .library)

    mutating func lookUpAll() throws -> Bool {
        var found = false
        for line in InputLines() {
            found = try lookUp(Array(line.prefix { $0 != 0 }), echo: true) || found
        }
        return found
    }

    /// Prints the result for `key`.
    ///
    /// - Returns: whether a rule matched.
    mutating func lookUp(_ key: [UInt8], echo: Bool) throws -> Bool {
        guard isCheck || isUTF8(key) else {
            warn(
                Array("warning: \(name): non-UTF-8 key \"".utf8) + shown(key)
                    + Array("\": malformed UTF-8 or invalid codepoint".utf8))
            return false
        }
        if isCheck, key.isEmpty { return false }
        matcher.message.reset()
        let match = key.withUnsafeBytes { matcher.firstMatch($0, in: list) }
        for rule in matcher.takeGivenUp() {
            let table = list.tables[0]
            let line = list.location(of: rule.rule).line
            warn("warning: \(table.type.rawValue) map \(table.path), line \(line): \(rule.reason)".utf8)
        }
        guard let match else { return false }
        guard isCheck || isUTF8(match.text) else {
            warn(
                Array("warning: \(name): key \"".utf8) + shown(key) + Array("\": non-UTF-8 value \"".utf8)
                    + shown(match.text)
                    + Array("\": malformed UTF-8 or invalid codepoint".utf8))
            warn("fatal: table \(name): query error".utf8)
            throw ExitCode.failure
        }
        if match.text.isEmpty {
            warn(
                Array("warning: table \(name): key ".utf8) + shown(key)
                    + Array(": empty string result is not allowed".utf8))
            warn("warning: table \(name) should return NO RESULT in case of NOT FOUND".utf8)
        }
        if echo { try StandardOutput.write(key + [UInt8(ascii: "\t")]) }
        try StandardOutput.write(match.text + [0x0a])
        return true
    }

    private var name: String { list.tables[0].name }

    private func isUTF8(_ bytes: [UInt8]) -> Bool {
        String(validating: bytes, as: UTF8.self) != nil
    }
}

private func warn(_ message: some Sequence<UInt8>) {
    StandardError.write(Array("weir query: ".utf8) + message + [0x0a])
}

/// Replaces unprintable bytes as Postfix does (`printable.c`), which treats a byte from 0xc2 to 0xfe and the bytes from
/// 0x80 to 0xbf after it as one character.
private func shown(_ bytes: [UInt8]) -> [UInt8] {
    var text = bytes
    var index = 0
    func isTail(_ index: Int) -> Bool { index < bytes.count && bytes[index] & 0xc0 == 0x80 }
    while index < bytes.count {
        switch bytes[index] {
        case 0x20...0x7e: break
        case 0xc2...0xfe where isTail(index + 1):
            while isTail(index + 1) { index += 1 }
        default: text[index] = UInt8(ascii: "?")
        }
        index += 1
    }
    return text
}
