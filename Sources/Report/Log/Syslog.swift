// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// The syslog of this machine, facility mail.
package struct Syslog: Sendable {
    /// The path of the socket that syslog(3) writes to.
    private let path: String

    package init(path: String = "/dev/log") {
        self.path = path
        _ = Self.identify
    }

    /// Lines begin with `weir[123]: `, as elsewhere. openlog(3) keeps the pointer.
    private static let identify: Void = openlog(strdup("weir"), LOG_PID, LOG_MAIL)

    /// - Parameter level: a value of syslog(3).
    func write(_ level: Int32, _ line: String) {
        withVaList([]) { vsyslog(level | LOG_MAIL, line.replacing("%", with: "%%"), $0) }
    }

    /// Why nobody takes lines at the moment; nil if somebody does. syslog(3) loses such lines without an error.
    var fault: String? {
        var code = EPROTOTYPE
        // As syslog(3): most daemons have a socket for datagrams.
        for type in [SOCK_DGRAM, SOCK_STREAM] where code == EPROTOTYPE { code = connect(type) }
        return code == 0 ? nil : String(cString: strerror(code))
    }

    /// - Returns: the error of a connection to the socket; 0 if there is none.
    private func connect(_ type: __socket_type) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(type.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        return code == 0 ? 0 : errno
    }
}
