// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// What the Content- headers of a part say.
struct ContentHeaders {
    /// In lower case, such as `text/plain`; empty without a Content-Type.
    private(set) var type: [UInt8] = []
    var hasParts: Bool { type.starts(with: "multipart/".utf8) && !boundaries.isEmpty }
    /// In lower case.
    private(set) var charset: [UInt8] = []
    private(set) var encoding: [UInt8] = []
    /// Where there are several, mail programs use the first or the last.
    private(set) var boundaries: [[UInt8]] = []
    /// The names of the file in UTF-8: those of Content-Disposition, and those of Content-Type that differ.
    var names: [[UInt8]] {
        var names: [[UInt8]] = []
        for name in dispositionNames + typeNames where !names.contains(name) { names.append(name) }
        return names
    }
    private var dispositionNames: [[UInt8]] = []
    private var typeNames: [[UInt8]] = []
    private var hasEncoding = false
    /// What another Content-Type than that with parts says.
    private var single: (type: [UInt8], charset: [UInt8])?
    /// Whether the headers contradict each other, so that mail programs may show something else.
    private(set) var isAmbiguous = false
    /// The same for content without parts.
    var withoutParts: ContentHeaders {
        var headers = self
        if let single { (headers.type, headers.charset) = single }
        return headers
    }

    /// Bytes. RFC 2046 5.1.1 allows 70.
    private static let longestBoundary = 2_048

    /// Whether a boundary was too long to be kept.
    private(set) var isCut = false

    /// Reads a header without folds. Of several with one name, the first counts, but a Content-Type for `multipart/*`
    /// with a boundary before others. Mail programs differ there, and rules for parts must see the parts.
    mutating func read(_ header: [UInt8], _ decoder: HeaderDecoder) {
        let name = header.fieldName
        if name.equalsIgnoringCase("content-type") {
            guard !hasParts || single == nil else { return }
            var other = ContentHeaders()
            other.readType(header, decoder)
            add(other)
        } else if name.equalsIgnoringCase("content-disposition") {
            if dispositionNames.isEmpty {
                dispositionNames = Self.names(Parameters(Self.decoded(header, decoder)), ["filename", "name"])
            }
        } else if name.equalsIgnoringCase("content-transfer-encoding") {
            let other = Parameters(header).value.map(\.lowercased)
            guard hasEncoding else { return (hasEncoding, encoding) = (true, other) }
            if TransferDecoder.Encoding(other) != TransferDecoder.Encoding(encoding) { isAmbiguous = true }
        }
    }

    /// Adds a Content-Type.
    private mutating func add(_ other: ContentHeaders) {
        let isFirst = type.isEmpty
        let isSame = other.type == type && other.charset == charset && other.boundaries == boundaries
        isAmbiguous = isAmbiguous || other.isAmbiguous || !isFirst && !isSame
        guard isFirst || other.hasParts && !hasParts else {
            if hasParts, !other.hasParts { single = (other.type, other.charset) }
            return
        }
        if !isFirst { single = (type, charset) }
        (type, charset, boundaries) = (other.type, other.charset, other.boundaries)
        (typeNames, isCut) = (other.typeNames, other.isCut)
    }

    private mutating func readType(_ header: [UInt8], _ decoder: HeaderDecoder) {
        let raw = Parameters(header)
        type = raw.value.map(\.lowercased)
        if !type.contains(UInt8(ascii: "/")) { type = Array("text/plain".utf8) }
        let text = Self.decoded(header, decoder)
        let decoded = text == header ? raw : Parameters(text)
        // A comment may follow.
        let charsets = raw["charset"].isEmpty ? decoded["charset"] : raw["charset"]
        charset = (charsets.first ?? []).prefix { !$0.isSpace }.map(\.lowercased)
        let found = raw["boundary"].isEmpty ? decoded["boundary"] : raw["boundary"]
        isAmbiguous = charsets.count > 1 || found.count > 1
        let all = found.map(Self.token).filter { !found.contains($0) } + found
        boundaries = all.filter { 1...Self.longestBoundary ~= $0.count }
        isCut = all.contains { $0.count > Self.longestBoundary }
        typeNames = Self.names(decoded, ["name", "filename"])
    }

