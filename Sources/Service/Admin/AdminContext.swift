// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Hummingbird
internal import HummingbirdCore
internal import NIOCore
internal import Report
internal import Wire

/// A request's context. It keeps the channel, to find the user at the other end.
struct AdminContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    private let channel: any Channel

    init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }

    /// Closes the connection of a refused request, after a second to send the response. Otherwise the rest of a slow
    /// request would keep the connection open.
    func closeSoon() {
        channel.eventLoop.scheduleTask(in: .seconds(1)) { [channel] in channel.close(promise: nil) }
    }

    /// The user at the other end of a UNIX socket; on loopback, the address of the client.
    func user() async -> String {
        guard let options = channel as? any SocketOptionProvider,
            let peer: PeerCredentials = try? await options.unsafeGetSocketOption(
                level: .socket, name: .init(rawValue: SO_PEERCRED)
            ).get(),
            peer.uid != uid_t.max
        else {
            let address = channel.remoteAddress?.text ?? ""
            return address.isEmpty ? "unknown" : "\(address) with the token"
        }
        // The service runs in a container, and the client does not. There, another user may have this number.
        guard peer.pid != 0 else { return "uid \(peer.uid) (outside the container)" }
        return "uid \(peer.uid)\(Self.name(ofUser: peer.uid).map { " (\($0))" } ?? "")"
    }

    private static func name(ofUser uid: uid_t) -> String? {
        var entry = passwd()
        var found: UnsafeMutablePointer<passwd>?
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 16_384) { buffer in
            guard getpwuid_r(uid, &entry, buffer.baseAddress!, buffer.count, &found) == 0, found != nil else {
                return nil
            }
            return String(cString: entry.pw_name)
        }
    }
}

/// `struct ucred` of unix(7), which the C library defines only for GNU sources.
private struct PeerCredentials {
    /// 0 without a process of this PID namespace.
    var pid: Int32
    /// All bits set for a TCP connection.
    var uid: UInt32
    var gid: UInt32
}

/// Stops accepting at the bound, and logs it.
struct AdminConnections: AvailableConnectionsDelegate {
    let most: Int
    let log: EventLog
    private var open = 0

    init(most: Int, log: EventLog) {
        self.most = most
        self.log = log
    }

    mutating func connectionOpened() {
        open += 1
        if open >= most {
            log.complain(
                .tooManyAdminConnections,
                "\(open) connections to the admin listener; it accepts no more until one closes")
        }
    }

    mutating func connectionClosed() { open -= 1 }

    func isAcceptingNewConnections() -> Bool { open < most }
}
