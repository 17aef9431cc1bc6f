// SPDX-License-Identifier: Apache-2.0
package import Sharing

/// The hosts that the engine knows. It knows those that have connected since it was started.
package struct KnownHosts: Sendable {
    package struct Host: Sendable {
        package let name: String
        /// How long ago it was heard, in milliseconds; nil if it was only declared gone.
        package let silence: Int64?
        package let terms: Terms?
        /// How long ago a second ledger with this name was refused, in milliseconds.
        package let secondLedger: Int64?
        package let isGone: Bool

        /// A connected host calls several times a second.
        package var isConnected: Bool { silence.map { $0 < 5000 } ?? false }
        /// A second ledger tries again every two seconds.
        package var hasSecondLedger: Bool { secondLedger.map { $0 < 10_000 } ?? false }
    }

    package let epochID: String
    /// The terms that hold on all hosts; nil if none do yet.
    package let settled: Terms?
    /// By name.
    package let hosts: [Host]

    package init(epochID: String = "", settled: Terms? = nil, hosts: [Host] = []) {
        self.epochID = epochID
        self.settled = settled
        self.hosts = hosts
    }

    fileprivate init?(_ reply: EngineReply) {
        guard case .list(let parts) = reply, parts.count == 3, let epochID = parts[0].text,
            let settled = parts[1].text, case .list(let rows) = parts[2]
        else { return nil }
        let hosts = rows.compactMap { row -> Host? in
            guard case .list(let fields) = row else { return nil }
            let words = fields.compactMap(\.text)
            guard words.count == 5 else { return nil }
            return Host(
                name: EngineFault.printable(words[0]), silence: Int64(words[1]), terms: Terms(text: words[2]),
                secondLedger: Int64(words[3]), isGone: !words[4].isEmpty)
        }
        guard hosts.count == rows.count else { return nil }
        self.init(epochID: epochID, settled: Terms(text: settled), hosts: hosts.sorted { $0.name < $1.name })
    }
}

extension EngineInquiry {
    private func call(_ function: String, _ arguments: [String] = []) throws(EngineFault) -> EngineReply {
        try ask(
            ["FCALL", "\(EngineLibrary.name)_\(function)", "1", EngineLibrary.stateKey(group: EngineLibrary.group)]
                + arguments)
    }

    package func info() throws(EngineFault) -> EngineInfo {
        switch try ask(["INFO"]) {
        case .text(let text):
            guard let info = EngineInfo(text) else { throw .strange }
            return info
        case .failure(let text): throw EngineFault(reply: text)
        case .number, .list, .nothing: throw .strange
        }
    }

    /// Tries what Weir does, without a change.
    package func checkRights() throws(EngineFault) {
        // The server checks the rights first. Then it refuses a library without a header, an epoch that never was, and
        // an option of SET that there is not. Nobody listens to the channel.
        let name = "{weir:\(EngineLibrary.group)}:none"
        for reply in [
            try ask(["FUNCTION", "LOAD", "-- none"]), try call("gone", ["", "none"]), try ask(["PUBLISH", name, ""]),
            try ask(["SET", name, "", "NONE"]),
        ] {
            guard case .failure(let text) = reply, !text.contains("Missing library metadata"),
                !text.contains("syntax error")
            else { continue }
            let fault = EngineFault(reply: text)
            // The hosts load the library.
            if fault.kind != .library { throw fault }
        }
    }

    /// Whether this login may remove keys of Weir. It removes one that never exists.
    package func mayRemoveKeys() throws(EngineFault) -> Bool {
        if case .number = try ask(["DEL", "{weir:\(EngineLibrary.group)}:none"]) { true } else { false }
    }

    package func hosts() throws(EngineFault) -> KnownHosts {
        let reply = try call("hosts")
        if case .failure(let text) = reply {
            let fault = EngineFault(reply: text)
            // The hosts load the library.
            guard fault.kind == .library else { throw fault }
            return KnownHosts()
        }
        guard let hosts = KnownHosts(reply) else { throw .strange }
        return hosts
    }

    /// Tells the engine that no one has to wait for a host any more.
    ///
    /// - Returns: whether it is still in the epoch in which it told its hosts.
    package func declareGone(_ host: String, in hosts: KnownHosts) throws(EngineFault) -> Bool {
        switch try call("gone", [hosts.epochID, host]) {
        case .list([.text("ok")]): return true
        case .list([.text("late")]): return false
        case .failure(let text): throw EngineFault(reply: text)
        case .text, .number, .list, .nothing: throw .strange
        }
    }
}
