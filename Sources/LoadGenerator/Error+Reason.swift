// SPDX-License-Identifier: Apache-2.0
import Glibc
import NIOCore

extension Error {
    /// What went wrong, for a person to read.
    var reason: String {
        switch self {
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case let error as MalformedReply: "malformed reply: \(error.reason)"
        default: String(describing: self)
        }
    }
}
