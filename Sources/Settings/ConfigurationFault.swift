// SPDX-License-Identifier: Apache-2.0
internal import Rules

/// A fault or warning at one place of the configuration, or of a table that it names.
package struct ConfigurationFault: Error, Equatable, Sendable, CustomStringConvertible {
    package let file: String
    /// From 1; nil for the whole file.
    package let line: Int?
    /// From 1, in Unicode scalars; nil for the whole line.
    package let column: Int?
    /// The key, as in `limits[0].rates[1]`; empty if the fault belongs to no key.
    package let key: String
    package let message: String
    /// Whether it says that a rule of a table does nothing.
    package private(set) var skipsRule = false

    package init(file: String, line: Int? = nil, column: Int? = nil, key: String = "", message: String) {
        self.file = file
        self.line = line
        self.column = column
        self.key = key
        self.message = message
    }

    /// `weir.yaml:12:5`
    package var location: String {
        ([file] + [line, column].compactMap { $0.map(String.init) }).joined(separator: ":")
    }

    /// The key and the message.
    package var text: String { key.isEmpty ? message : "\(key): \(message)" }

    package var description: String { "\(location): \(text)" }
}

extension ConfigurationFault {
    /// A fault in a table of header or body checks, in the words of Postfix.
    init(_ fault: TableFault) {
        var message = fault.message
        if fault.skipsRule {
            let hint = fault.unknownAction.map { Spelling.hint(for: $0, among: Action.Name.allCases.map(\.word)) }
            // Postfix says so of some.
            if !message.hasSuffix("this rule") { message = "this rule is skipped: \(message)\(hint ?? "")" }
        }
        self.init(file: fault.path, line: fault.line, key: "checks", message: message)
        skipsRule = fault.skipsRule
    }
}

/// All faults of a rejected configuration, in the order of the file.
package struct ConfigurationFaults: Error, CustomStringConvertible {
    package let all: [ConfigurationFault]
    /// The warnings besides the faults.
    package let warnings: [ConfigurationFault]
    /// The values without faults, and defaults for the others. Commands use it to find a service that runs with an
    /// earlier version of the file. nil if the file can't be read.
    package let readable: Configuration?
    /// The paths of the tables that the configuration names, as far as it could be read.
    package let tablePaths: [String]

    package var description: String { all.map(\.description).joined(separator: "\n") }
}
