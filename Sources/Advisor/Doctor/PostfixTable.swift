// SPDX-License-Identifier: Apache-2.0
import Settings

/// The entries of a lookup table of Postfix, such as `cidr:/etc/postfix/clients`.
struct PostfixTable {
    struct Entry {
        /// The address, pattern or network.
        let key: String
        let result: String
    }

    struct Failure: Error {
        let reason: String
    }

    let entries: [Entry]

    private static let largest = 16 << 20

    /// - Parameter name: with all parameters expanded.
    init(_ name: String) throws(Failure) {
        var (type, rest) = Self.parts(name)
        while type == "proxy" { (type, rest) = Self.parts(rest) }
        switch type {
        case "static":
            let inner = rest.first == "{" ? String(rest.dropFirst().dropLast()).trimmed : rest
            entries = [Entry(key: "everything", result: inner)]
        case "inline": entries = Self.words(inBracesOf: rest).compactMap(Self.pair)
        case "pcre", "regexp": entries = try Self.lines(rest).compactMap(Self.rule)
        case "cidr": entries = try Self.lines(rest).compactMap(Self.network)
        // postmap(1) has made the database from the text in the file without suffix.
        case "texthash", "hash", "btree", "lmdb", "cdb", "dbm", "sdbm":
            entries = try Self.lines(rest).compactMap(Self.line)
        default: throw Failure(reason: "not a table of text")
        }
    }

    private static func parts(_ name: String) -> (type: String, rest: String) {
        guard let colon = name.firstIndex(of: ":") else { return ("", name) }
        return (name[..<colon].lowercased(), String(name[name.index(after: colon)...]))
    }

    /// The logical lines of a file, or of a table in braces such as `cidr:{ { 192.0.2.0/24 OK } }`.
    private static func lines(_ place: String) throws(Failure) -> [String] {
        if place.first == "{" { return words(inBracesOf: place) }
        guard place.first == "/" else { throw Failure(reason: "not an absolute path") }
        switch BoundedFile.read(place, upTo: largest) {
        case .success(let bytes): return PostfixSetup.joined(String(decoding: bytes, as: UTF8.self))
        case .failure(let failure): throw Failure(reason: failure.description)
        }
    }

    private static func words(inBracesOf text: String) -> [String] {
        RestrictionList.words(text.dropFirst().dropLast()).map { word in
            word.first == "{" ? word.dropFirst().dropLast().trimmed : word
        }
    }

    /// `key = result`
    private static func pair(_ text: String) -> Entry? {
        guard let equals = text.firstIndex(of: "=") else { return nil }
        return Entry(key: text[..<equals].trimmed, result: text[text.index(after: equals)...].trimmed)
    }

    /// `key result`; the key may be in double quotes.
    private static func line(_ text: String) -> Entry? {
        guard text.first == "\"" else { return entry(text, keyEnd: text.firstIndex(where: isBlank)) }
        let rest = text.dropFirst()
        return entry(text, keyEnd: rest.firstIndex(of: "\"").map { rest.index(after: $0) })
    }

    /// `network result`; `if` and `endif` have no result.
    private static func network(_ text: String) -> Entry? {
        guard let end = text.firstIndex(where: isBlank), text[..<end].lowercased() != "if" else { return nil }
        return entry(text, keyEnd: end)
    }

    /// `/pattern/flags result`, `!/pattern/ result` or `/pattern/!/pattern/ result`; `if` and `endif` have no result.
    private static func rule(_ text: String) -> Entry? {
        var rest = text[...]
        repeat {
            rest = rest.drop { $0 == "!" || isBlank($0) }
            guard let delimiter = rest.popFirst(), !delimiter.isLetter, !delimiter.isNumber else { return nil }
            while let next = rest.popFirst(), next != delimiter {
                if next == "\\" { rest = rest.dropFirst() }
            }
            rest = rest.drop(while: \.isLetter)
        } while rest.first == "!"
        return entry(text, keyEnd: rest.startIndex)
    }

    private static func entry(_ text: String, keyEnd end: String.Index?) -> Entry? {
        end.map { Entry(key: text[..<$0].trimmed, result: text[$0...].trimmed) }
    }

    private static func isBlank(_ character: Character) -> Bool { character == " " || character == "\t" }
}
