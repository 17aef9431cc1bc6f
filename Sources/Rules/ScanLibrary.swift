// SPDX-License-Identifier: Apache-2.0
internal import CVectorscan
internal import Glibc

/// Known bugs of the installed libhs.
enum ScanLibrary {
    /// Whether it finds patterns without two adjacent literal bytes, such as `b.+c`, at every offset. Vectorscan 5.4.9
    /// with AVX-512 misses them after the first 64 bytes; Hyperscan does not.
    static let findsPatternsWithoutLiteral: Bool = {
        var database: OpaquePointer?
        var failure: UnsafeMutablePointer<hs_compile_error_t>?
        var scratch: OpaquePointer?
        defer {
            hs_free_scratch(scratch)
            hs_free_database(database)
            hs_free_compile_error(failure)
        }
        guard
            hs_compile("b.+c", UInt32(HS_FLAG_MULTILINE), UInt32(HS_MODE_BLOCK), nil, &database, &failure)
                == HS_SUCCESS,
            hs_alloc_scratch(database, &scratch) == HS_SUCCESS
        else { return false }
        // Some offsets work by chance.
        return (0..<256).allSatisfy { offset in
            var text = [UInt8](repeating: UInt8(ascii: "x"), count: 512)
            text[offset] = UInt8(ascii: "b")
            text[offset + 2] = UInt8(ascii: "c")
            var isFound = false
            withUnsafeMutablePointer(to: &isFound) { isFound in
                _ = hs_scan(
                    database, text, UInt32(text.count), 0, scratch,
                    { _, _, _, _, isFound in
                        isFound!.assumingMemoryBound(to: Bool.self).pointee = true
                        return 1
                    }, isFound)
            }
            return isFound
        }
    }()
}
