// SPDX-License-Identifier: Apache-2.0
internal import Engine
internal import Report
package import Settings
internal import Sharing

/// Examines the engine of shared limits, and the hosts that it knows.
package struct EngineExamination {
    private let settings: Configuration.Shared
    /// The address of the primary, if Sentinel is asked.
    private let address: EngineAddress
    private var findings: [Finding] = []

    /// Asks the engine, and waits for its answers. It changes nothing there.
    package static func findings(_ settings: Configuration.Shared) -> [Finding] {
        guard let configured = settings.engine else { return [] }
        var examination = EngineExamination(settings: settings, address: configured)
        do throws(EngineFault) {
            let address = try EngineInquiry.resolved(configured, settings.login)
            examination = EngineExamination(settings: settings, address: address)
            try examination.examine()
        } catch let fault where fault.kind == .rights {
            examination.add(
                .fault, "engine-rights", "the user lacks a right: \(fault.message)",
                commands: [examination.grant])
        } catch {
            examination.add(.fault, "engine-unusable", "can't use the engine \(configured): \(error.message)")
        }
        let order = Finding.Severity.allCases
        return order.flatMap { severity in examination.findings.filter { $0.severity == severity } }
    }

    private init(settings: Configuration.Shared, address: EngineAddress) {
        self.settings = settings
        self.address = address
    }

    private mutating func examine() throws(EngineFault) {
        examineStrangers()
        let inquiry = try EngineInquiry(address, settings.login)
        let info = try inquiry.info()
        if let fault = info.fault { throw fault }
        examine(info)
        examineFailover(info)
        try inquiry.checkRights()
        examine(try inquiry.hosts())
    }

    /// - Parameter commands: for redis-cli.
    private mutating func add(_ severity: Finding.Severity, _ kind: String, _ text: String, commands: [String] = []) {
        findings.append(
            Finding(
                severity: severity, kind: kind, place: "weir.yaml", text: text,
                commands: commands.map { "\(client) \($0)" }, configuration: []))
    }

    /// redis-cli with the address. It asks for no password: an administrator's is another one than Weir's.
    private var client: String {
        switch address.place {
        case .inet(let server): "redis-cli -h \(server.host) -p \(server.port)"
        case .unix(let path): "redis-cli -s \(ShellWord.quoted(path))"
        case .sentinel: "redis-cli"
        }
    }

    /// Quoted for a shell. `resetkeys` and `resetchannels`, because the server refuses a pattern after `~*` or `&*`.
    private var grant: String {
        let words = EngineFault.rights.split(separator: " ").map { word in
            word.contains("|") || word.contains("{") ? "'\(word)'" : "\(word)"
        }
        let user = ShellWord.quoted(settings.user ?? "default")
        return "ACL SETUSER \(user) resetkeys resetchannels \(words.joined(separator: " "))"
    }

    // MARK: The server

    private mutating func examineStrangers() {
        guard let stranger = try? EngineInquiry(address, settings.login.asStranger),
            (try? stranger.mayRemoveKeys()) == true
        else { return }
        let remedy = "set a password (requirepass, or users by ACL), and shared.password_file on each host"
        switch address.place {
        case .unix, .sentinel: return
        case .inet(let server) where server.host == "::1" || server.host.hasPrefix("127."):
            add(
                .note, "engine-open",
                "the engine \(address) needs no password: every user of this machine can raise or exhaust all limits; "
                    + remedy)
        case .inet:
            add(
                .fault, "engine-open",
                "the engine \(address) needs no password: whoever reaches it can raise or exhaust all limits; \(remedy)"
            )
        }
    }

    private mutating func examine(_ info: EngineInfo) {
        if let (policy, isPossible) = info.eviction {
            add(
                isPossible ? .fault : .note, "engine-evicts",
                "the engine has maxmemory-policy \(policy)\(isPossible ? "" : ", but no maxmemory so far"): when its "
                    + "memory is full, it forgets what hosts have used, and they admit more than the limits",
                commands: ["CONFIG SET maxmemory-policy noeviction", "CONFIG REWRITE"])
        }
        if info.failsToSave {
            add(
                .warning, "engine-fails-to-save",
                "the engine could not save its data, and may take no writes: look at its log and its disk; Weir needs "
                    + "no copy on disk",
                commands: ["CONFIG SET stop-writes-on-bgsave-error no"])
        }
    }

    private mutating func examineFailover(_ info: EngineInfo) {
        guard case .sentinel = settings.engine?.place, !info.stopsWithoutReplicas else { return }
        add(
            .warning, "engine-not-fenced",
            "the engine goes on granting after Sentinel has made another server the primary, if only some hosts reach "
                + "it: these hosts and the others may then admit more than the limits; set this on all servers",
            commands: [
                "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-max-lag 10", "CONFIG REWRITE",
            ])
    }

    // MARK: The hosts

    private mutating func examine(_ known: KnownHosts) {
        for name in settings.hosts {
            let host = known.hosts.first { $0.name == name }
            guard host?.isGone != true else { continue }
            examineAbsence(of: name, host)
        }
        for host in known.hosts where host.hasSecondLedger {
            add(
                .fault, "host-name-twice",
                "two hosts call themselves \(host.name), and the second has no share: give each its own shared.name")
        }
        examineTerms(known)
    }

    private mutating func examineAbsence(of name: String, _ host: KnownHosts.Host?) {
        guard host?.isConnected != true else { return }
        let isOwn = name == settings.name
        let since =
            host?.silence.map { "has not called the engine for \($0 / 1000) s" }
            ?? "has not connected to the engine since that was started: until all hosts have, each has only its share"
        add(
            .warning, "host-not-connected",
            "\(name)\(isOwn ? " (this host)" : "") \(since); look at the log of Weir there"
                + (isOwn ? "" : ", or, if it will not come back, see weir hosts gone"))
    }

    private mutating func examineTerms(_ known: KnownHosts) {
        guard let own = known.hosts.first(where: { $0.name == settings.name })?.terms else { return }
        for host in known.hosts where !host.isGone {
            guard let differences = host.terms?.differences(from: own), !differences.isEmpty else { continue }
            let names = ["limits": "limits", "share": "shared.share", "hosts": "shared.hosts"]
            add(
                .warning, "hosts-disagree",
                "\(host.name) has other \(differences.compactMap { names[$0] }.joined(separator: " and ")) than this "
                    + "host: until all agree, each uses the smallest share; compare weir.yaml on both")
        }
    }
}
