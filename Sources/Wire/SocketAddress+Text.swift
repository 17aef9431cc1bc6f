// SPDX-License-Identifier: Apache-2.0
package import NIOCore

extension SocketAddress {
    /// `127.0.0.1:25`, `[::1]:25`, or the path of a UNIX socket.
    package var text: String {
        guard let host = ipAddress, let port else { return pathname ?? "" }
        return "\(host.contains(":") ? "[\(host)]" : host):\(port)"
    }
}
