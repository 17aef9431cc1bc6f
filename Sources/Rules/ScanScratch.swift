// SPDX-License-Identifier: Apache-2.0
internal import CVectorscan
internal import Glibc
internal import MailSyntax

/// The working memory of one scanning thread: Vectorscan's scratch space and the results.
final class ScanScratch {
    private var scratch: OpaquePointer?
    /// The text, followed by `padding` newlines.
    private var padded = UnsafeMutableRawBufferPointer.allocate(byteCount: 8_192, alignment: 64)
    /// Bytes. Vectorscan 5.4.9 misses patterns in the last bytes of a buffer, up to one less than the size of a vector
    /// (x86: shufti and vermicelli), so there must be no text there.
    private static let padding = 64
    /// The passes that `scratch` was last allocated for. It only grows, so it fits all of them.
    private var ready: [UInt64] = []
    private var state = State()

    /// The line of a rule's last hit. More hits between its bounds are duplicates.
    private struct Line {
        var start: UInt32 = 1
        var end: UInt32 = 0
    }

    /// The context of the callback.
    private struct State {
        var text = UnsafeRawBufferPointer(start: nil, count: 0)
        var lines: [Line] = []
        var finder = LineFinder()
        /// Line start in the upper half, rule in the lower.
        var hits: [UInt64] = []
        var limit = 0
    }

    deinit {
        hs_free_scratch(scratch)
        padded.deallocate()
    }

    /// Scans body lines, or one header; nil if there is too little memory or there are too many hits.
    ///
    /// A hit is a rule and the start of the line or header in which its pattern ends. Hits are in ascending order,
    /// without duplicates.
    func scan(_ text: UnsafeRawBufferPointer, with pass: FastPass) -> [UInt64]? {
        scan(text, headers: [], with: pass)
    }

    /// Scans all headers of a block at once.
    func scan(_ block: HeaderBlock, with pass: FastPass) -> [UInt64]? {
        scan(block.text, headers: block.headers, with: pass)
    }

    private func scan(
        _ text: UnsafeRawBufferPointer, headers: [Header], with pass: FastPass
    ) -> [UInt64]? {
        state.hits.removeAll(keepingCapacity: true)
        guard let database = pass.database, !text.isEmpty else { return state.hits }
        guard prepare(pass, database) else { return nil }
        let length = text.count + Self.padding
        if length > padded.count {
            padded.deallocate()
            padded = .allocate(byteCount: length, alignment: 64)
        }
        switch pass.subject {
        case .lines: padded.copyMemory(from: text)
        case .headers, .decodedHeaders: copyHeaders(text, headers)
        }
        memset(padded.baseAddress! + text.count, 0x0a, Self.padding)
        state.text = UnsafeRawBufferPointer(rebasing: padded[..<text.count])
        state.finder = LineFinder()
        let code = withUnsafeMutablePointer(to: &state) { state in
            hs_scan(
                database, padded.baseAddress, UInt32(length), 0, scratch,
                { rule, _, end, _, context in
                    let state = context!.assumingMemoryBound(to: State.self)
                    return ScanScratch.record(rule, end: Int(end), &state.pointee)
                }, state)
        }
        for hit in state.hits { state.lines[Int(UInt32(truncatingIfNeeded: hit))] = Line() }
        guard code == HS_SUCCESS else { return nil }
        if state.hits.count > 1 { sortHits() }
        return state.hits
    }

    /// Copies headers with their folding newlines replaced by CRs.
    private func copyHeaders(_ text: UnsafeRawBufferPointer, _ headers: [Header]) {
        text.withMemoryRebound(to: UInt8.self) { text in
            padded.withMemoryRebound(to: UInt8.self) { padded in
                for index in text.indices { padded[index] = text[index] == 0x0a ? 0x0d : text[index] }
            }
        }
        for header in headers { padded[header.textRange.upperBound] = 0x0a }
    }

    private func prepare(_ pass: FastPass, _ database: OpaquePointer) -> Bool {
        guard !ready.contains(pass.number) else { return true }
        guard hs_alloc_scratch(database, &scratch) == HS_SUCCESS else { return false }
        if ready.count == 8 { ready.removeFirst() }
        ready.append(pass.number)
        if state.lines.count < pass.ruleCount {
            state.lines = Array(repeating: Line(), count: pass.ruleCount)
        }
        // A single line has at most one hit per rule.
        state.limit = max(state.limit, 4_096, pass.ruleCount)
        return true
    }

    private static func record(_ rule: UInt32, end: Int, _ state: inout State) -> Int32 {
        guard end <= state.text.count else { return 0 }
        let last = state.lines[Int(rule)]
        if last.start <= end, end <= last.end { return 0 }
        guard state.hits.count < state.limit else { return 1 }
        let line = state.finder.line(of: end, in: state.text)
        state.lines[Int(rule)] = Line(start: UInt32(line.lowerBound), end: UInt32(line.upperBound))
        state.hits.append(UInt64(line.lowerBound) << 32 | UInt64(rule))
        return 0
    }

    private func sortHits() {
        state.hits.sort()
        var kept = 1
        for index in 1..<state.hits.count where state.hits[index] != state.hits[kept - 1] {
            state.hits[kept] = state.hits[index]
            kept += 1
        }
        state.hits.removeLast(state.hits.count - kept)
    }
}
