// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// The name of this host, as gethostname(2) gives it. It may change, and be empty.
package func hostName() -> String {
    var name = [CChar](repeating: 0, count: 256)
    gethostname(&name, name.count - 1)
    return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
}
