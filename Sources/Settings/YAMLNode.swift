// SPDX-License-Identifier: Apache-2.0

/// A value of a YAML file and where it stands.
///
/// Scalars keep the text that was written (`no` is no boolean until a key asks for one), aliases have been replaced by
/// what they stand for, and every key is a plain word.
struct YAMLNode: Sendable {
    enum Value: Sendable {
        case nothing
        case scalar(String)
        case list([YAMLNode])
        /// In the order of the file. The same name can be there twice.
        case map([(name: YAMLName, value: YAMLNode)])
    }

    let line: Int
    let column: Int
    let value: Value

    /// The text of a scalar.
    var text: String? {
        if case .scalar(let text) = value { text } else { nil }
    }

    /// The items of a list, or the value itself where it stands for a list of one.
    var items: [YAMLNode] {
        if case .list(let items) = value { items } else { [self] }
    }

    /// `a list`, for messages.
    var kind: String {
        switch value {
        case .nothing: "nothing"
        case .scalar(let text): Spelling.quoted(text)
        case .list: "a list"
        case .map: "a map"
        }
    }
}

/// A key of a map and where it stands.
struct YAMLName: Sendable {
    let text: String
    let line: Int
    let column: Int
}
