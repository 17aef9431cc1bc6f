// SPDX-License-Identifier: Apache-2.0
import Advisor
import ArgumentParser
import Foundation

struct ImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Turns other people's limits into Weir's.",
        discussion: """
            Prints the `limits` of a weir.yaml. What cannot be turned whole is left out, and named with its line on standard error: nothing is guessed.

            Exit status: 0 all was turned, 1 something was left out, 66 the file can't be read, 74 standard output can't be written.

            Example: weir import postfwd /etc/postfix/postfwd.cf > limits.yaml
            """)

    enum Source: String, CaseIterable, ExpressibleByArgument {
        case postfwd, anvil
    }

    @Argument(
        help:
            "postfwd: the rate(), size() and rcpt() rules of a ruleset; anvil: the smtpd_client_*_rate_limit of a main.cf."
    )
    var source: Source

    @Argument(help: "The file.")
    var file: String

    private static let largest = 16 << 20

    func run() throws {
        let handle = FileHandle(forReadingAtPath: file)
        // nil, too, where the file is empty.
        guard let handle, let data = try? handle.read(upToCount: Self.largest + 1) ?? Data() else {
            StandardError.write("weir import: can't read \(file): \(String(cString: strerror(errno)))\n")
            throw ExitCode(EX_NOINPUT)
        }
        guard data.count <= Self.largest else {
            StandardError.write("weir import: \(file) is larger than \(Self.largest >> 20) MiB\n")
            throw ExitCode(EX_NOINPUT)
        }
        let text = String(decoding: data, as: UTF8.self)
        let imported =
            switch source {
            case .postfwd: ImportedLimits(postfwd: text)
            case .anvil: ImportedLimits(anvil: text)
            }
        try StandardOutput.write(imported.yaml(from: file))
        for (word, remarks) in [("left out", imported.leftOut), ("note", imported.notes)] {
            for remark in remarks {
                StandardError.write("\(file)\(remark.line > 0 ? ":\(remark.line)" : ""): \(word): \(remark.text)\n")
            }
        }
        if !imported.leftOut.isEmpty { throw ExitCode(1) }
    }
}
