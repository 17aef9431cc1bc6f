// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc

/// What keeps a store from its files, where SQLite says only that it can't open or write one of them, or that the disk
/// had an error.
enum StoreObstacle {
    /// SQLite needs 32 KiB for a new index of a log, and as much again for the first pages.
    private static let leastSpace: UInt = 64 << 10

    /// - Parameter path: of the database. Its other files begin with the same name.
    /// - Returns: nil if nothing is seen. The text has no figures, so that it stays the same while the obstacle does.
    static func found(at path: String) -> String? {
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
        if access(folder, F_OK) != 0 { return "\(folder): \(String(cString: strerror(errno)))" }
        var system = statvfs()
        if statvfs(folder, &system) == 0 {
            if system.f_bavail * system.f_frsize < leastSpace { return "the file system of \(folder) is full" }
            if system.f_files > 0, system.f_favail == 0 { return "the file system of \(folder) has no inode left" }
        }
        if access(folder, W_OK | X_OK) != 0 { return notPermitted("write to", folder) }
        let name = URL(fileURLWithPath: path).lastPathComponent
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        for file in files.sorted() where file.hasPrefix(name) && !file.contains(".damaged-") {
            let file = "\(folder)/\(file)"
            if access(file, R_OK | W_OK) != 0, errno == EACCES { return notPermitted("read and write", file) }
        }
        return nil
    }

    /// `uid 998 can't read and write /var/lib/weir/ledger.sqlite, which belongs to root`
    private static func notPermitted(_ what: String, _ file: String) -> String {
        var status = stat()
        let owner = stat(file, &status) == 0 ? ", which belongs to \(user(status.st_uid))" : ""
        return "\(user(geteuid())) can't \(what) \(file)\(owner)"
    }

    /// Without the name, for which a directory service may have to be asked: the ledger's loop must not wait for it.
    private static func user(_ uid: uid_t) -> String { uid == 0 ? "root" : "uid \(uid)" }
}
