// SPDX-License-Identifier: Apache-2.0
internal import CSandbox
internal import Filter
internal import Glibc
internal import Settings
internal import Wire

/// Changes from root to the service's own user.
package enum ServiceUser {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    private struct Account {
        let name: String
        let uid: uid_t
        let gid: gid_t
    }

    /// Creates what only root can create, and becomes the user. Without effect if the process is not root's; it then
    /// only gives up its capabilities.
    ///
    /// Stays root where that is asked for. It does so too where only the default user could be taken, and that account
    /// does not exist or can't use the ledger: a service that has worked as root must not fail after an upgrade.
    ///
    /// - Returns: why it stays root; nil if it does not, or if `user: root` asks for it.
    /// - Throws: `Failure` if there is no such user.
    static func assume(_ configuration: Configuration) throws -> String? {
        guard geteuid() == 0 else {
            weir_drop_capabilities()
            return nil
        }
        let name = configuration.user
        guard name != "root" else { return nil }
        guard let entry = getpwnam(name) else {
            let reason = "the account '\(name)' (user) does not exist"
            if name == Configuration.defaultUser { return reason }
            throw Failure(
                description: "\(reason): create it, or name another one; 'user: root' runs Weir as root")
        }
        let account = Account(name: name, uid: entry.pointee.pw_uid, gid: entry.pointee.pw_gid)
        if name == Configuration.defaultUser, let path = unusable(configuration.ledger.store.path, account) {
            return "the account '\(name)' (user) can't use \(path): give it to that account with chown -R"
        }
        createFiles(configuration, for: account)
        let code = weir_become(account.name, account.uid, account.gid)
        guard code == 0 else {
            throw Failure(description: "can't become \(account.name): \(String(cString: strerror(code)))")
        }
        return nil
    }

    /// The directory of the ledger or the ledger itself, if it exists and the account can't write to it.
    private static func unusable(_ ledger: String, _ account: Account) -> String? {
        let slash = ledger.lastIndex(of: "/") ?? ledger.startIndex
        let directory = slash > ledger.startIndex ? String(ledger[..<slash]) : "/"
        let existing: [String] = [directory, ledger].filter { path in access(path, F_OK) == 0 }
        guard setegid(account.gid) == 0, seteuid(account.uid) == 0 else { return nil }
        defer {
            seteuid(0)
            setegid(0)
        }
        return existing.first { path in
            faccessat(AT_FDCWD, path, path == directory ? W_OK | X_OK : R_OK | W_OK, AT_EACCESS) != 0
        }
    }

    /// A failure is not an error here: whatever needs the file says what is wrong.
    private static func createFiles(_ configuration: Configuration, for account: Account) {
        createDirectory(of: configuration.ledger.store.path, mode: 0o750, for: account)
        let listen = configuration.listen
        if !listen.filter.isEmpty || !listen.milter.isEmpty {
            createDirectory(configuration.filter.spool, mode: 0o750, for: account)
            createDirectory(configuration.checks.cacheDirectory, mode: 0o700, for: account)
        }
        for case .unix(let path, _, _) in listen.policy + listen.milter + listen.filter.map(\.listen) + [listen.admin] {
            // The mode of the socket says who may connect.
            createDirectory(of: path, mode: 0o755, for: account)
        }
        if case .file(let path) = configuration.log.destination { createFile(path, mode: 0o640, for: account) }
        if let path = configuration.log.capture { createFile(path, mode: 0o600, for: account) }
    }

    private static func createDirectory(of path: String, mode: mode_t, for account: Account) {
        guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return }
        createDirectory(String(path[..<slash]), mode: mode, for: account)
    }

    private static func createDirectory(_ path: String, mode: mode_t, for account: Account) {
        guard mkdir(path, 0o700) == 0 else { return }
        give(open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), mode, account)
    }

    private static func createFile(_ path: String, mode: mode_t, for account: Account) {
        give(open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600), mode, account)
    }

    private static func give(_ descriptor: Int32, _ mode: mode_t, _ account: Account) {
        guard descriptor >= 0 else { return }
        _ = fchown(descriptor, account.uid, account.gid)
        fchmod(descriptor, mode)
        close(descriptor)
    }

    /// The name of the user that the process runs as, or its number.
    static let current: String = getpwuid(geteuid()).map { String(cString: $0.pointee.pw_name) } ?? "uid \(geteuid())"
}
