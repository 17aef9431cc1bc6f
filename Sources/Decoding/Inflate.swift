// SPDX-License-Identifier: Apache-2.0

/// Decompresses the beginning of deflated data (RFC 1951).
struct Inflate {
    enum End {
        /// The data is complete.
        case complete
        /// `most` bytes, or the budget, are reached.
        case limit
        /// The data breaks the rules or ends too early.
        case damaged
    }

    private let input: UnsafeRawBufferPointer
    private var position = 0
    private var bits: UInt64 = 0
    private var bitCount = 0
    private(set) var output: [UInt8] = []
    private let most: Int
    /// Bytes of work: those of the output, and `blockCost` for each block. Empty blocks take time, too.
    private(set) var spent = 0
    private let budget: Int

    private struct Damage: Error {}
    private struct Limit: Error {}

    /// Building the tables of a block takes as long as about so many bytes.
    private static let blockCost = 1_024

    init(_ input: UnsafeRawBufferPointer, most: Int, budget: Int) {
        self.input = input
        self.most = most
        self.budget = budget
    }

    mutating func run() -> End {
        do {
            while try !block() {}
            return .complete
        } catch is Limit {
            return .limit
        } catch {
            return .damaged
        }
    }

    /// Decompresses a block. Returns whether it is the last one.
    private mutating func block() throws -> Bool {
        try spend(Self.blockCost)
        let isLast = try take(1) == 1
        switch try take(2) {
        case 0: try stored()
        case 1: try codes(Self.fixedLengths, Self.fixedDistances)
        case 2:
            let (lengths, distances) = try readTables()
            try codes(lengths, distances)
        default: throw Damage()
        }
        return isLast
    }

    private mutating func spend(_ work: Int) throws {
        spent += work
        guard spent <= budget else { throw Limit() }
    }

    private mutating func put(_ byte: UInt8) throws {
        guard output.count < most else { throw Limit() }
        output.append(byte)
    }

    // MARK: - Bits

    private mutating func fill() {
        while bitCount <= 56, position < input.count {
            bits |= UInt64(input[position]) << UInt64(bitCount)
            position += 1
            bitCount += 8
        }
    }

    private mutating func take(_ count: Int) throws -> Int {
        if bitCount < count { fill() }
        guard bitCount >= count else { throw Damage() }
        let value = Int(bits & (1 << UInt64(count) - 1))
        bits >>= UInt64(count)
        bitCount -= count
        return value
    }

    private mutating func stored() throws {
        let partial = bitCount % 8
        bits >>= UInt64(partial)
        bitCount -= partial
        let length = try take(16)
        guard try take(16) == ~length & 0xffff else { throw Damage() }
        try spend(length)
        for _ in 0..<length { try put(UInt8(take(8))) }
    }

    // MARK: - Codes

    /// A Huffman code. The next bits, at most `bits` of them, are an index into `fast`; longer codes are found one bit
    /// after the other.
    private struct Code {
        static let bits = 9
        /// The symbol times 16 and the length of its code; 0 for longer codes.
        var fast = [UInt16](repeating: 0, count: 1 << Code.bits)
        /// The number of codes of each length, and the symbols in the order of their codes.
        var counts = [Int](repeating: 0, count: 16)
        var symbols: [UInt16] = []

        init(_ lengths: ArraySlice<UInt8>) throws {
            for length in lengths { counts[Int(length)] += 1 }
            counts[0] = 0
            var (left, code) = (1, 0)
            var next = [Int](repeating: 0, count: 16)
            var offsets = [Int](repeating: 0, count: 17)
            for length in 1..<16 {
                left = left * 2 - counts[length]
                guard left >= 0 else { throw Damage() }
                code = (code + counts[length - 1]) << 1
                next[length] = code
                offsets[length + 1] = offsets[length] + counts[length]
            }
            symbols = [UInt16](repeating: 0, count: offsets[16])
            for (symbol, length) in lengths.enumerated() where length > 0 {
                let length = Int(length)
                symbols[offsets[length]] = UInt16(symbol)
                offsets[length] += 1
                addFast(UInt16(symbol), length, next[length])
                next[length] += 1
            }
        }

