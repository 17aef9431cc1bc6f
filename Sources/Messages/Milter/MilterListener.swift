// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Glibc
internal import Limits
internal import Loop
internal import NIOCore
internal import NIOPosix
internal import Policy
internal import Report
internal import Rules
internal import Settings
internal import Synchronization
internal import Wire

/// The milter (MILTER_README): the MTA hands over each message once, before it is queued, and is answered with edits.
///
/// Each loop has connections of its own, and a matcher; what the limits say is asked of the ledger's loop.
///
/// Security: a client is an MTA of the operator's, and what it relays is of strangers: packets, macros, recipients and
/// content are bounded, and bytes that are no milter protocol end that one connection.
///
/// Sendable, unchecked: `workers` is changed before the service is ready, and only keeps the workers alive.
final class MilterListener: @unchecked Sendable {
    private let endpoints: [Endpoint]
    private let host: LedgerHost
    private let log: EventLog
    private let shared: MilterShared
    private let reception: Reception<MilterConnection>
    /// Makes what the worker on a loop checks messages with.
    private let makeChecks: (SocketLoop) -> MessageChecks
    private var workers: [MilterWorker] = []

    private static let sweepInterval: TimeAmount = .seconds(60)

    /// - Parameter rules: those that hold now; asked at each message.
    init(
        _ configuration: Configuration, bounds: ContentBounds, threads: NIOThreadPool,
        host: LedgerHost, rules: @escaping @Sendable () -> ContentRules, log: EventLog
    ) {
        endpoints = configuration.listen.milter
        self.host = host
        self.log = log
        let shared = MilterShared(MilterSettings(configuration))
        self.shared = shared
        reception = Reception(
            .init(key: "listen.milter", clients: "milter connections", bound: "milter.connections"),
            most: configuration.milter.connections,
            complain: { [log] text in log.complain(.tooManyConnections, text) })
        makeChecks = { loop in
            MessageChecks(
                home: { loop.execute($0) }, bounds: bounds, threads: threads, counters: shared.counters,
                probes: host.probes,
                rules: rules, log: log)
        }
    }

    var way: WayFigures {
        .init(name: "milter", values: shared.counters.values(connections: reception.openConnections))
    }

    func reload(_ configuration: Configuration) {
        shared.settings = MilterSettings(configuration)
        reception.mostConnections = configuration.milter.connections
    }

    /// Starts to listen.
    ///
    /// - Parameters:
    ///   - loops: the loops that serve it.
    ///   - inherited: sockets by address; those that are used are removed.
    /// - Throws: `ListenerFailure`.
    func listen(on loops: [SocketLoop], inherited: inout [String: Int32]) async throws {
        workers = loops.map { loop in
            MilterWorker(
                desk: reception.addDesk(on: loop, sweepInterval: Self.sweepInterval), shared: shared, host: host,
                checks: makeChecks(loop), log: log)
        }
        // The MTA speaks first.
        try await reception.listen(at: endpoints, inherited: &inherited, clientSpeaksFirst: true)
    }

    /// Lets messages that have begun be finished, accepts no further ones, and closes what is left at `deadline`.
    func stop(by deadline: NIODeadline) async { await reception.stop(by: deadline) }
}

/// What of the configuration holds for messages that begin from now on.
final class MilterSettings: Sendable {
    let asksLimits: Bool
    let mailsAlerts: Bool
    let localOver: Configuration.Milter.LocalOver
    let canonicalises: Bool
    let onFailure: Configuration.OnFailure
    let accounts: LocalAccounts

    init(_ configuration: Configuration) {
        asksLimits = configuration.milter.limits && !configuration.limits.isEmpty
        mailsAlerts = !configuration.alerts.mail.isEmpty
        localOver = configuration.milter.localOver
        canonicalises = configuration.canonicalise == .envelope
        onFailure = configuration.onFailure
        accounts = LocalAccounts()
    }
}

/// What a connection is negotiated by, and its messages are judged by.
final class MilterOffer {
    let rules: ContentRules
    let settings: MilterSettings
    let terms: MilterTerms

    init(_ rules: ContentRules, _ settings: MilterSettings) {
        self.rules = rules
        self.settings = settings
        terms = MilterTerms(rules, settings)
    }
}

/// What all loops share.
final class MilterShared: Sendable {
    let counters = MessageCounters()
    private let held: Mutex<MilterSettings>
    private let names = Atomic<UInt64>(0)
    /// No other process gives messages the same names.
    private let process = String(UInt64.random(in: .min ... .max), radix: 36)

    init(_ settings: MilterSettings) {
        held = Mutex(settings)
    }

    var settings: MilterSettings {
        get { held.withLock { $0 } }
        set { held.withLock { $0 = newValue } }
    }

