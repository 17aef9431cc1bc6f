// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// The name of this host, as gethostname(2) gives it: printable ASCII without blanks, and never empty. It may change.
package func hostName() -> String {
    var name = [CChar](repeating: 0, count: 256)
    gethostname(&name, name.count - 1)
    return hostName(from: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)))
}

/// The kernel takes any bytes as a name. A log line and an alert begin with it, so that what no name has becomes `?`.
package func hostName(from bytes: [UInt8]) -> String {
    guard !bytes.isEmpty else { return "localhost" }
    return String(decoding: bytes.map { (0x21...0x7e).contains($0) ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
}
