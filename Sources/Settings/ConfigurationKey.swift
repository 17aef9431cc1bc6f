// SPDX-License-Identifier: Apache-2.0

/// One key of weir.yaml. The reader, the sample file and the manual are all made from these rows.
package struct ConfigurationKey<Root>: Sendable {
    /// The path from the root, as in `listen.policy`.
    package let path: String
    /// The meaning of the key, in one sentence.
    package let summary: String
    /// What the operator can write, such as `a number from 1 to 100`.
    package let expected: String
    package let absence: KeyAbsence
    /// Whether a list in the place of the key's section is the value of this key.
    private(set) var isWholeList = false
    let read: @Sendable (YAMLNode, String, inout ConfigurationReading, inout Root) -> Void

    /// The same key, whose list may also stand in the place of its section.
    var asWholeList: Self {
        var key = self
        key.isWholeList = true
        return key
    }

    var isRequired: Bool {
        if case .isFault = absence { true } else { false }
    }

    /// - Parameter defaults: holds the default of the key.
    init<Value>(
        _ path: String, _ target: any WritableKeyPath<Root, Value> & Sendable, _ type: ValueType<Value>,
        in defaults: Root,
        _ summary: String
    ) {
        self.init(path, target, type, .isDefault(type.write(defaults[keyPath: target])!), summary)
    }

    init<Value>(
        _ path: String, _ target: any WritableKeyPath<Root, Value> & Sendable, _ type: ValueType<Value>,
        _ absence: KeyAbsence, _ summary: String
    ) {
        self.init(path, expected: type.expected, absence, summary) { node, key, reading, root in
            if let value = type.read(node, key, &reading) { root[keyPath: target] = value }
        }
    }

    init(
        _ path: String, expected: String, _ absence: KeyAbsence, _ summary: String,
        read: @escaping @Sendable (YAMLNode, String, inout ConfigurationReading, inout Root) -> Void
    ) {
        self.path = path
        self.summary = summary
        self.expected = expected
        self.absence = absence
        self.read = read
    }
}

/// What a missing key means. Examples and defaults are YAML.
package enum KeyAbsence: Equatable, Sendable {
    case isFault(example: String)
    case isDefault(String)
    case isNothing(example: String)
    /// The default is the value of another key.
    case isInherited(from: String, example: String)
}