    /// A name for a connection, which no other has had.
    func makeName() -> String {
        "milter.\(process).\(String(names.add(1, ordering: .relaxed).newValue, radix: 36))"
    }
}

/// What one loop has of the milter.
///
/// Sendable, unchecked: all state belongs to its loop, on which every connection runs; what other threads touch
/// (`loop`) is constant.
final class MilterWorker: @unchecked Sendable {
    let desk: Reception<MilterConnection>.Desk
    let host: LedgerHost
    let checks: MessageChecks
    let shared: MilterShared
    let log: EventLog
    /// What connections are offered, for as long as it holds.
    private var offer: MilterOffer?

    init(
        desk: Reception<MilterConnection>.Desk, shared: MilterShared, host: LedgerHost, checks: MessageChecks,
        log: EventLog
    ) {
        self.desk = desk
        self.shared = shared
        self.host = host
        self.checks = checks
        self.log = log
        desk.admit = { [unowned self] client, endpoint, isOverBound in
            isOverBound ? nil : MilterConnection(client, worker: self, isTCP: endpoint.isTCP)
        }
    }

    var loop: SocketLoop { desk.loop }
    var isStopping: Bool { desk.isStopping }

    func closed(_ descriptor: Int32) { desk.closed(descriptor) }

    /// What a new connection begins with.
    func makeOffer() -> MilterOffer {
        let (rules, settings) = (checks.rules(), shared.settings)
        if let offer, offer.rules === rules, offer.settings === settings { return offer }
        let offer = MilterOffer(rules, settings)
        self.offer = offer
        return offer
    }
}

/// What a milter has to be told and granted for these rules and settings. What it does not need the MTA leaves out: each
/// event is a packet to send and to wake up for.
extension MilterTerms {
    init(_ rules: ContentRules, _ settings: MilterSettings) {
        let strips = rules.checks.undisclosedRecipients == .strip
        let hasRules = rules.lists.contains { !$0.list.isEmpty }
        let readsParts = !rules.body.isEmpty || !rules.mimeHeader.isEmpty || !rules.nestedHeader.isEmpty
        let needsEnvelope = settings.asksLimits || settings.canonicalises
        var actions: MilterActions = [.setMacros]
        if hasRules || strips {
            actions.formUnion([.changeHeaders, .addHeaders, .addRecipients, .deleteRecipients, .quarantine])
        }
        if settings.asksLimits { actions.formUnion([.addHeaders, .addRecipients, .deleteRecipients, .quarantine]) }
        if settings.canonicalises { actions.formUnion([.changeSender, .addRecipients, .deleteRecipients]) }
        if actions.contains(.addRecipients) { actions.insert(.addRecipientsWithParameters) }
        if rules.editsBody { actions.insert(.changeBody) }
        var options: MilterOptions = [
            .noData, .noUnknown, .noEndOfHeaders, .noReplyToConnect, .noReplyToHelo, .noReplyToMail, .noReplyToHeader,
            .noReplyToBody,
            .leadingSpace,
        ]
        if !settings.asksLimits { options.formUnion([.noConnect, .noHelo, .noReplyToRecipient]) }
        if !needsEnvelope, !rules.redirects { options.formUnion([.noMail, .noRecipient]) }
        if !hasRules, !strips, !(settings.asksLimits && settings.mailsAlerts) { options.insert(.noHeaders) }
        if !readsParts { options.insert(.noBody) }
        var macros = Dictionary(uniqueKeysWithValues: MilterStage.allCases.map { ($0, "") })
        macros[.endOfMessage] = "i"
        if settings.asksLimits {
            macros[.connect] = "j {client_ptr} {daemon_addr} {daemon_port}"
            macros[.helo] = "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}"
            macros[.mail] = "i {auth_type} {auth_authen} {auth_author}"
            macros[.recipient] = "i"
        }
        self.init(actions: actions, options: options, macros: macros)
    }

    /// Whether a connection that was negotiated to `terms` carries what these ask for.
    func isCovered(by terms: MilterTerms, missing: MilterActions) -> Bool {
        let withheld: MilterOptions = [
            .noConnect, .noHelo, .noMail, .noRecipient, .noHeaders, .noBody, .noReplyToRecipient,
        ]
        return actions.subtracting(missing).isSubset(of: terms.actions.union(.setMacros))
            && terms.options.intersection(withheld).isSubset(of: options)
    }
}

extension ContentRules {
    /// Whether a rule may change what stands behind the message's own headers.
    var editsBody: Bool { body.mayEdit || mimeHeader.mayEdit || nestedHeader.mayEdit }

    /// Whether a rule may ask for the recipients to be taken out.
    var redirects: Bool { lists.contains { $0.list.mayRedirect } }
}
