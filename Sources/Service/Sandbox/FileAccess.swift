// SPDX-License-Identifier: Apache-2.0
internal import CSandbox
internal import Filter
internal import Glibc
internal import Settings
internal import Sharing
internal import Wire

/// The files, directories and ports that the service needs after its start.
struct FileAccess: Sendable {
    /// The bits of `weir_access`.
    struct Rights: OptionSet {
        let rawValue: UInt32

        static let read = Rights(rawValue: WEIR_READ.rawValue)
        static let write = Rights(rawValue: WEIR_WRITE.rawValue)
        static let sockets = Rights(rawValue: WEIR_SOCKETS.rawValue)
    }

    /// What a path names, whatever has that name later.
    struct Identity: Equatable {
        let device: UInt64
        let inode: UInt64
    }

    /// What the configuration needs, by path without symbolic links.
    private(set) var rights: [String: Rights] = [:]
    /// To read, besides these.
    private let system: Set<String>
    private(set) var portsToBind: Set<UInt16> = []
    private(set) var portsToConnect: Set<UInt16> = []

    /// Of the C library, the time zone, and what the runtimes ask the kernel. libdispatch ends the process if it can't
    /// read the state of a thread, which it asks for as /proc/TID. Landlock still refuses the memory, environment and
    /// descriptors of other processes there, as for ptrace(2).
    private static let system = [
        "/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/run/systemd/resolve", "/run/resolvconf",
        "/run/NetworkManager", "/var/lib/sss", "/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu", "/dev/urandom",
        "/dev/random", "/dev/null",
    ]
    /// What root reads in /etc. Another user reads only what every user may read there, and needs the whole directory:
    /// most programs replace these files instead of writing into them.
    private static let systemForRoot = [
        "gai.conf", "group", "host.conf", "hosts", "ld.so.cache", "localtime", "nsswitch.conf", "passwd", "resolv.conf",
        "services",
    ].map { "/etc/" + $0 }

    /// Only to read files.
    init(reading paths: [String]) {
        system = Set(
            (Self.system + (geteuid() == 0 ? Self.systemForRoot : ["/etc"])).map { Self.resolved($0) ?? $0 })
        for path in paths { add(directoryOf: path, .read) }
    }

    /// - Parameter tablePaths: of the tables that the configuration names.
    init(configurationPath: String, _ configuration: Configuration, tablePaths: [String]) {
        self.init(reading: [configurationPath] + tablePaths)
        add(directoryOf: configuration.ledger.store.path, [.read, .write])
        if case .file(let path) = configuration.log.destination { add(directoryOf: path, .write) }
        if let path = configuration.log.capture { add(directoryOf: path, .write) }
        switch configuration.shared.engine?.place {
        case .inet(let server): portsToConnect.insert(UInt16(server.port))
        case .unix(let path): add(directoryOf: path, .sockets)
        case .sentinel(let servers, _, let port):
            portsToConnect.formUnion((servers.map(\.port) + [port]).map { UInt16($0) })
        case nil: break
        }
        let listen = configuration.listen
        if listen.takesContent {
            for path in [configuration.filter.spool, configuration.checks.cacheDirectory] {
                add(directory: path, or: path, [.read, .write])
            }
        }
        for endpoint in listen.all.map(\.endpoint) {
            switch endpoint {
            case .inet(_, let port): portsToBind.insert(UInt16(port))
            case .unix(let path, _, _): add(directoryOf: path, .sockets)
            }
        }
        for case .inet(_, let port) in listen.filter.map(\.nextHop.endpoint) { portsToConnect.insert(UInt16(port)) }
    }

    private mutating func add(_ path: String, _ added: Rights) {
        rights[Self.resolved(path) ?? path, default: []].formUnion(added)
    }

    /// Editors, logrotate(8) and Weir replace files. The file itself may also be a symbolic link.
    private mutating func add(directoryOf path: String, _ added: Rights) {
        for path in Set([path, Self.resolved(path) ?? path]) {
            add(directory: Self.directory(of: path), or: path, added)
        }
    }

    /// A directory may be made later, and a rule needs one that exists.
    ///
    /// - Parameter path: is added instead of a directory that is too much.
    private mutating func add(directory: String, or path: String, _ added: Rights) {
        var directory = directory
        while Self.resolved(directory) == nil, directory.count > 1 { directory = Self.directory(of: directory) }
        let isShared = directory == "/" || geteuid() == 0 && directory == "/etc"
        add(isShared ? path : directory, added)
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func resolved(_ path: String) -> String? {
        guard let real = realpath(path, nil) else { return nil }
        defer { free(real) }
        return String(cString: real)
    }

    /// The paths of `other` that this one does not include, in order.
    func lacks(_ other: FileAccess) -> [String] {
        other.rights.filter { path, needed in !allows(path, needed) }.map(\.key).sorted()
    }

    /// Whether the process opens connections of TCP itself.
    var connects: Bool { !portsToConnect.isEmpty }

    /// The identities of those paths of the configuration that exist now.
    var identities: [String: Identity] {
        rights.keys.reduce(into: [:]) { found, path in
            var identity = weir_identity()
            guard weir_identify(path, &identity) == 0 else { return }
            found[path] = Identity(device: identity.device, inode: identity.inode)
        }
    }

    /// The paths that name something else now than `former` says, in order, unless a directory above allows as much.
    func replaced(since former: [String: Identity]) -> [String] {
        let now = identities
        return former.filter { path, identity in
            now[path] != identity && !allows(Self.directory(of: path), rights[path] ?? [])
        }.map(\.key).sorted()
    }

    private func allows(_ path: String, _ needed: Rights) -> Bool {
        var granted: Rights = []
        var path = path
        while true {
            granted.formUnion(rights[path] ?? [])
            if system.contains(path) { granted.formUnion(.read) }
            if granted.isSuperset(of: needed) { return true }
            guard path.count > 1, path.hasPrefix("/") else { return false }
            path = Self.directory(of: path)
        }
    }
}

extension FileAccess {
    /// Applies Landlock to this thread and to those that it starts.
    ///
    /// - Returns: the version of Landlock.
    /// - Throws: `Sandbox.Missing`.
    func restrict() throws(Sandbox.Missing) -> Int {
        let version = weir_landlock_version()
        guard version > 0 else { throw Sandbox.Missing("Landlock", -version) }
        // The service manager may listen on an abstract socket.
        let notify = getenv("NOTIFY_SOCKET").map { String(cString: $0) } ?? ""
        let rules = weir_landlock_create(version, notify.hasPrefix("@") ? 0 : 1)
        guard rules >= 0 else { throw Sandbox.Missing("Landlock", -rules) }
        // Not all of these paths exist on every machine.
        for path in system { weir_landlock_allow_path(rules, version, path, Rights.read.rawValue) }
        for (path, needed) in rights { weir_landlock_allow_path(rules, version, path, needed.rawValue) }
        for port in portsToBind { weir_landlock_allow_bind(rules, version, port) }
        for port in portsToConnect { weir_landlock_allow_connect(rules, version, port) }
        let code = weir_landlock_restrict(rules)
        guard code == 0 else { throw Sandbox.Missing("Landlock", code) }
        return Int(version)
    }
}
