// SPDX-License-Identifier: Apache-2.0
package import Glibc

/// A time in UTC, formatted as strftime(3) does; at most 63 bytes.
package func utcText(_ seconds: time_t, format: String) -> String {
    var seconds = seconds
    var parts = tm()
    gmtime_r(&seconds, &parts)
    var text = [CChar](repeating: 0, count: 64)
    let length = strftime(&text, text.count, format, &parts)
    return String(decoding: text[..<length].map(UInt8.init(bitPattern:)), as: UTF8.self)
}
