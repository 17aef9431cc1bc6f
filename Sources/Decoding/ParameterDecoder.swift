// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Decodes the parameters (RFC 2231) of an unfolded Content- header: `name*=charset'language'value`, and the sections
/// `name*0*=`, `name*1=` and so on. They become `name="value"` where the first of them stood. Others stay.
struct ParameterDecoder {
    private let text: [UInt8]
    private var pieces: [Piece] = []
    private var parameters: [Parameter] = []
    /// By name in lower case, the index in `parameters`.
    private var indices: [[UInt8]: Int] = [:]

    private enum Piece {
        case text(Range<Int>)
        case parameter(Int)
    }

    private struct Parameter {
        let name: ArraySlice<UInt8>
        var sections: [Section]
    }

    private struct Section {
        let number: Int
        /// Whether the value has percent signs, and that of the first section a character set.
        let isExtended: Bool
        /// After the `=`.
        let value: Range<Int>
    }

    init(_ text: [UInt8]) {
        self.text = text
        parse()
    }

    /// The text with its parameters as UTF-8. Other bytes beyond ASCII stay as they are.
    func decoded(_ charsets: inout Charsets) -> [UInt8] {
        guard !parameters.isEmpty else { return text }
        var result: [UInt8] = []
        result.reserveCapacity(text.count)
        for piece in pieces {
            switch piece {
            case .text(let range): result += text[range]
            case .parameter(let index):
                let parameter = parameters[index]
                result += Array("; ".utf8) + parameter.name + Array("=\"".utf8)
                for byte in value(of: parameter, &charsets) {
                    if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { result.append(UInt8(ascii: "\\")) }
                    result.append(byte)
                }
                result.append(UInt8(ascii: "\""))
            }
        }
        return result
    }

    // MARK: - Parsing

    private mutating func parse() {
        var start = 0
        while start < text.count {
            let end = endOfItem(from: start)
            if start > 0, let (name, section) = section(in: start + 1..<end) {
                let key = name.map(\.lowercased)
                if let index = indices[key] {
                    parameters[index].sections.append(section)
                } else {
                    indices[key] = parameters.count
                    pieces.append(.parameter(parameters.count))
                    parameters.append(Parameter(name: name, sections: [section]))
                }
            } else {
                pieces.append(.text(start..<end))
            }
            start = end
        }
    }

    /// The index of the next `;` outside of quotes.
    private func endOfItem(from start: Int) -> Int {
        var index = start + 1
        var isQuoted = text[start] == UInt8(ascii: "\"")
        while index < text.count {
            switch text[index] {
            case UInt8(ascii: "\""): isQuoted.toggle()
            case UInt8(ascii: "\\") where isQuoted: index += 1
            case UInt8(ascii: ";") where !isQuoted: return index
            default: break
            }
            index += 1
        }
        return text.count
    }

    /// Parses `name*N*=value`; nil for a parameter without `*`.
    private func section(in item: Range<Int>) -> (name: ArraySlice<UInt8>, Section)? {
        guard let equals = text[item].firstIndex(of: UInt8(ascii: "=")) else { return nil }
        var attribute = text[item.lowerBound..<equals].drop(while: \.isSpace)
        while attribute.last?.isSpace == true { attribute.removeLast() }
        guard let asterisk = attribute.firstIndex(of: UInt8(ascii: "*")), asterisk > attribute.startIndex else {
            return nil
        }
        let name = attribute[..<asterisk]
        guard name.allSatisfy({ 0x21...0x7e ~= $0 && $0 != UInt8(ascii: "\"") }) else { return nil }
        var rest = attribute[(asterisk + 1)...]
        let digits = rest.prefix(while: \.isDigit)
        rest = rest[digits.endIndex...]
        let isExtended = digits.isEmpty || rest.first == UInt8(ascii: "*")
        guard rest.count <= 1, rest.isEmpty || rest.first == UInt8(ascii: "*"), digits.count <= 9,
            !digits.isEmpty || rest.isEmpty
        else { return nil }
        let number = digits.reduce(0) { 10 * $0 + Int($1 - UInt8(ascii: "0")) }
        return (name, Section(number: number, isExtended: isExtended, value: equals + 1..<item.upperBound))
    }

    // MARK: - Values

    private func value(of parameter: Parameter, _ charsets: inout Charsets) -> [UInt8] {
        // The order of equal numbers is that of the header.
        let sections = parameter.sections.enumerated().sorted {
            ($0.element.number, $0.offset) < ($1.element.number, $1.offset)
        }
        var result: [UInt8] = []
        var charset: [UInt8] = []
        // Consecutive extended sections are converted together: a character may be split over them.
        var extended: [UInt8] = []
        func flush(_ charsets: inout Charsets) {
            if !charsets.convert(extended, from: charset, to: &result).isEmpty { result += Charsets.replacement }
            extended = []
        }
        for (offset, (_, section)) in sections.enumerated() {
            var value = unquoted(section.value)[...]
            guard section.isExtended else {
                flush(&charsets)
                result += value
                continue
            }
            if offset == 0, let (name, rest) = Self.splitCharset(value) {
                (charset, value) = (name.map(\.lowercased), rest)
            }
            var index = value.startIndex
            while index < value.endIndex {
                if value[index] == UInt8(ascii: "%"), let code = hexadecimal(value, at: index + 1) {
                    extended.append(code)
                    index += 3
                } else {
                    extended.append(value[index])
                    index += 1
                }
            }
        }
        flush(&charsets)
        return result
    }

    /// `charset'language'value`
    private static func splitCharset(_ value: ArraySlice<UInt8>) -> (ArraySlice<UInt8>, ArraySlice<UInt8>)? {
        guard let first = value.firstIndex(of: UInt8(ascii: "'")),
            let second = value[(first + 1)...].firstIndex(of: UInt8(ascii: "'"))
        else { return nil }
        return (value[..<first], value[(second + 1)...])
    }

    /// The value without blanks around it, and without its quotes.
    private func unquoted(_ range: Range<Int>) -> [UInt8] {
        var value = text[range].drop(while: \.isSpace)
        while value.last?.isSpace == true { value.removeLast() }
        guard value.first == UInt8(ascii: "\"") else { return Array(value) }
        var result: [UInt8] = []
        var index = value.startIndex + 1
        while index < value.endIndex, value[index] != UInt8(ascii: "\"") {
            if value[index] == UInt8(ascii: "\\"), index + 1 < value.endIndex { index += 1 }
            result.append(value[index])
            index += 1
        }
        return result
    }
}
