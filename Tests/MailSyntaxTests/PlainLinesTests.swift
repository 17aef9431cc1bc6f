// SPDX-License-Identifier: Apache-2.0
import CIntrinsics
import Testing

/// The search in blocks of 64 bytes finds the same lines as a search byte by byte, with both vector sizes.
@Suite struct PlainLinesTests {
    private static let searches: [@Sendable (UnsafeRawPointer?, Int, Int, Bool) -> weir_lines] = [
        { weir_plain_lines_16($0, $1, $2, $3) }, { weir_plain_lines($0, $1, $2, $3) },
    ]

    /// The length of the plain lines at the start of `text`, and the number of CRs before each offset.
    private func plainLines(_ text: [UInt8], _ longest: Int, _ hyphens: Bool) -> (length: Int, returns: [Int]) {
        var (length, returns) = (0, [Int](repeating: 0, count: text.count + 1))
        for (index, byte) in text.enumerated() { returns[index + 1] = returns[index] + (byte == 0x0d ? 1 : 0) }
        while length < text.count {
            guard !(hyphens && text[length] == UInt8(ascii: "-")), let end = text[length...].firstIndex(of: 0x0a) else {
                break
            }
            let line = text[length..<end]
            let isPlain = !line.contains(0) && !line.dropLast().contains(0x0d)
            guard isPlain, end + 1 - length <= longest else { break }
            length = end + 1
        }
        return (length, returns)
    }

    @Test(arguments: 0..<20_000)
    func sameAsByteByByte(seed: Int) {
        var random = SystemRandomNumberGenerator()
        let alphabet: [UInt8] = [[0x78], [0x78, 0x2d], [0x78, 0x78, 0x2d, 0x78, 0x0a]][seed % 3]
        let ends: [[UInt8]] = [[0x0a], [0x0d, 0x0a]]
        var text: [UInt8] = []
        let end = ends[seed % 2]
        while text.count < 1000 {
            let most = [10, 70, 70, 130, 300][Int.random(in: 0..<5, using: &random)]
            text += (0..<Int.random(in: 0...most, using: &random)).map { _ in alphabet.randomElement(using: &random)! }
            text += end
        }
        for _ in 0..<Int.random(in: 0...2, using: &random) {
            let odd: [UInt8] = [0x00, 0x0d, 0x0a, 0x2d]
            text[Int.random(in: 0..<text.count, using: &random)] = odd.randomElement(using: &random)!
        }
        text.removeLast(Int.random(in: 0...200, using: &random))
        let (longest, hyphens) = ([127, 128, 200, 2048].randomElement(using: &random)!, Bool.random(using: &random))
        let (length, returns) = plainLines(text, longest, hyphens)
        for search in Self.searches {
            let lines = text.withUnsafeBytes { search($0.baseAddress, $0.count, longest, hyphens) }
            #expect(lines.length <= length)
            #expect(lines.length == 0 || text[lines.length - 1] == 0x0a)
            #expect(lines.returns == returns[lines.length])
            // At most one line and the rest of its block may be missing, besides lines that may become too long.
            let left = text[lines.length..<length]
            if longest == 2048 { #expect((left.firstIndex(of: 0x0a).map { left[($0 + 1)...].count } ?? 0) <= 64) }
        }
    }
}
