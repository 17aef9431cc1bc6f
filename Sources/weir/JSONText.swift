// SPDX-License-Identifier: Apache-2.0
import Foundation

/// JSON as the commands print it: keys in order, slashes unescaped.
enum JSONText {
    static func indented(_ value: some Encodable) throws -> String {
        try text(of: value, [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes], keys: .useDefaultKeys)
    }

    /// One line, with snake_case keys.
    static func figures(_ value: some Encodable) throws -> String {
        try text(of: value, [.sortedKeys, .withoutEscapingSlashes], keys: .convertToSnakeCase)
    }

    private static func text(
        of value: some Encodable, _ formatting: JSONEncoder.OutputFormatting, keys: JSONEncoder.KeyEncodingStrategy
    ) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = formatting
        encoder.keyEncodingStrategy = keys
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}
