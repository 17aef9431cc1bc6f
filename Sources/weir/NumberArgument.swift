// SPDX-License-Identifier: Apache-2.0
import ArgumentParser

/// The whole numbers that an option takes.
enum NumberArgument {
    /// - Returns: a reader that throws `ValidationError`, with the bounds.
    static func within(_ allowed: ClosedRange<Int>) -> @Sendable (String) throws -> Int {
        { text in
            guard let number = Int(text), allowed.contains(number) else {
                let bounds =
                    allowed.upperBound == .max
                    ? "\(allowed.lowerBound) or more" : "from \(allowed.lowerBound) to \(allowed.upperBound)"
                throw ValidationError("expected a whole number, \(bounds)")
            }
            return number
        }
    }
}
