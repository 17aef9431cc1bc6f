// SPDX-License-Identifier: Apache-2.0

/// Makes inputs out of others: bytes are changed, pieces are copied, cut and spliced, and words are put in. The same
/// seed makes the same inputs.
struct Mutator {
    private let seeds: [[UInt8]]
    private let words: [[UInt8]]
    private var state: UInt64

    private static let longest = 4096

    init(seeds: [[UInt8]], words: [[UInt8]], seed: UInt64) {
        self.seeds = seeds.isEmpty ? [[]] : seeds
        self.words = words
        state = seed
    }

    /// SplitMix64
    private mutating func random(below bound: Int) -> Int {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return Int((value ^ (value >> 31)) % UInt64(max(1, bound)))
    }

    mutating func next() -> [UInt8] {
        var input = seeds[random(below: seeds.count)]
        for _ in 0...random(below: 6) { mutate(&input) }
        return Array(input.prefix(Self.longest))
    }

    private mutating func mutate(_ input: inout [UInt8]) {
        let index = random(below: input.count + 1)
        let end = min(input.count, index + 1 + random(below: 16))
        switch random(below: 9) {
        case 0 where index < input.count: input[index] = UInt8(random(below: 256))
        case 1 where index < input.count: input[index] ^= 1 << UInt8(random(below: 8))
        case 2: input.insert(UInt8(random(below: 256)), at: index)
        case 3: input.removeSubrange(index..<end)
        case 4: input.insert(contentsOf: input[index..<end], at: random(below: input.count + 1))
        case 5: input.removeSubrange(index...)
        case 6:
            let other = seeds[random(below: seeds.count)]
            input.replaceSubrange(index..., with: other[random(below: other.count + 1)...])
        case 7 where !words.isEmpty: input.replaceSubrange(index..<end, with: words[random(below: words.count)])
        default: if !words.isEmpty { input.insert(contentsOf: words[random(below: words.count)], at: index) }
        }
    }

    /// The words of a dictionary for libFuzzer: lines of `"word"`, with `\\`, `\"` and `\x0d`.
    static func words(ofDictionary text: [UInt8]) -> [[UInt8]] {
        text.split(separator: UInt8(ascii: "\n")).compactMap { line in
            guard line.first == UInt8(ascii: "\""), line.last == UInt8(ascii: "\"") else { return nil }
            var (word, rest): ([UInt8], _) = ([], line.dropFirst().dropLast())
            while let byte = rest.popFirst() {
                guard byte == UInt8(ascii: "\\"), let escaped = rest.popFirst() else {
                    word.append(byte)
                    continue
                }
                if escaped == UInt8(ascii: "x"),
                    let code = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
                {
                    word.append(code)
                    rest = rest.dropFirst(2)
                } else {
                    word.append(escaped)
                }
            }
            return word
        }
    }
}
