// SPDX-License-Identifier: Apache-2.0

/// A value of a YAML file and its position.
///
/// Scalars keep their text (`no` becomes a boolean only if the key has boolean values), aliases are replaced by their
/// values, and every key is a plain word.
struct YAMLNode: Sendable {
    enum Value: Sendable {
        case nothing
        case scalar(String)
        case list([YAMLNode])
        /// In the order of the file. Names can be duplicates.
        case map([(name: YAMLName, value: YAMLNode)])
    }

    let line: Int
    let column: Int
    let value: Value

    /// The text of a scalar.
    var text: String? {
        if case .scalar(let text) = value { text } else { nil }
    }

    /// The items of a list. Any other value stands for a list of one.
    var items: [YAMLNode] {
        if case .list(let items) = value { items } else { [self] }
    }

    /// A description for messages, such as `a list`.
    var kind: String {
        switch value {
        case .nothing: "nothing"
        case .scalar(let text): Spelling.quoted(text)
        case .list: "a list"
        case .map: "a map"
        }
    }
}

/// A key of a map and its position.
struct YAMLName: Sendable {
    let text: String
    let line: Int
    let column: Int
}
