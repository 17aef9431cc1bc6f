// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// The file of a UNIX socket: who may connect is who may write it.
enum UnixSocketFile {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// - Throws: `Failure` where the group is unknown, or the service may not give the file to it.
    static func set(mode: UInt16, group: String?, of path: String) throws {
        // First the group: until then only the owner may connect (umask 077 or stricter than any mode).
        if let group {
            guard let entry = getgrnam(group) else {
                throw Failure(description: "the group '\(group)' of \(path) does not exist")
            }
            guard chown(path, uid_t.max, entry.pointee.gr_gid) == 0 else {
                throw Failure(description: "can't give \(path) to the group '\(group)': \(String(cString: strerror(errno)))")
            }
        }
        guard chmod(path, mode_t(mode)) == 0 else {
            throw Failure(description: "can't set the mode of \(path): \(String(cString: strerror(errno)))")
        }
    }
}
