// SPDX-License-Identifier: Apache-2.0
internal import Yams

/// Turns an error of libyaml into a fault that says what to write instead.
enum YAMLSyntax {
    private typealias Place = (line: Int, column: Int)

    /// - Parameter text: what was parsed.
    static func fault(_ error: YamlError, in text: YAMLText) -> YAMLDocument.Fault {
        switch error {
        case .composer(let context, let problem, let mark, _), .scanner(let context, let problem, let mark, _),
            .parser(let context, let problem, let mark, _):
            let start = context.map { ($0.mark.line, $0.mark.column) }
            let place = (mark.line, mark.column)
            if let known = known(problem, at: place, start, text) { return known }
            let opening = context.map { " (\($0.text) from line \($0.mark.line), column \($0.mark.column))" } ?? ""
            // libyaml names a function of its own here.
            let shown = problem.hasPrefix("Maximum nesting level") ? "nested too deeply" : problem
            return fault(place, shown + opening)
        case .reader(let problem, let offset, _, let text):
            let before = text.prefix(offset ?? 0)
            let lineStart = before.lastIndex(where: \.isNewline).map(before.index(after:)) ?? before.startIndex
            return fault(
                (before.count(where: \.isNewline) + 1, before[lineStart...].unicodeScalars.count + 1), problem)
        default:
            return fault((1, 1), "\(error)")
        }
    }

    private static func fault(_ place: Place, _ text: String) -> YAMLDocument.Fault {
        YAMLDocument.Fault(line: place.line, column: place.column, message: "invalid YAML: \(text)")
    }

    /// - Parameter start: of the value or map in which the problem is.
    private static func known(
        _ problem: String, at place: Place, _ start: Place?, _ text: YAMLText
    ) -> YAMLDocument.Fault? {
        switch problem {
        case "found character that cannot start any token":
            return beginning(at: place, text)
        // What follows an alias or an anchor is no name.
        case "did not find expected alphabetic or numeric character":
            return start.flatMap { beginning(at: $0, text) }
        case "found undefined alias":
            return fault(place, "no anchor (&name) comes before this alias; a value that begins with '*' needs quotes")
        case "found unexpected end of stream":
            return start.map { fault($0, "this quote is not closed") }
        case "found unknown escape character":
            return fault(place, #"in double quotes, \ begins an escape; use single quotes, or write \\"#)
        case "found unexpected ':'":
            return fault(start ?? place, "write this value in quotes: it contains a colon")
        case "mapping values are not allowed in this context":
            return fault(
                place,
                "a colon and a blank can't be here; write a value that contains them in quotes, and check the "
                    + "indentation")
        case "block sequence entries are not allowed in this context":
            return fault(place, "a list can't begin here; begin it on the next line, or write [a, b]")
        case "but found another document":
            return fault(place, "the file has a second document; remove this line")
        case "could not find expected ':'":
            return fault(start ?? place, "expected a key, a colon and a blank")
        default:
            return misplaced(problem, at: place, start)
        }
    }

    private static func beginning(at place: Place, _ text: YAMLText) -> YAMLDocument.Fault? {
        guard let scalar = text.scalar(line: place.line, column: place.column) else { return nil }
        if scalar == "\t" { return fault(place, "a tab can't be here; write blanks") }
        return fault(place, "a value can't begin with \(Spelling.quoted(String(scalar))); write it in quotes")
    }

    private static func misplaced(_ problem: String, at place: Place, _ start: Place?) -> YAMLDocument.Fault? {
        func opened(by bracket: String) -> String {
            start.map { "; the '\(bracket)' of line \($0.line), column \($0.column) is not closed" } ?? ""
        }
        switch problem {
        case "did not find expected ',' or ']'": return fault(place, "expected ',' or ']'\(opened(by: "["))")
        case "did not find expected ',' or '}'": return fault(place, "expected ',' or '}'\(opened(by: "{"))")
        case "did not find expected key":
            return fault(place, "expected a key; check the indentation, and write '' for ' in single quotes")
        case "did not find expected '-' indicator":
            return fault(place, "expected '- ', as the list before it has; check the indentation")
        case "did not find expected <document start>":
            return fault(place, "expected the end of the file; write each key as 'key: value'")
        default: return nil
        }
    }
}
