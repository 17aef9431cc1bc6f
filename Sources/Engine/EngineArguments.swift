// SPDX-License-Identifier: Apache-2.0

/// Calls `body` with a command and its arguments as libhiredis takes them: their number, pointers to them, and their
/// lengths in bytes.
func withEngineArguments<Result>(
    _ words: [some Collection<UInt8>],
    _ body: (Int32, UnsafeMutablePointer<UnsafePointer<CChar>?>, UnsafePointer<Int>) -> Result
) -> Result {
    let lengths = words.map(\.count)
    // One byte more, so that there is an address if all words are empty.
    let bytes = words.joined().map { CChar(bitPattern: $0) } + [0]
    return bytes.withUnsafeBufferPointer { bytes in
        var pointers: [UnsafePointer<CChar>?] = []
        var place = bytes.baseAddress!
        for length in lengths {
            pointers.append(place)
            place += length
        }
        return body(Int32(words.count), &pointers, lengths)
    }
}
