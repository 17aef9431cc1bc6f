// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

@Suite struct SipHashTests {
    private func hash(_ fields: [String], key: SipHash.Key = .init(low: 1, high: 2)) -> UInt64 {
        var hash = SipHash(key: key)
        for field in fields { Array(field.utf8).withUnsafeBytes { hash.combine($0) } }
        return hash.finalize()
    }

    @Test func fieldBoundariesMatter() {
        #expect(hash(["ab", "c"]) != hash(["a", "bc"]))
        #expect(hash(["", "a"]) != hash(["a", ""]))
        #expect(hash(["12345678", "9"]) != hash(["123456789", ""]))
    }

    /// Keys in the store are found again only if the hash never changes.
    @Test func neverChanges() {
        #expect(hash(["user@example.org"]) == 1_288_331_018_542_914_260)
        #expect(hash(["user@example.org"], key: .init(low: 3, high: 4)) != hash(["user@example.org"]))
    }

    @Test func everyBitCounts() {
        let base = hash(["0123456789abcdef0"])
        var different = Set([base])
        for index in 0..<17 {
            var bytes = Array("0123456789abcdef0".utf8)
            bytes[index] ^= 1
            different.insert(hash([String(decoding: bytes, as: UTF8.self)]))
        }
        #expect(different.count == 18)
    }
}
