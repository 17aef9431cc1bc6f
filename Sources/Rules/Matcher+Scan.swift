// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import MailSyntax

extension Matcher {
    /// Scans all headers of a block at once for rules that may match.
    package func candidates(in block: HeaderBlock, pass: FastPass?) -> HeaderCandidates {
        HeaderCandidates(
            hits: pass.flatMap { scan.scan(block, with: $0) }, hitsAreAll: pass?.always.isEmpty ?? false)
    }

    /// The first rule that applies to one key, such as a header. Uses the fast pass if there is one.
    package func firstMatch(
        key: UnsafeRawBufferPointer, in list: RuleList, pass: FastPass?
    ) -> Match? {
        let key = Self.upToNUL(key)
        guard let pass, let hits = scan.scan(key, with: pass) else {
            return firstMatch(key, in: list)
        }
        if hits.isEmpty, pass.always.isEmpty { return nil }
        return withRules(of: hits[...]) {
            firstMatch(key, in: list, pass: pass, candidates: $0)
        }
    }

    /// Calls `body` with the rule numbers of the hits on one line.
    func withRules<Result>(
        of hits: ArraySlice<UInt64>, _ body: (UnsafeBufferPointer<UInt32>) -> Result
    ) -> Result {
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: hits.count) { rules in
            for (index, hit) in hits.enumerated() {
                rules.initializeElement(at: index, to: UInt32(truncatingIfNeeded: hit))
            }
            return body(UnsafeBufferPointer(rules))
        }
    }

    /// Scans many body lines at once. Calls `body` with the start of each line that may match and the rules that may
    /// match it, in order, until it returns false. Where a single scan is not possible, it calls `body` for every line.
    package func forEachCandidateLine(
        in text: UnsafeRawBufferPointer, of list: RuleList, pass: FastPass?,
        _ body: (Int, LineCandidates) -> Bool
    ) {
        // A key ends at a NUL, but the scan of the whole text does not. Decoded text has none.
        guard let pass, list.isForText || Self.upToNUL(text).count == text.count,
            let hits = scan.scan(text, with: pass)
        else {
            var start = 0
            while start < text.count {
                guard body(start, .unknown) else { return }
                start = endOfLine(text, start)
            }
            return
        }
        if pass.always.isEmpty {
            forEachHit(hits, body)
        } else {
            forEachLine(text, hits, body)
        }
    }

    private func forEachHit(_ hits: [UInt64], _ body: (Int, LineCandidates) -> Bool) {
        var first = 0
        while first < hits.count {
            let start = hits[first] >> 32
            let end = hits[first...].firstIndex { $0 >> 32 != start } ?? hits.count
            guard body(Int(start), .hits(hits[first..<end])) else { return }
            first = end
        }
    }

    private func forEachLine(
        _ text: UnsafeRawBufferPointer, _ hits: [UInt64], _ body: (Int, LineCandidates) -> Bool
    ) {
        var (start, first) = (0, 0)
        while start < text.count {
            let end = hits[first...].firstIndex { $0 >> 32 != start } ?? hits.count
            guard body(start, .hits(hits[first..<end])) else { return }
            first = end
            start = endOfLine(text, start)
        }
    }

    /// The same for several lists, each line once. `body` gets what was found for each list: nil where no rule can
    /// match.
    package func forEachCandidateLine(
        in text: UnsafeRawBufferPointer, of lists: [(list: RuleList, pass: FastPass?)],
        _ body: (Int, [LineCandidates?]) -> Bool
    ) {
        let hasNUL = Self.upToNUL(text).count < text.count
        var scans = lists.map { list, pass in
            LineScan(
                hits: hasNUL ? nil : pass.flatMap { scan.scan(text, with: $0) }, isEmpty: list.isEmpty,
                hitsAreAll: pass?.always.isEmpty ?? false)
        }
        var start = 0
        while start < text.count {
            var next = text.count
            for scan in scans { next = min(next, scan.next(from: start) ?? text.count) }
            guard next < text.count else { return }
            start = next
            guard body(start, scans.indices.map { scans[$0].take(start) }) else { return }
            start = endOfLine(text, start)
        }
    }

    private func endOfLine(_ text: UnsafeRawBufferPointer, _ start: Int) -> Int {
        guard let base = text.baseAddress, let end = memchr(base + start, 0x0a, text.count - start)
        else { return text.count }
        return UnsafeRawPointer(end) - base + 1
    }

    /// The first rule that applies to a header, or to a line of `forEachCandidateLine`.
    package func firstMatch(
        line: UnsafeRawBufferPointer, in list: RuleList, pass: FastPass?,
        candidates: LineCandidates
    ) -> Match? {
        guard let pass, case .hits(let hits) = candidates else {
            return firstMatch(key: line, in: list, pass: pass)
        }
        return withRules(of: hits) {
            firstMatch(line, in: list, pass: pass, candidates: $0)
        }
    }
}

/// The rules that may match the headers of a block.
package struct HeaderCandidates {
    /// nil if the scan failed.
    fileprivate let hits: [UInt64]?
    /// Whether no rule matches a header without hits.
    fileprivate let hitsAreAll: Bool

    /// nil if no rule can match the header.
    package func of(_ header: Header) -> LineCandidates? {
        guard let hits else { return .unknown }
        if hits.isEmpty, hitsAreAll { return nil }
        let start = UInt64(header.textRange.lowerBound)
        let first = hits.firstIndex { $0 >> 32 >= start } ?? hits.count
        let end = hits[first...].firstIndex { $0 >> 32 != start } ?? hits.count
        return first == end && hitsAreAll ? nil : .hits(hits[first..<end])
    }
}

/// The rules that may match a line.
package enum LineCandidates {
    /// Not scanned yet.
    case unknown
    /// The rules of these hits, and the rules that are always tried.
    case hits(ArraySlice<UInt64>)
}

/// The hits of one list in many lines.
private struct LineScan {
    /// nil if there was no scan.
    let hits: [UInt64]?
    let isEmpty: Bool
    /// Whether no rule matches a line without hits.
    let hitsAreAll: Bool
    private var first = 0

    init(hits: [UInt64]?, isEmpty: Bool, hitsAreAll: Bool) {
        self.hits = hits
        self.isEmpty = isEmpty
        self.hitsAreAll = hitsAreAll
    }

    /// The start of the first line, at `start` or after it, that a rule may match.
    func next(from start: Int) -> Int? {
        if isEmpty { return nil }
        guard let hits, hitsAreAll else { return start }
        return first < hits.count ? Int(hits[first] >> 32) : nil
    }

    mutating func take(_ start: Int) -> LineCandidates? {
        if isEmpty { return nil }
        guard let hits else { return .unknown }
        let end = hits[first...].firstIndex { $0 >> 32 != start } ?? hits.count
        let found = hits[first..<end]
        first = end
        return found.isEmpty && hitsAreAll ? nil : .hits(found)
    }
}
