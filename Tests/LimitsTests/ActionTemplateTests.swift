// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

@Suite struct ActionTemplateTests {
    private func render(_ text: String, key: String = "user@example.org") throws -> String {
        let template = try ActionTemplate(text)
        let action = template.render { placeholder in
            placeholder == .key ? Array(key.utf8) : Array("<\(placeholder.rawValue)>".utf8)
        }
        return String(decoding: action, as: UTF8.self)
    }

    @Test(arguments: [
        ("DUNNO", "DUNNO"), ("reject", "reject"), ("REJECT 5.7.1 no", "REJECT 5.7.1 no"),
        ("450 4.7.1 wait", "450 4.7.1 wait"),
        ("599 x", "599 x"),
        (
            "DEFER_IF_PERMIT $name: $count of $limit in $window, $retry",
            "DEFER_IF_PERMIT <name>: <count> of <limit> in <window>, <retry>"
        ),
        ("REJECT ${name}s $(key)!", "REJECT <name>s user@example.org!"), ("REJECT $$5", "REJECT $5"),
        ("REJECT $$name", "REJECT $name"),
        ("FILTER smtp:[192.0.2.1]:25", "FILTER smtp:[192.0.2.1]:25"),
        ("REDIRECT a@example.org", "REDIRECT a@example.org"),
        ("BCC a@example.org", "BCC a@example.org"), ("PREPEND X-Weir: $name", "PREPEND X-Weir: <name>"),
        ("HOLD", "HOLD"), ("INFO $key", "INFO user@example.org"),
        ("REJECT gr\u{fc}n", "REJECT gr\u{fc}n"),
    ])
    func isRendered(text: String, expected: String) throws {
        #expect(try render(text) == expected)
        #expect(try ActionTemplate(text).text == text)
    }

    /// Actions that Postfix would read as a permit, or as a server configuration error.
    @Test(arguments: [
        ("", "the action is empty"), (" ", "the action is empty"), ("450", "without a text"),
        ("450 ", "without a text"),
        ("250 fine", "not a reply code"),
        ("350 x", "not a reply code"), ("600 x", "not a reply code"), ("45 x", "not a reply code"),
        ("4500 x", "not a reply code"),
        ("NOPE x", "unknown action 'NOPE'"),
        ("REJECT: x", "unknown action 'REJECT:'"), ("450: x", "unknown action"), ("smtp:x", "unknown action"),
        ("$name x", "unknown action"),
        ("OK x", "takes no text"), ("FILTER", "needs transport:destination"),
        ("FILTER smtp", "needs transport:destination"),
        ("REDIRECT", "needs user@domain"), ("BCC x", "needs user@domain"), ("PREPEND", "needs a header"),
        ("PREPEND x", "needs a header"),
        ("REJECT $nme", "unknown placeholder '$nme'"), ("REJECT $", "unknown placeholder '$'"),
        ("REJECT $names", "unknown placeholder '$names'"),
        ("REJECT ${name", "no closing bracket"), ("REJECT ${name)", "no closing bracket"),
        ("REJECT a\nb", "control character"),
        ("REJECT a\tb", "control character"), ("REJECT a\u{7f}", "control character"),
    ])
    func isFault(text: String, message: String) {
        let fault = #expect(throws: ActionTemplate.Fault.self) { try ActionTemplate(text) }
        #expect(fault?.message.contains(message) == true, "\(fault?.message ?? "")")
    }

    @Test func restrictionClasses() throws {
        let template = try ActionTemplate("greylist", restrictionClasses: ["greylist"])
        #expect(template.render { _ in [] } == Array("greylist".utf8))
        #expect(throws: ActionTemplate.Fault.self) { try ActionTemplate("Greylist", restrictionClasses: ["greylist"]) }
    }

    /// A peer's bytes must not end the reply early, nor make it invalid UTF-8.
    @Test(arguments: [
        ("a\n\naction=OK", "REJECT a??action=OK"), ("a\u{0}b\u{1b}[1m", "REJECT a?b?[1m"), ("a\u{9b}b", "REJECT a?b"),
        ("gr\u{fc}n", "REJECT gr\u{fc}n"),
        ("$name", "REJECT $name"),
    ])
    func valuesAreHarmless(key: String, expected: String) throws {
        #expect(try render("REJECT $key", key: key) == expected)
    }

    @Test func invalidUTF8IsReplaced() throws {
        let action = try ActionTemplate("REJECT $key").render { _ in [0x61, 0xff, 0xc3] }
        #expect(String(validating: action, as: UTF8.self) == "REJECT a\u{fffd}\u{fffd}")
    }
}
