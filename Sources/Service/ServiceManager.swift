// SPDX-License-Identifier: Apache-2.0
internal import CLinux  // Whose module map claims sockaddr_storage.
internal import Glibc
internal import Loop
internal import NIOCore
internal import Policy
internal import Settings
internal import Wire

/// The systemd interface: sockets from socket activation (sd_listen_fds), and state notifications (sd_notify).
struct ServiceManager: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private static let firstInherited: Int32 = 3
    /// The number of descriptors that a process may usually have.
    private static let mostInherited: Int32 = 1024

    /// The sockets passed by socket activation, by the addresses that they are bound to, as in `inet:127.0.0.1:10040`.
    ///
    /// - Throws: `Failure`.
    static func inheritedSockets() throws -> [String: Int32] {
        guard let pid = environment("LISTEN_PID").flatMap({ Int32($0) }), pid == getpid(),
            let count = environment("LISTEN_FDS").flatMap({ Int32($0) })
        else { return [:] }
        guard (0...mostInherited).contains(count) else {
            throw Failure(description: "LISTEN_FDS is \(count); expected a number from 0 to \(mostInherited)")
        }
        var sockets: [String: Int32] = [:]
        for descriptor in firstInherited..<firstInherited + count {
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            sockets[try endpoint(of: descriptor).description] = descriptor
        }
        return sockets
    }

    private static func endpoint(of descriptor: Int32) throws -> Endpoint {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let code = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard code == 0 else { throw Failure(description: "descriptor \(descriptor) of LISTEN_FDS is not a socket") }
        switch Int32(storage.ss_family) {
        case AF_UNIX:
            let path = withUnsafeBytes(of: &storage) { bytes in
                bytes[MemoryLayout<sa_family_t>.size..<Int(length)].prefix { $0 != 0 }
                    .map { $0 }
            }
            return .unix(path: String(decoding: path, as: UTF8.self), mode: 0, group: nil)
        default:
            var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            var port = [CChar](repeating: 0, count: Int(NI_MAXSERV))
            let found = withUnsafePointer(to: &storage) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    getnameinfo(
                        $0, length, &host, socklen_t(host.count), &port, socklen_t(port.count),
                        NI_NUMERICHOST | NI_NUMERICSERV)
                }
            }
            guard found == 0, let number = Int(text(port)) else {
                throw Failure(description: "descriptor \(descriptor) of LISTEN_FDS has no address")
            }
            return .inet(host: text(host), port: number)
        }
    }

    private static func text(_ characters: [CChar]) -> String {
        String(decoding: characters.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// Sends a state to the service manager, if there is one.
    ///
    /// - Parameter mayBlock: whether to wait if the service manager reads nothing; otherwise the state is dropped.
    func notify(_ state: String, mayBlock: Bool = true) {
        guard let path = Self.environment("NOTIFY_SOCKET"), !path.isEmpty else { return }
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var name = Array(path.utf8)
        guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
        // An abstract socket is written with an @ and begins with a NUL.
        if name[0] == UInt8(ascii: "@") { name[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + name.count)
        let message = Array(state.utf8)
        let flags = Int32(MSG_NOSIGNAL) | (mayBlock ? 0 : Int32(MSG_DONTWAIT))
        _ = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, message, message.count, flags, $0, length)
            }
        }
    }

    /// Notifies the watchdog twice per interval while the ledger's loop responds. Runs until its task is cancelled.
    func keepAlive(_ host: LedgerHost) async throws {
        guard let interval = Self.environment("WATCHDOG_USEC").flatMap({ Int64($0) }), interval > 0 else {
            return
        }
        while !Task.isCancelled {
            try await host.loop.submit {}
            notify("WATCHDOG=1")
            try await Task.sleep(for: .microseconds(interval / 2))
        }
    }

    private static func environment(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }
    }
}
