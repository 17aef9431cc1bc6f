// SPDX-License-Identifier: Apache-2.0
internal import Patterns

extension Limit {
    /// Whether the limit can apply to a request of which only some attributes are known. Conditions on other attributes
    /// are assumed to hold.
    ///
    /// - Parameter known: values by index of `AttributeNames`; an empty value is that of an attribute that is missing.
    package func canApply(toRequestsWith known: [Int: [UInt8]]) -> Bool {
        unmetCondition(ofRequestsWith: known) == nil
            && !key.parts.contains { part in
                known[part.attribute].map { value in
                    var key: [UInt8] = []
                    return !value.withUnsafeBytes { part.append($0, to: &key, forms: self.key.forms) }
                } ?? false
            }
    }

    /// The first condition that does not hold for such a request.
    package func unmetCondition(ofRequestsWith known: [Int: [UInt8]]) -> Condition? {
        let scratch = MatchScratch(limits: Condition.matchLimits)
        return conditions.first { condition in
            guard let value = known[condition.part.attribute] else { return false }
            var ranges = Array(repeating: 0..<0, count: condition.part.attribute + 1)
            ranges[condition.part.attribute] = 0..<value.count
            var room: [UInt8] = []
            return value.withUnsafeBytes { bytes in
                ranges.withUnsafeBufferPointer { ranges in
                    (try? condition.holds(Attributes(bytes: bytes, ranges: ranges), scratch: scratch, value: &room))
                        == false
                }
            }
        }
    }
}
