// SPDX-License-Identifier: Apache-2.0

/// SplitMix64: the same numbers from the same seed everywhere.
package struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    /// Two seeds have the same numbers, shifted, only if they differ by a multiple of the constant below.
    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }

    mutating func happens(_ probability: Double) -> Bool { unit() < probability }

    mutating func unit() -> Double { Double(next() >> 11) / Double(1 << 53) }

    mutating func time(_ range: ClosedRange<Int64>) -> Int64 {
        range.lowerBound + Int64(unit() * Double(range.upperBound - range.lowerBound + 1))
    }

    /// Exponentially distributed, at least 1.
    mutating func interval(mean: Double) -> Int64 {
        var u = unit()
        while u == 0 { u = unit() }
        // -ln u without Foundation: halvings, then a series.
        var (halvings, sum) = (0.0, 0.0)
        while u < 0.5 {
            u *= 2
            halvings += 1
        }
        let x = 1 - u
        var power = x
        for n in 1...20 {
            sum += power / Double(n)
            power *= x
        }
        return max(1, Int64(mean * (halvings * 0.693_147_180_559_945_3 + sum)))
    }

    consuming func picking<T>(_ values: [T]) -> T { pick(values) }

    mutating func pick<T>(_ values: [T]) -> T { values[Int(next() % UInt64(values.count))] }
}

/// What happens at which time, the earliest first; of the same time, in the order in which they were added.
struct Events {
    private struct Event {
        let time: Int64
        let number: Int
        let run: () -> Void

        static func < (a: Event, b: Event) -> Bool { (a.time, a.number) < (b.time, b.number) }
    }

    private var heap: [Event] = []
    private var number = 0

    mutating func add(at time: Int64, _ run: @escaping () -> Void) {
        number += 1
        heap.append(Event(time: time, number: number, run: run))
        var child = heap.count - 1
        while child > 0, heap[child] < heap[(child - 1) / 2] {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func next() -> (time: Int64, run: () -> Void)? {
        guard let first = heap.first, let last = heap.popLast() else { return nil }
        guard !heap.isEmpty else { return (first.time, first.run) }
        heap[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child] < heap[least] {
                least = child
            }
            guard least != parent else { return (first.time, first.run) }
            heap.swapAt(least, parent)
            parent = least
        }
    }
}

/// A machine's clock: it started somewhere, and is at most a thousandth too fast or too slow.
struct MachineClock {
    var offset: Int64
    let partsPerMillion: Int64

    init(_ random: inout SeededRandom) {
        offset = random.time(0...1_000_000_000)
        partsPerMillion = random.time(-1000...1000)
    }

    func read(at time: Int64) -> Int64 { offset + time + time * partsPerMillion / 1_000_000 }
}