    /// Without quotes, a comment or a blank ends a value, as in Postfix.
    private static func token(_ value: [UInt8]) -> [UInt8] {
        Array(value.prefix { !$0.isSpace && $0 != UInt8(ascii: "(") })
    }

    private static func decoded(_ header: [UInt8], _ decoder: HeaderDecoder) -> [UInt8] {
        var text: [UInt8] = []
        decoder.decode(header, into: &text)
        return text
    }

    private static func names(_ parameters: Parameters, _ names: [StaticString]) -> [[UInt8]] {
        names.flatMap { parameters[$0] }.filter { !$0.isEmpty }
    }
}

/// The parameters of a Content- header (RFC 2045 5.1) that a `PartReader` needs.
private struct Parameters {
    /// What stands before the first `;`, without comments. A blank or a comma ends it, too, as in mail programs, but
    /// blanks around a slash do not count.
    private(set) var value: [UInt8] = []
    /// For each name, the first value and the last one. Mail programs use one of them.
    private var found: [(name: [UInt8], first: [UInt8], last: [UInt8]?)] = []

    private static let known: [StaticString] = ["boundary", "charset", "filename", "name"]

    init(_ header: [UInt8]) {
        guard let colon = header.firstIndex(of: UInt8(ascii: ":")) else { return }
        var index = colon + 1
        var isFirst = true
        while index < header.count {
            let (item, equals) = Self.readItem(header, &index)
            if isFirst { value = Self.token(item) }
            isFirst = false
            // Some programs write no disposition before `filename=`, and mail programs take the name all the same.
            if let equals {
                note(item[..<equals].filter { !$0.isSpace }.map(\.lowercased), item[(equals + 1)...])
            }
        }
    }

    private mutating func note(_ name: [UInt8], _ value: ArraySlice<UInt8>) {
        guard Self.known.contains(where: name.equalsIgnoringCase) else { return }
        let value = Self.trimmed(value)
        guard let index = found.firstIndex(where: { $0.name == name }) else {
            return found.append((name, value, nil))
        }
        found[index].last = value
    }

    /// The first and the last value of a name, which is in lower case.
    subscript(name: StaticString) -> [[UInt8]] {
        guard let values = found.first(where: { $0.name.equalsIgnoringCase(name) }) else { return [] }
        let last = values.last.map { $0 == values.first ? [] : [$0] } ?? []
        return ([values.first] + last).filter { !$0.isEmpty }
    }

    private static func token(_ item: [UInt8]) -> [UInt8] {
        var token: [UInt8] = []
        var isBlank = false
        let slash = UInt8(ascii: "/")
        for byte in item {
            if byte.isSpace {
                isBlank = !token.isEmpty
                continue
            }
            if byte == UInt8(ascii: ",") || isBlank && byte != slash && token.last != slash { break }
            isBlank = false
            token.append(byte)
        }
        return token
    }

    private static func trimmed(_ value: ArraySlice<UInt8>) -> [UInt8] {
        var value = value.drop(while: \.isSpace)
        while value.last?.isSpace == true { value.removeLast() }
        return Array(value)
    }

    /// Reads up to the next `;`, without quotes and comments. Returns where its `=` is.
    private static func readItem(_ header: [UInt8], _ index: inout Int) -> ([UInt8], equals: Int?) {
        var item: [UInt8] = []
        var equals: Int?
        var (isQuoted, comments) = (false, 0)
        while index < header.count {
            var byte = header[index]
            index += 1
            switch byte {
            case UInt8(ascii: "\\") where isQuoted || comments > 0:
                guard index < header.count else { continue }
                byte = header[index]
                index += 1
            case UInt8(ascii: "\"") where comments == 0:
                isQuoted.toggle()
                continue
            // In a value, as in `name=a (1).exe`, mail programs show it.
            case UInt8(ascii: "(") where !isQuoted && (equals == nil || comments > 0): comments += 1
            case UInt8(ascii: ")") where comments > 0:
                comments -= 1
                continue
            case UInt8(ascii: ";") where !isQuoted && comments == 0: return (item, equals)
            case UInt8(ascii: "=") where !isQuoted && comments == 0 && equals == nil: equals = item.count
            default: break
            }
            if comments == 0 { item.append(byte) }
        }
        return (item, equals)
    }
}
