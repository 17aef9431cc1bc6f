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

    /// A file or directory.
    private struct Place {
        let path: String
        /// With which it is created; nil for a file that something else creates.
        let mode: mode_t?
        let isDirectory: Bool

        init(_ path: String, _ mode: mode_t?, isDirectory: Bool = false) {
            (self.path, self.mode, self.isDirectory) = (path, mode, isDirectory)
        }
    }

    /// Creates what only root can create, and becomes the user. Without effect if the process is not root's; it then
    /// only gives up its capabilities.
    ///
    /// Stays root where that is asked for. It does so too where only the default user could be taken, and that account
    /// does not exist or can't write where Weir writes: an upgrade must not stop a service that has worked as root.
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
        let places = places(configuration)
        if name == Configuration.defaultUser, let path = unusable(places, account) {
            return "the account '\(name)' (user) can't write to \(path)"
        }
        for place in places where isSafe(place.path, from: account) { create(place, for: account) }
        let code = weir_become(account.name, account.uid, account.gid)
        guard code == 0 else {
            throw Failure(description: "can't become \(account.name): \(String(cString: strerror(code)))")
        }
        // In its own directories.
        for place in places { create(place, for: account) }
        return nil
    }

    /// Where the service writes.
    private static func places(_ configuration: Configuration) -> [Place] {
        let (ledger, listen) = (configuration.ledger.store.path, configuration.listen)
        // Only SQLite creates the file of the ledger.
        var places = [Place(directory(of: ledger), 0o750, isDirectory: true), Place(ledger, nil)]
        if listen.takesContent {
            places.append(Place(configuration.filter.spool, 0o750, isDirectory: true))
            places.append(Place(configuration.checks.cacheDirectory, 0o700, isDirectory: true))
        }
        for case .unix(let path, _, _) in listen.all.map(\.endpoint) {
            // The mode of the socket says who may connect.
            places.append(Place(directory(of: path), 0o755, isDirectory: true))
        }
        if case .file(let path) = configuration.log.destination { places.append(Place(path, 0o640)) }
        if let path = configuration.log.capture { places.append(Place(path, 0o600)) }
        return places
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return "/" }
        return String(path[..<slash])
    }

    /// The first place that exists and that the account can't write to.
    private static func unusable(_ places: [Place], _ account: Account) -> String? {
        places.first { place in
            guard access(place.path, F_OK) == 0 else { return false }
            let mode = place.isDirectory ? W_OK | X_OK : W_OK
            return weir_access_as(account.name, account.uid, account.gid, place.path, mode) == EACCES
        }?.path
    }

    /// Whether the account can't change what the directories of a path name. If it can, a symbolic link could make root
    /// create something anywhere and give it to the account.
    private static func isSafe(_ path: String, from account: Account) -> Bool {
        let directory = directory(of: path)
        guard let real = realpath(directory, nil) else { return false }
        defer { free(real) }
        return isFixed(directory, for: account) && isFixed(String(cString: real), for: account)
    }

    private static func isFixed(_ path: String, for account: Account) -> Bool {
        guard weir_may_change(path, account.name, account.uid, account.gid) == 0 else { return false }
        return path == "/" || isFixed(Self.directory(of: path), for: account)
    }

    /// A failure is not an error here: whatever needs the place says what is wrong.
    private static func create(_ place: Place, for account: Account) {
        guard let mode = place.mode else { return }
        if place.isDirectory {
            guard mkdir(place.path, 0o700) == 0 else { return }
            give(open(place.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), mode, account)
        } else {
            give(open(place.path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600), mode, account)
        }
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
