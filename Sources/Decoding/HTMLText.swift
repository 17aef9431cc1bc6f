// SPDX-License-Identifier: Apache-2.0
internal import CIntrinsics
internal import Glibc
internal import MailSyntax

/// The lines of HTML: the text that a reader sees, and on lines of their own, after `link: ` and `hidden: `, addresses
/// and text that is not shown. Comments, scripts and style sheets are left out.
///
/// The tokens are those of HTML 13.2.5. There is no tree: the only element that has to be remembered is the outermost
/// hidden one, so memory and time do not depend on the depth.
struct HTMLText {
    private enum State {
        case text, reference
        case tagOpen, endTagOpen, tagName
        case attributes, attributeName, afterAttributeName, beforeValue, value
        /// After `<!`.
        case markup
        case commentStart, comment, bogusComment
        /// In a script or style sheet.
        case raw
    }

    private var state = State.text
    private var visible = TextLine(collapses: true)
    private var hidden = TextLine(prefix: "hidden: ", collapses: true)
    private var link = TextLine(prefix: "link: ", collapses: true)
    /// The name of the hidden element, and how many of that name are open; none if the text is visible.
    private var hiddenName: [UInt8] = []
    private var hiddenDepth = 0
    private var preDepth = 0

    /// The current tag.
    private var name: [UInt8] = []
    private var isEndTag = false
    private var isHidden = false
    private var refresh: [UInt8] = []
    private var attribute: [UInt8] = []
    private var value: [UInt8] = []
    /// 0 without quotes.
    private var quote: UInt8 = 0
    private var reference: [UInt8] = []
    /// The addresses in a tag that is read as a whole.
    private var addresses: [UnsafeBufferPointer<UInt8>] = []
    /// In a comment: how many hyphens came last. In `raw`: how much of the end tag.
    private var matched = 0
    /// `</` and the name of the raw element.
    private var rawEnd: [UInt8] = []

    /// How much of `condition` a comment begins with.
    private var conditionLength = 0
    /// What follows `condition` in a comment, if it begins so.
    private var conditional: [UInt8]?
    private let readsConditional: Bool

    private static let condition = Array("[if".utf8)
    /// Bytes of a comment.
    private static let longestConditional = 64 << 10
    /// Bytes.
    private static let longestName = 32
    static let longestValue = 4_096

    init() { self.init(readsConditional: true) }

    private init(readsConditional: Bool) { self.readsConditional = readsConditional }

    mutating func append(_ text: UnsafeBufferPointer<UInt8>, to lines: inout LineBuffer) {
        guard var start = text.baseAddress else { return }
        let end = start + text.count
        while start < end {
            start += readRun(UnsafeBufferPointer(start: start, count: end - start), &lines)
            guard start < end else { return }
            read(start.pointee, &lines)
            start += 1
        }
    }

    /// Reads the bytes that do not change the state. Returns their number.
    private mutating func readRun(_ text: UnsafeBufferPointer<UInt8>, _ lines: inout LineBuffer) -> Int {
        func count(upTo byte: UInt8) -> Int {
            let start = UnsafeRawPointer(text.baseAddress!)
            return memchr(start, Int32(byte), text.count).map { UnsafeRawPointer($0) - start } ?? text.count
        }
        switch state {
        case .text where preDepth == 0: return hiddenDepth > 0 ? readHidden(text, &lines) : readVisible(text, &lines)
        case .value where quote != 0:
            let end = count(upTo: quote)
            value.append(
                contentsOf: UnsafeBufferPointer(rebasing: text[..<min(end, Self.longestValue - value.count)]))
            return end
        case .comment where matched == 0:
            let end = count(upTo: UInt8(ascii: "-"))
            keep(text[..<end])
            return end
        case .raw where matched == 0: return count(upTo: UInt8(ascii: "<"))
        default: return 0
        }
    }

    private mutating func readHidden(_ text: UnsafeBufferPointer<UInt8>, _ lines: inout LineBuffer) -> Int {
        let count = weir_copy_html_text(text.baseAddress!, text.count, lines.place(for: text.count)).length
        hidden.append(UnsafeBufferPointer(rebasing: text[..<count]), isCollapsed: true, to: &lines)
        return count
    }

