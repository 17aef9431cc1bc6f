// SPDX-License-Identifier: Apache-2.0
internal import CVectorscan
internal import Glibc

/// What the libhs at hand gets wrong.
enum ScanLibrary {
    /// Whether it finds patterns everywhere that hold no two bytes in a row for certain, such as `b.+c`. Vectorscan 5.4.9
    /// with AVX-512 loses them behind the first 64 bytes; Hyperscan does not.
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
        // Some offsets come out right by chance.
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
