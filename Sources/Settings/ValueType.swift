// SPDX-License-Identifier: Apache-2.0

/// How a value is read, written and explained.
struct ValueType<Value>: Sendable {
    /// What can be written, as in `a whole number from 1 to 100`.
    let expected: String
    /// The value as YAML, in one line.
    let write: @Sendable (Value) -> String?
    /// nil after a fault.
    let read: @Sendable (YAMLNode, _ key: String, inout ConfigurationReading) -> Value?

    /// A type whose values are one word or text; `parse` gives the value, or what is wrong with the text.
    static func text(
        _ expected: String, write: @escaping @Sendable (Value) -> String?,
        parse: @escaping @Sendable (String) -> Parsed<Value>
    ) -> ValueType {
        ValueType(expected: expected, write: write) { node, key, reading in
            guard case .scalar(let text) = node.value else {
                reading.fault(node, key, "expected \(expected), found \(node.kind)")
                return nil
            }
            switch parse(text) {
            case .value(let value): return value
            case .fault(let message): reading.fault(node, key, message)
            case .no(let noun): reading.fault(node, key, "\(Spelling.quoted(text)) is no \(noun); expected \(expected)")
            }
            return nil
        }
    }
}

/// What came of a text.
enum Parsed<Value> {
    case value(Value)
    case fault(String)
    /// The text is not a thing of this kind.
    case no(String)
}