    /// Reads visible text, and the tags in it that are there as a whole.
    private mutating func readVisible(_ text: UnsafeBufferPointer<UInt8>, _ lines: inout LineBuffer) -> Int {
        guard var start = text.baseAddress else { return 0 }
        let end = start + text.count
        while start < end {
            if start.pointee.isSpace {
                if !visible.isEmpty { visible.append(0x20, to: &lines) }
                start += 1
                continue
            }
            let place = lines.place(for: end - start)
            let run = weir_copy_html_text(start, end - start, place)
            let shown = UnsafeBufferPointer(start: start, count: run.length)
            start += run.length
            let tag = wholeTag(UnsafeBufferPointer(start: start, count: end - start))
            if let tag, tag.kind.contains(.block), addresses.isEmpty, run.is_ascii, visible.isEmpty,
                run.length <= TextLine.longest
            {
                // Most lines are one run. It stands where it belongs.
                if run.length > 0 {
                    let length = place[run.length - 1] == 0x20 ? run.length - 1 : run.length
                    place[length] = 0x0a
                    lines.take(length + 1)
                }
                hidden.end(to: &lines)
            } else {
                visible.append(shown, isCollapsed: true, to: &lines)
                if let tag { follow(tag, &lines) }
            }
            if let tag {
                start += tag.length
            } else if start == end || !start.pointee.isSpace {
                break
            }
        }
        return start - text.baseAddress!
    }

    /// A tag at the start of the text that hides nothing. `addresses` has those in it.
    @inline(__always)
    private mutating func wholeTag(_ text: UnsafeBufferPointer<UInt8>) -> WholeTag? {
        if !addresses.isEmpty { addresses.removeAll(keepingCapacity: true) }
        guard let first = text.first, first == UInt8(ascii: "<"), let tag = WholeTag(text, &addresses),
            tag.kind.isDisjoint(with: [.raw, .hidden, .pre])
        else { return nil }
        return tag
    }

    private mutating func follow(_ tag: WholeTag, _ lines: inout LineBuffer) {
        for address in addresses { writeLink(address, &lines) }
        if tag.kind.contains(.block) {
            visible.end(to: &lines)
            hidden.end(to: &lines)
        } else if tag.kind.contains(.cell) {
            visible.append(0x20, to: &lines)
        }
    }

    mutating func finish(to lines: inout LineBuffer) {
        if case .reference = state { endReference(isClosed: false, &lines) }
        if case .tagOpen = state { put(UInt8(ascii: "<"), &lines) }
        showConditional(to: &lines)
        visible.end(to: &lines)
        hidden.end(to: &lines)
    }

    // MARK: - Tokens

    private mutating func read(_ byte: UInt8, _ lines: inout LineBuffer) {
        switch state {
        case .text: readText(byte, &lines)
        case .reference: readReference(byte, &lines)
        case .tagOpen, .endTagOpen: openTag(byte, &lines)
        case .tagName:
            if byte == UInt8(ascii: ">") { return endTag(&lines) }
            if byte.isSpace || byte == UInt8(ascii: "/") {
                state = .attributes
            } else if name.count < Self.longestName {
                name.append(byte.lowercased)
            }
        case .attributes, .attributeName, .afterAttributeName: readAttributeName(byte, &lines)
        case .beforeValue, .value: readValue(byte, &lines)
        case .markup, .commentStart, .comment, .bogusComment: readComment(byte, &lines)
        case .raw: readRaw(byte)
        }
    }

    private mutating func readText(_ byte: UInt8, _ lines: inout LineBuffer) {
        switch byte {
        case UInt8(ascii: "<"): state = .tagOpen
        case UInt8(ascii: "&"):
            reference.removeAll(keepingCapacity: true)
            state = .reference
        // Browsers drop it.
        case 0: break
        default: put(byte, &lines)
        }
    }

    private mutating func readReference(_ byte: UInt8, _ lines: inout LineBuffer) {
        if byte.isAlphanumeric || byte == UInt8(ascii: "#") && reference.isEmpty,
            reference.count < CharacterReferences.longest
        {
            return reference.append(byte)
        }
        endReference(isClosed: byte == UInt8(ascii: ";"), &lines)
        if byte != UInt8(ascii: ";") { readText(byte, &lines) }
    }

