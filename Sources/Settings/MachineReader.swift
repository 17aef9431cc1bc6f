// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Wire

/// What a configuration names and this machine lacks. A start would fail because of it, or only log an error. Defaults
/// do not count: the package makes those accounts and directories.
enum MachineReader {
    static func warn(
        of configuration: Configuration, _ found: [String: YAMLNode], _ reading: inout ConfigurationReading
    ) {
        let (user, standard) = (configuration.user, Configuration())
        if let node = found["user"], !user.isEmpty, user != standard.user, getpwnam(user) == nil {
            reading.warn(node, "user", "the account '\(user)' does not exist: as root, Weir does not start")
        }
        for (key, endpoints) in [
            ("listen.policy", configuration.listen.policy), ("listen.milter", configuration.listen.milter),
            ("listen.filter", configuration.listen.filter.map(\.listen)),
        ] {
            for (node, endpoint) in zip(found[key]?.items ?? [], endpoints) { warn(of: endpoint, node, key, &reading) }
        }
        if let node = found["listen.admin"], configuration.listen.admin != standard.listen.admin {
            warn(of: configuration.listen.admin, node, "listen.admin", &reading)
        }
        if let node = found["ledger.store"], configuration.ledger.store.path != standard.ledger.store.path {
            warn(ofFile: configuration.ledger.store.path, node, "ledger.store", &reading)
        }
        if let node = found["log.to"], case .file(let path) = configuration.log.destination {
            warn(ofFile: path, node, "log.to", &reading)
        }
        if let node = found["log.capture"], let path = configuration.log.capture {
            warn(ofFile: path, node, "log.capture", &reading)
        }
    }

    private static func warn(
        of endpoint: Endpoint, _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading
    ) {
        guard case .unix(let path, _, let group) = endpoint else { return }
        if let group, getgrnam(group) == nil {
            reading.warn(node, key, "the group '\(group)' does not exist: Weir does not start")
        }
        // The service manager makes directories there when it starts Weir.
        if !path.hasPrefix("/run/"), !path.hasPrefix("/var/run/") { warn(ofDirectoryOf: path, node, key, &reading) }
    }

    private static func warn(
        ofFile path: String, _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading
    ) {
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
            reading.warn(node, key, "\(path) is a directory; expected the path of a file")
        } else {
            warn(ofDirectoryOf: path, node, key, &reading)
        }
    }

    private static func warn(
        ofDirectoryOf path: String, _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading
    ) {
        guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return }
        let directory = String(path[..<slash])
        var status = stat()
        if stat(directory, &status) == 0 {
            if status.st_mode & S_IFMT != S_IFDIR { reading.warn(node, key, "\(directory) is not a directory") }
        } else if errno == ENOENT || errno == ENOTDIR {
            // After other errors, such as a refused permission, nothing is known.
            reading.warn(node, key, "\(directory) does not exist; make this directory for the user of the service")
        }
    }
}
