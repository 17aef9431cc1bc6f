// SPDX-License-Identifier: Apache-2.0

/// A log without a line of Postfix's in a known form.
package struct UnreadableLog: Error, CustomStringConvertible {
    /// The files' names.
    let paths: String
    let lines: Int
    /// The beginnings of the first lines.
    package let examples: [[UInt8]]

    package var description: String { "\(paths): none of \(lines) lines is Postfix's in a form that Weir can read" }
}

/// Whether any line of a log is one of Postfix's in a known form, and which lines are not.
struct Understanding {
    var isAny = false
    private var missed = 0
    private var examples: [[UInt8]] = []

    private static let mostExamples = 3
    private static let longestExample = 160

    mutating func miss(_ line: UnsafeRawBufferPointer) {
        missed += 1
        if examples.count < Self.mostExamples { examples.append(Array(line.prefix(Self.longestExample))) }
    }

    mutating func add(_ other: Understanding) {
        isAny = isAny || other.isAny
        missed += other.missed
        examples = Array((examples + other.examples).prefix(Self.mostExamples))
    }

    /// What is wrong with the log of these files; nil for an empty log.
    func fault(of paths: [String]) -> UnreadableLog? {
        guard !isAny, missed > 0 else { return nil }
        return UnreadableLog(paths: paths.joined(separator: ", "), lines: missed, examples: examples)
    }
}
