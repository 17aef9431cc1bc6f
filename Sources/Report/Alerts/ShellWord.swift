// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// Words of a command that an operator copies into a shell. A peer may have chosen them.
package enum ShellWord {
    /// The text as one word of bash. Control characters, which a terminal would act on, are written as escapes.
    package static func quoted(_ text: String) -> String {
        if text.unicodeScalars.contains(where: EventLog.isControl) {
            let scalars = text.unicodeScalars.map { scalar in
                // No quote may be in it: a shell without $'...' would end the word there.
                EventLog.isControl(scalar) || scalar == "\\" || scalar == "'" ? escaped(scalar) : "\(scalar)"
            }
            return "$'\(scalars.joined())'"
        }
        let isPlain = !text.isEmpty && text.utf8.allSatisfy { $0.isAlphanumeric || "@._+:/=%,-".utf8.contains($0) }
        return isPlain ? text : "'\(text.replacing("'", with: "'\\''"))'"
    }

    /// The text as an argument that no command takes for an option. Options must come before it.
    package static func argument(_ text: String) -> String {
        (text.hasPrefix("-") ? "-- " : "") + quoted(text)
    }

    /// The bytes of UTF-8 as `\\x1b`.
    private static func escaped(_ scalar: Unicode.Scalar) -> String {
        String(scalar).utf8.map { "\\x" + ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
