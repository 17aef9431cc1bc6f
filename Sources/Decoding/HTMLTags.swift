// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// What elements and attributes of HTML mean for the text that a reader sees. Names are in lower case.
enum HTMLTags {
    /// Elements that stand on lines of their own.
    static let blocks = names(
        """
        address article aside blockquote body br caption center dd details dialog dir div dl dt fieldset figcaption \
        figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html legend li main menu nav ol optgroup \
        option p pre section summary table tbody tfoot thead title tr ul
        """)
    /// Elements with a blank around them.
    static let cells = names("td th img input button select")
    /// Elements without content.
    static let voids = names(
        "area base basefont bgsound br col embed frame hr img input keygen link meta param source track wbr")
    /// Elements that the next one of the same name ends.
    static let endedByNext = names("dd dt li option p td th tr")
    /// Elements whose content is no HTML, and is not shown.
    static let raw = names("script style")
    /// Elements whose content is not shown.
    static let hidden = names("noembed noframes template title")
    /// Attributes whose value is an address.
    static let links = names("action background cite data formaction href longdesc poster src")

    private static func names(_ words: String) -> Set<[UInt8]> {
        Set(words.split(separator: " ").map { Array($0.utf8) })
    }

    /// Whether a `style` hides the element. Looks for `display:none`, `visibility:hidden`, `mso-hide:all`, and sizes
    /// and opacities of zero, and knows no cascade.
    static func hides(_ style: [UInt8]) -> Bool {
        let text = style.filter { !$0.isSpace }.map(\.lowercased)
        return text.split(separator: UInt8(ascii: ";")).contains { declaration in
            guard let colon = declaration.firstIndex(of: UInt8(ascii: ":")) else { return false }
            var value = declaration[(colon + 1)...]
            if let mark = value.firstIndex(of: UInt8(ascii: "!")) { value = value[..<mark] }
            switch String(decoding: declaration[..<colon], as: UTF8.self) {
            case "display": return value.elementsEqual("none".utf8)
            case "visibility": return value.elementsEqual("hidden".utf8) || value.elementsEqual("collapse".utf8)
            case "mso-hide": return value.elementsEqual("all".utf8)
            case "font-size", "max-height", "max-width", "opacity": return isZero(value)
            default: return false
            }
        }
    }

    /// `0`, `0px`, `0.0em`, `.0%`
    private static func isZero(_ value: ArraySlice<UInt8>) -> Bool {
        let number = value.prefix { $0.isDigit || $0 == UInt8(ascii: ".") }
        return !number.isEmpty && number.allSatisfy { $0 == UInt8(ascii: "0") || $0 == UInt8(ascii: ".") }
    }

    /// The address in the `content` of `<meta http-equiv="refresh">`: `0; url=ADDRESS`.
    static func refreshAddress(_ content: [UInt8]) -> ArraySlice<UInt8>? {
        let lower = content.map(\.lowercased)
        for start in lower.indices where lower[start...].starts(with: "url".utf8) {
            let rest = content[(start + 3)...].drop(while: \.isSpace)
            guard rest.first == UInt8(ascii: "=") else { continue }
            let address = rest.dropFirst().drop(while: \.isSpace)
            guard let quote = address.first, quote == UInt8(ascii: "'") || quote == UInt8(ascii: "\"") else {
                return address
            }
            return address.dropFirst().prefix { $0 != quote }
        }
        return nil
    }
}