        private mutating func addFast(_ symbol: UInt16, _ length: Int, _ code: Int) {
            guard length <= Self.bits else { return }
            var reversed = 0
            for bit in 0..<length where code >> bit & 1 == 1 { reversed |= 1 << (length - 1 - bit) }
            for index in stride(from: reversed, to: 1 << Self.bits, by: 1 << length) {
                fast[index] = symbol << 4 | UInt16(length)
            }
        }
    }

    private mutating func symbol(_ code: borrowing Code) throws -> Int {
        if bitCount < 15 { fill() }
        let entry = code.fast[Int(bits & (1 << UInt64(Code.bits) - 1))]
        let length = Int(entry & 15)
        if length > 0, length <= bitCount {
            bits >>= UInt64(length)
            bitCount -= length
            return Int(entry >> 4)
        }
        var (value, first, index) = (0, 0, 0)
        for length in 1..<16 {
            value |= try take(1)
            let count = code.counts[length]
            if value - count < first { return Int(code.symbols[index + value - first]) }
            index += count
            first = (first + count) << 1
            value <<= 1
        }
        throw Damage()
    }

    private mutating func codes(_ lengths: borrowing Code, _ distances: borrowing Code) throws {
        while true {
            let symbol = try symbol(lengths)
            if symbol < 256 {
                try spend(1)
                try put(UInt8(symbol))
            } else if symbol == 256 {
                return
            } else {
                try copy(symbol - 257, distances)
            }
        }
    }

    private mutating func copy(_ symbol: Int, _ distances: borrowing Code) throws {
        guard symbol < 29 else { throw Damage() }
        let length = try Int(Self.lengthBase[symbol]) + take(Int(Self.lengthBits[symbol]))
        let code = try self.symbol(distances)
        guard code < 30 else { throw Damage() }
        let distance = try Int(Self.distanceBase[code]) + take(code < 2 ? 0 : code / 2 - 1)
        guard distance <= output.count else { throw Damage() }
        try spend(length)
        for _ in 0..<length { try put(output[output.count - distance]) }
    }

    private mutating func readTables() throws -> (Code, Code) {
        let (lengthCount, distanceCount) = try (take(5) + 257, take(5) + 1)
        let codeCount = try take(4) + 4
        guard lengthCount <= 286, distanceCount <= 30 else { throw Damage() }
        var codeLengths = [UInt8](repeating: 0, count: 19)
        for index in 0..<codeCount { codeLengths[Int(Self.order[index])] = UInt8(try take(3)) }
        let code = try Code(codeLengths[...])
        var lengths: [UInt8] = []
        while lengths.count < lengthCount + distanceCount {
            let symbol = try symbol(code)
            switch symbol {
            case 0..<16: lengths.append(UInt8(symbol))
            case 16:
                guard let last = lengths.last else { throw Damage() }
                lengths += repeatElement(last, count: try take(2) + 3)
            case 17: lengths += repeatElement(0, count: try take(3) + 3)
            default: lengths += repeatElement(0, count: try take(7) + 11)
            }
        }
        guard lengths.count == lengthCount + distanceCount, lengths[256] > 0 else { throw Damage() }
        return try (Code(lengths[..<lengthCount]), Code(lengths[lengthCount...]))
    }

    private static let order: [UInt8] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    private static let lengthBase: [UInt16] = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227,
        258,
    ]
    private static let lengthBits: [UInt8] = [
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
    ]
    private static let distanceBase: [UInt16] = [
        1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097,
        6145,
        8193, 12289, 16385, 24577,
    ]
    private static let fixedLengths = try! Code(
        [UInt8](repeating: 8, count: 144)[...] + [UInt8](repeating: 9, count: 112) + [UInt8](repeating: 7, count: 24)
            + [UInt8](repeating: 8, count: 8))
    private static let fixedDistances = try! Code([UInt8](repeating: 5, count: 30)[...])
}
