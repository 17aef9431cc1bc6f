// SPDX-License-Identifier: Apache-2.0
import Advisor
import ArgumentParser
import Foundation

struct ImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Converts limits of postfwd or anvil to Weir's.",
        discussion: """
            Prints the limits section of a weir.yaml. Rules that can't be converted exactly are left out and listed on \
            standard error with their line numbers.

            Exit status: 0 everything was converted, 1 something was left out, 66 the file can't be read, 74 standard \
            output can't be written.

            Example: weir import postfwd /etc/postfix/postfwd.cf > limits.yaml
            """)

    enum Source: String, CaseIterable, ExpressibleByArgument {
        case postfwd, anvil
    }

    @Argument(
        help: """
            What to convert: postfwd (the rate(), size() and rcpt() rules of a ruleset) or anvil (the \
            smtpd_client_*_rate_limit parameters of a main.cf).
            """)
    var source: Source

    @Argument(help: "File to read.", completion: .file())
    var file: String

    private static let largest = 16 << 20

    func run() throws {
        let handle = FileHandle(forReadingAtPath: file)
        // read(upToCount:) returns nil for an empty file.
        guard let handle, let data = try? handle.read(upToCount: Self.largest + 1) ?? Data() else {
            StandardError.complain("can't read \(file): \(String(cString: strerror(errno)))", by: "import")
            throw ExitCode(EX_NOINPUT)
        }
        guard data.count <= Self.largest else {
            StandardError.complain("\(file) is larger than \(Self.largest >> 20) MiB", by: "import")
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
