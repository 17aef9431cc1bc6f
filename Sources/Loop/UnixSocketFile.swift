// SPDX-License-Identifier: Apache-2.0
internal import CDispatch  // Whose module map claims stat.
internal import CLinux
internal import Glibc

/// The file of a UNIX socket. Whoever may write to the file may connect.
package enum UnixSocketFile {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    /// Removes the file of a socket on which no process listens any more.
    ///
    /// - Throws: `Failure` if a process listens on it, if the file is not a socket, or if it can't be removed.
    package static func clear(_ path: String) throws {
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw Failure(description: "\(path) exists and is not a socket")
        }
        guard !isAnswered(path) else {
            throw Failure(description: "another process listens on \(path)")
        }
        guard unlink(path) == 0 || errno == ENOENT else {
            let reason = String(cString: strerror(errno))
            throw Failure(description: "can't remove the socket that a former process has left there: \(reason)")
        }
    }

    private static func isAnswered(_ path: String) -> Bool {
        let descriptor = socket(
            AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let name = Array(path.utf8)
        guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { return false }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        // A full backlog also means that a process listens.
        return code == 0 || errno == EAGAIN
    }

    /// - Throws: `Failure` if the group is unknown, or the service may not assign the file to it.
    package static func set(mode: UInt16, group: String?, of path: String) throws {
        // The group first: until the mode is set, only the owner may connect (umask 077).
        if let group {
            guard let entry = getgrnam(group) else {
                throw Failure(description: "the group '\(group)' of \(path) does not exist")
            }
            guard chown(path, uid_t.max, entry.pointee.gr_gid) == 0 else {
                throw Failure(
                    description: "can't give \(path) to the group '\(group)': \(String(cString: strerror(errno)))")
            }
        }
        guard chmod(path, mode_t(mode)) == 0 else {
            throw Failure(description: "can't set the mode of \(path): \(String(cString: strerror(errno)))")
        }
    }
}
