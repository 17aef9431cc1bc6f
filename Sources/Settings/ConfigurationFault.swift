// SPDX-License-Identifier: Apache-2.0

/// What is wrong with one place of the configuration, or of a file that it names.
package struct ConfigurationFault: Error, Equatable, Sendable, CustomStringConvertible {
    package let file: String
    /// From 1; nil where the whole file is meant.
    package let line: Int?
    /// From 1, in Unicode scalars; nil where the whole line is meant.
    package let column: Int?
    /// The key, as in `limits[0].rates[1]`; empty where no key is meant.
    package let key: String
    package let message: String

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

    /// What stands behind the location: the key and the message.
    package var text: String { key.isEmpty ? message : "\(key): \(message)" }

    package var description: String { "\(location): \(text)" }
}

/// Why a configuration was not taken: everything that is wrong with it, in the order of the file.
package struct ConfigurationFaults: Error, CustomStringConvertible {
    package let all: [ConfigurationFault]
    /// What would have been warned of as well.
    package let warnings: [ConfigurationFault]
    /// As much as could be read, and defaults for the rest: enough to find a service that runs on an older file.
    package let readable: Configuration

    package var description: String { all.map(\.description).joined(separator: "\n") }
}
