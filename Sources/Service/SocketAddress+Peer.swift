// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Glibc
internal import NIOCore

extension SocketAddress {
    /// The address of who is connected by TCP; nil for one of this machine's by a UNIX socket.
    init?(ofPeerOf descriptor: Int32) {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let code = withUnsafeMutablePointer(to: &storage) { storage in
            storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(descriptor, $0, &length) }
        }
        guard code == 0 else { return nil }
        // The family comes first. Which module defines the field depends on the order in which the compiler sees them.
        switch Int32(withUnsafeBytes(of: storage) { $0.loadUnaligned(as: sa_family_t.self) }) {
        case AF_INET: self = withUnsafeBytes(of: &storage) { SocketAddress($0.loadUnaligned(as: sockaddr_in.self)) }
        case AF_INET6: self = withUnsafeBytes(of: &storage) { SocketAddress($0.loadUnaligned(as: sockaddr_in6.self)) }
        default: return nil
        }
    }
}
