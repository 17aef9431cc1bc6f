// SPDX-License-Identifier: Apache-2.0
import Glibc
import NIOCore

extension Error {
    /// The reason for a lost connection, as reports print it.
    var reason: String {
        switch self {
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case let error as MalformedReply: "malformed reply: \(error.reason)"
        case let error as SessionRefused: "session refused: \(error.reply)"
        default: String(describing: self)
        }
    }
}
