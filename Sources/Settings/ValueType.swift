// SPDX-License-Identifier: Apache-2.0

/// How a kind of value is read from YAML, written as YAML, and described.
struct ValueType<Value>: Sendable {
    /// What the operator can write, such as `a number from 1 to 100`.
    let expected: String
    /// The value as one line of YAML; nil where it can't be written.
    let write: @Sendable (Value) -> String?
    /// nil after it has reported a fault.
    let read: @Sendable (YAMLNode, _ key: String, inout ConfigurationReading) -> Value?

    /// A type whose values are scalars.
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
            case .isNot(let noun):
                reading.fault(node, key, "\(Spelling.quoted(text)) is not \(noun); expected \(expected)")
            }
            return nil
        }
    }
}

/// The outcome of parsing a scalar.
enum Parsed<Value> {
    case value(Value)
    case fault(String)
    /// Not a value of this kind, which is named with its article: `a number`.
    case isNot(String)
}
