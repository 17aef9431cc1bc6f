// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import NIOCore
internal import NIOPosix

extension Error {
    /// The reason of an error of a connection or listener, for people: `Connection refused`.
    package var systemReason: String {
        switch self {
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case let error as NIOConnectionError:
            // A name may have several addresses; one reason is enough.
            error.connectionErrors.first?.error.systemReason ?? "the name \(error.host) can't be resolved"
        case let error as ChannelError:
            if case .connectTimeout(let time) = error {
                "no answer within \(time.nanoseconds / 1_000_000_000) s"
            } else {
                "\(error)"
            }
        case let error as SocketAddressError.UnknownHost: "the name \(error.host) can't be resolved"
        case let error as SocketAddressError:
            error == .unixDomainSocketPathTooLong ? "the path is too long for a socket" : "\(error)"
        default: "\(self)"
        }
    }
}