    private mutating func endReference(isClosed: Bool, _ lines: inout LineBuffer) {
        state = .text
        var rest = reference[...]
        if let (character, length) = CharacterReferences.character(rest, isClosed: isClosed) {
            for byte in UTF8.encode(character)! { put(byte, &lines) }
            rest = rest.dropFirst(length)
            if rest.isEmpty { return }
        } else {
            put(UInt8(ascii: "&"), &lines)
        }
        for byte in rest { put(byte, &lines) }
        if isClosed { put(UInt8(ascii: ";"), &lines) }
    }

    private mutating func openTag(_ byte: UInt8, _ lines: inout LineBuffer) {
        let isEnd = if case .endTagOpen = state { true } else { false }
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"):
            name.removeAll(keepingCapacity: true)
            name.append(byte.lowercased)
            refresh.removeAll(keepingCapacity: true)
            (isEndTag, isHidden, state) = (isEnd, false, .tagName)
        case UInt8(ascii: "/") where !isEnd: state = .endTagOpen
        case UInt8(ascii: ">") where isEnd: state = .text
        case UInt8(ascii: "!") where !isEnd: (state, matched) = (.markup, 0)
        case UInt8(ascii: "?") where !isEnd: state = .bogusComment
        default:
            if isEnd {
                state = .bogusComment
                return readComment(byte, &lines)
            }
            put(UInt8(ascii: "<"), &lines)
            state = .text
            readText(byte, &lines)
        }
    }

    private mutating func readComment(_ byte: UInt8, _ lines: inout LineBuffer) {
        let isHyphen = byte == UInt8(ascii: "-")
        switch state {
        case .markup where isHyphen:
            matched += 1
            if matched == 2 { (state, conditionLength) = (.commentStart, 0) }
        case .markup: state = byte == UInt8(ascii: ">") ? .text : .bogusComment
        case .commentStart where byte.lowercased == Self.condition[conditionLength]:
            (matched, conditionLength) = (0, conditionLength + 1)
            guard conditionLength == Self.condition.count else { return }
            state = .comment
            if readsConditional { conditional = [] }
        case .commentStart, .comment:
            state = .comment
            // `<!-->` and `<!--->` are whole comments.
            if byte == UInt8(ascii: ">"), matched >= 2 {
                state = .text
                return showConditional(to: &lines)
            }
            keep(CollectionOfOne(byte))
            // `--!>` ends a comment, too.
            if byte != UInt8(ascii: "!") || matched < 2 { matched = isHyphen ? matched + 1 : 0 }
        default: if byte == UInt8(ascii: ">") { state = .text }
        }
    }

    private mutating func keep(_ text: some Collection<UInt8>) {
        guard let kept = conditional?.count else { return }
        conditional?.append(contentsOf: text.prefix(max(0, Self.longestConditional - kept)))
    }

    /// Outlook shows what stands in `<!--[if mso]> ... <![endif]-->`. For others it is a comment, so what is open in it
    /// does not go on behind it.
    private mutating func showConditional(to lines: inout LineBuffer) {
        guard let content = conditional, let condition = content.firstIndex(of: UInt8(ascii: ">")) else {
            return conditional = nil
        }
        conditional = nil
        var shown = content[(condition + 1)...]
        if shown.suffix(3).elementsEqual("--!".utf8) { shown.removeLast() }
        if shown.suffix(2).elementsEqual("--".utf8) { shown.removeLast(2) }
        var html = HTMLText(readsConditional: false)
        shown.withUnsafeBufferPointer { html.append($0, to: &lines) }
        html.finish(to: &lines)
    }

    private mutating func readRaw(_ byte: UInt8) {
        if matched == rawEnd.count {
            if byte == UInt8(ascii: ">") {
                state = .text
            } else if byte.isSpace || byte == UInt8(ascii: "/") {
                // The attributes of an end tag mean nothing.
                (state, isEndTag) = (.attributes, true)
                name = Array(rawEnd.dropFirst(2))
            } else {
                matched = byte == UInt8(ascii: "<") ? 1 : 0
            }
            return
        }
        matched = byte.lowercased == rawEnd[matched] ? matched + 1 : byte == UInt8(ascii: "<") ? 1 : 0
    }

    // MARK: - Attributes

    private mutating func readAttributeName(_ byte: UInt8, _ lines: inout LineBuffer) {
        switch byte {
        case UInt8(ascii: ">"):
            endAttribute(&lines)
            endTag(&lines)
        case UInt8(ascii: "/"):
            endAttribute(&lines)
            state = .attributes
        case UInt8(ascii: "=") where !attribute.isEmpty: state = .beforeValue
        case let byte where byte.isSpace: if !attribute.isEmpty { state = .afterAttributeName }
        default:
            if case .afterAttributeName = state { endAttribute(&lines) }
            state = .attributeName
            if attribute.count < Self.longestName { attribute.append(byte.lowercased) }
        }
    }

    private mutating func readValue(_ byte: UInt8, _ lines: inout LineBuffer) {
        if case .beforeValue = state {
            if byte.isSpace { return }
            (state, quote) = (.value, 0)
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") {
                quote = byte
                return
            }
        }
        let endsTag = quote == 0 && byte == UInt8(ascii: ">")
        guard endsTag || (quote == 0 ? byte.isSpace : byte == quote) else {
            if value.count < Self.longestValue { value.append(byte) }
            return
        }
        endAttribute(&lines)
        state = .attributes
        if endsTag { endTag(&lines) }
    }

    private mutating func endAttribute(_ lines: inout LineBuffer) {
        guard !attribute.isEmpty else { return }
        defer {
            attribute.removeAll(keepingCapacity: true)
            value.removeAll(keepingCapacity: true)
        }
        guard !isEndTag else { return }
        switch HTMLTags.attribute(named: attribute) {
        case .link: writeLink(value[...], &lines)
        case .style:
            let style = CharacterReferences.resolved(in: value[...])
            isHidden = isHidden || style.withUnsafeBufferPointer(HTMLTags.hides)
        case .hidden: isHidden = true
        case .alt: for byte in CharacterReferences.resolved(in: value[...]) { put(byte, &lines) }
        case .content: if name.elementsEqual("meta".utf8) { refresh = value }
        case nil: break
        }
    }

    private mutating func writeLink(_ address: ArraySlice<UInt8>, _ lines: inout LineBuffer) {
        CharacterReferences.resolved(in: address).withUnsafeBufferPointer { writeLink($0, &lines) }
    }

    /// - Parameter address: without character references.
    private mutating func writeLink(_ address: UnsafeBufferPointer<UInt8>, _ lines: inout LineBuffer) {
        guard let start = address.baseAddress, !address.isEmpty else { return }
        let run = weir_copy_html_text(start, address.count, lines.place(for: address.count))
        if run.length == address.count, run.is_ascii { return link.write(address, to: &lines) }
        // Browsers remove tabs and line ends (WHATWG URL 4.4).
        let kept = address.filter { $0 != 0x09 && $0 != 0x0a && $0 != 0x0d }
        kept.withUnsafeBufferPointer { link.append($0, isCollapsed: false, to: &lines) }
        link.end(to: &lines)
    }

    // MARK: - Tags

    private mutating func endTag(_ lines: inout LineBuffer) {
        state = .text
        let kind = HTMLTags.kind(of: name)
        if kind.contains(.block) {
            visible.end(to: &lines)
            hidden.end(to: &lines)
        } else if kind.contains(.cell) {
            put(0x20, &lines)
        }
        if kind.contains(.pre) { preDepth = isEndTag ? max(0, preDepth - 1) : preDepth + 1 }
        if !refresh.isEmpty, !isEndTag, let address = HTMLTags.refreshAddress(refresh) { writeLink(address, &lines) }
        if isEndTag { return endElement(&lines) }
        if kind.contains(.raw) {
            (state, matched, rawEnd) = (.raw, 0, Array("</".utf8) + name)
        } else if !kind.contains(.void) {
            beginElement(kind)
        }
    }

    private mutating func beginElement(_ kind: HTMLTags.Kind) {
        if hiddenDepth == 0 {
            if isHidden || kind.contains(.hidden) { (hiddenName, hiddenDepth) = (name, 1) }
        } else if name == hiddenName {
            if !kind.contains(.endedByNext) {
                hiddenDepth += 1
            } else if !isHidden {
                hiddenDepth = 0
            }
        }
    }

    private mutating func endElement(_ lines: inout LineBuffer) {
        guard hiddenDepth > 0, name == hiddenName else { return }
        hiddenDepth -= 1
        if hiddenDepth == 0 { hidden.end(to: &lines) }
    }

    private mutating func put(_ byte: UInt8, _ lines: inout LineBuffer) {
        if hiddenDepth > 0 { return hidden.append(byte, to: &lines) }
        if preDepth > 0, byte == 0x0a { visible.end(to: &lines) } else { visible.append(byte, to: &lines) }
    }
}
