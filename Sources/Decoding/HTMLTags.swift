// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// What elements and attributes of HTML mean for the text that a reader sees. Names are in lower case.
enum HTMLTags {
    struct Kind: OptionSet {
        let rawValue: UInt8

        /// Stands on lines of its own.
        static let block = Kind(rawValue: 1)
        /// Has a blank around it.
        static let cell = Kind(rawValue: 2)
        /// Has no content.
        static let void = Kind(rawValue: 4)
        /// The next one of the same name ends it.
        static let endedByNext = Kind(rawValue: 8)
        /// Its content is no HTML, and is not shown.
        static let raw = Kind(rawValue: 16)
        /// Its content is not shown.
        static let hidden = Kind(rawValue: 32)
        /// Its line ends are shown.
        static let pre = Kind(rawValue: 64)
    }

    /// What elements are, by name.
    private static let kinds: [[UInt8]: Kind] = {
        var kinds: [[UInt8]: Kind] = [:]
        func add(_ kind: Kind, _ words: String) {
            for word in words.split(separator: " ") { kinds[Array(word.utf8), default: []].insert(kind) }
        }
        add(
            .block,
            """
            address article aside blockquote body br caption center dd details dialog dir div dl dt fieldset \
            figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html legend li main menu \
            nav ol optgroup option p pre section summary table tbody tfoot thead title tr ul
            """)
        add(.cell, "td th img input button select")
        add(
            .void,
            "area base basefont bgsound br col embed frame hr img input keygen link meta param source track wbr")
        add(.endedByNext, "dd dt li option p td th tr")
        add(.raw, "script style")
        add(.hidden, "noembed noframes template title")
        add(.pre, "pre")
        return kinds
    }()

    enum Attribute {
        /// Its value is an address.
        case link
        case style, hidden, alt, content
    }

    private static let kindsOfShort = ShortNames(kinds)

    static func kind(of name: [UInt8]) -> Kind {
        guard let key = ShortNames<Kind>.key(of: name) else { return kinds[name] ?? [] }
        return kindsOfShort[key] ?? []
    }

    /// - Parameter key: of `ShortNames`.
    static func kind(_ key: UInt64) -> Kind { kindsOfShort[key] ?? [] }

    /// What attributes mean, by name.
    private static let attributes: [[UInt8]: Attribute] = {
        var attributes: [[UInt8]: Attribute] = [:]
        let links = """
            action background cite data dynsrc formaction href longdesc lowsrc ping poster src srcset xlink:href
            """
        for word in links.split(separator: " ") {
            attributes[Array(word.utf8)] = .link
        }
        for (word, meaning) in [("style", Attribute.style), ("hidden", .hidden), ("alt", .alt), ("content", .content)] {
            attributes[Array(word.utf8)] = meaning
        }
        return attributes
    }()

    private static let shortAttributes = ShortNames(attributes)

    static func attribute(named name: [UInt8]) -> Attribute? {
        guard let key = ShortNames<Attribute>.key(of: name) else { return attributes[name] }
        return shortAttributes[key]
    }

    /// - Parameter key: of `ShortNames`.
    static func attribute(_ key: UInt64) -> Attribute? { shortAttributes[key] }

    /// Whether a `style` hides the element. Looks for `display:none`, `visibility:hidden`, `mso-hide:all`, and sizes
    /// and opacities of zero, and knows no cascade.
    static func hides(_ style: UnsafeBufferPointer<UInt8>) -> Bool {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: style.count) { text in
            var count = 0
            for byte in style where !byte.isSpace {
                text[count] = byte
                count += 1
            }
            var rest = UnsafeBufferPointer(text)[..<count]
            while !rest.isEmpty {
                let end = rest.firstIndex(of: UInt8(ascii: ";")) ?? count
                if hides(declaration: rest[..<end]) { return true }
                rest = rest[min(end + 1, count)...]
            }
            return false
        }
    }

    private static func hides(declaration: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
        guard let colon = declaration.firstIndex(of: UInt8(ascii: ":")) else { return false }
        let name = declaration[..<colon]
        let value = declaration[(colon + 1)...].prefix { $0 != UInt8(ascii: "!") }
        func isNamed(_ names: StaticString...) -> Bool { names.contains { name.equalsIgnoringCase($0) } }
        func isOne(of values: StaticString...) -> Bool { values.contains { value.equalsIgnoringCase($0) } }
        switch name.count {
        case 7 where isNamed("display"): return isOne(of: "none")
        case 10 where isNamed("visibility"): return isOne(of: "hidden", "collapse")
        case 8 where isNamed("mso-hide"): return isOne(of: "all")
        case 7, 9, 10: return isNamed("font-size", "max-height", "max-width", "opacity") && isZero(value)
        default: return false
        }
    }

    /// `0`, `0px`, `0.0em`, `.0%`
    private static func isZero(_ value: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
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
