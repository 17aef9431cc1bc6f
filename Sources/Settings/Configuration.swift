// SPDX-License-Identifier: Apache-2.0
package import Filter
package import Limits
package import MailSyntax
package import Wire

/// The contents of weir.yaml, checked and compiled. No later step can find a mistake in the file.
package struct Configuration: Sendable {
    package var listen = Listen()
    /// The account to which a start as root changes.
    package var user = Configuration.defaultUser
    package static let defaultUser = "weir"
    package var sandbox = Sandbox.bestEffort
    package var ledger = LedgerSettings()
    package var filter = Filter()
    package var milter = Milter()
    package var canonicalise: [Canonicalise] = []
    package var onFailure = OnFailure.dunno
    /// nil: as `onFailure`.
    package var onNoLedger: OnFailure?
    /// Whether a transaction that ends before DATA gets its charges back.
    package var givesBackDropped = false
    package var shared = Shared()
    package var log = Log()
    package var alerts = Alerts()
    /// How values become keys, unless a limit has its own `keys`.
    package var keyForms = KeyForms()
    /// Names from `smtpd_restriction_classes` that limits may use as actions.
    package var restrictionClasses: [String] = []
    package var limits: [Limit] = []
    package var checks = ContentChecks()
    /// The attributes that limits use. Keys and conditions are compiled to indexes of these names.
    package var attributeNames = AttributeNames()

    package init() {}

    /// The answer as long as there is no ledger: it is being opened, or can't be opened.
    package var answerWithoutLedger: OnFailure { onNoLedger ?? onFailure }

    package struct Listen: Equatable, Sendable {
        package var policy: [Endpoint] = [.inet(host: "127.0.0.1", port: 10040)]
        package var admin: Endpoint = .unix(path: "/run/weir/admin", mode: 0o660, group: "weir")
        /// Maximum number of open policy connections. Further ones are closed at once.
        package var policyConnections = 20_000
        package var filter: [FilterListener] = []
        package var milter: [Endpoint] = []

        /// Whether the content of messages arrives here.
        package var takesContent: Bool { !filter.isEmpty || !milter.isEmpty }
        /// All listeners, by their keys.
        package var all: [(key: String, endpoint: Endpoint)] {
            policy.map { ("listen.policy", $0) } + milter.map { ("listen.milter", $0) }
                + filter.map { ("listen.filter", $0.listen) } + [("listen.admin", admin)]
        }

        package init() {}
    }

    /// Whether the process gives up what it does not need.
    package enum Sandbox: String, CaseIterable, Sendable {
        /// As far as the kernel can.
        case bestEffort = "best_effort"
        /// Weir does not start without one of the restrictions.
        case required
        case none
    }

    package struct Milter: Equatable, Sendable {
        /// What to do with a message from sendmail(1) over a limit. Its recipients can't be refused one by one.
        package enum LocalOver: String, CaseIterable, Sendable {
            case hold, `defer`
        }

        /// Maximum number of connections over all milter listeners.
        package var connections = 10_000
        /// Whether to charge messages to the limits.
        package var limits = true
        package var localOver = LocalOver.hold

        package init() {}
    }

    /// What is repaired in addresses: in the envelope by the milter, in headers in all ways in.
    package enum Canonicalise: String, CaseIterable, Sendable {
        /// Nothing; the same as an empty list.
        case none
        /// `refuse`, and all repairs that do not depend on the MTA's own name.
        case envelope
        /// Refuses an address that can't be repaired.
        case refuse
        // The repairs, named as in `AddressRepair`.
        case sourceRoute = "source_route"
        case phrase, comment, brackets, blanks, group, quotes
        case trailingDot = "trailing_dot"
        case domainCase = "domain_case"
        case localDomain = "local_domain"
        case percentRoute = "percent_route"
        case bangRoute = "bang_route"
        /// All repairs in headers.
        case headers
        // The repairs in headers, named as in `AddressRepair`.
        case headerSourceRoute = "header_source_route"
        case headerBrackets = "header_brackets"
        case headerBlanks = "header_blanks"
        case headerQuotes = "header_quotes"
        case headerTrailingDot = "header_trailing_dot"
        case headerDomainCase = "header_domain_case"
        /// Also repairs headers of messages with a DKIM-Signature.
        case signedHeaders = "signed_headers"
    }

    package var addressRepairs: AddressRepairs {
        var repairs = AddressRepairs(canonicalise.compactMap { AddressRepair(rawValue: $0.rawValue) })
        if canonicalise.contains(.envelope) {
            repairs.formUnion(AddressRepairs(AddressRepair.allCases).subtracting(.needingHostName))
        }
        return repairs
    }

    package var headerRepairs: AddressRepairs {
        if canonicalise.contains(.headers) { return .inHeaders }
        let prefix = "header_"
        let names = canonicalise.map(\.rawValue).filter { $0.hasPrefix(prefix) }.map { $0.dropFirst(prefix.count) }
        return AddressRepairs(names.compactMap { AddressRepair(rawValue: String($0)) })
    }

    package var refusesBadAddresses: Bool { canonicalise.contains(.refuse) || canonicalise.contains(.envelope) }

    /// One listener of the content filter, with its next hop.
    package struct FilterListener: Equatable, Sendable {
        package enum Mode: String, CaseIterable, Sendable {
            case afterQueue = "after_queue"
            case beforeQueue = "before_queue"
        }

        /// Where filtered mail goes: `inet:127.0.0.1:10026`, `lmtp:unix:/run/lmtp`.
        package struct NextHop: Equatable, Sendable, CustomStringConvertible {
            package var endpoint: Endpoint
            package var variant: SMTPServerSession.Variant

            package init(_ endpoint: Endpoint, _ variant: SMTPServerSession.Variant = .smtp) {
                self.endpoint = endpoint
                self.variant = variant
            }

            package var description: String { variant == .lmtp ? "lmtp:\(endpoint)" : "\(endpoint)" }
        }

        package var listen: Endpoint
        package var nextHop: NextHop
        /// What clients speak.
        package var variant = SMTPServerSession.Variant.smtp
        package var mode = Mode.afterQueue
        /// The clients that may connect. If empty, only clients on this machine may.
        package var networks: [Network] = []

        package init(listen: Endpoint, nextHop: NextHop) {
            self.listen = listen
            self.nextHop = nextHop
        }
    }

    package struct Filter: Equatable, Sendable {
        /// Maximum number of clients of each listener.
        package var connections = 2_000
        package var spool = "/var/lib/weir"
        /// MiB of content in memory, over all listeners.
        package var mostMemory = 64
        /// MiB of content in the spool, over all listeners.
        package var mostSpool = 2_048

        package init() {}
    }

    /// Where the ledger keeps its counts. A new store is a new case; the compiler then names the spelling in
    /// `ledger.store`, `Configuration.makeStore` and `path`.
    package enum Store: Equatable, Sendable {
        case sqlite(path: String)

        /// The file that the log and the figures name. The admin token is in the same directory.
        package var path: String {
            switch self {
            case .sqlite(let path): path
            }
        }
    }

    package struct LedgerSettings: Equatable, Sendable {
        package var store = Store.sqlite(path: "/var/lib/weir/ledger.sqlite")
        package var durability = Durability.commit
        /// Maximum number of keys in memory over all limits.
        package var mostKeys = 2_000_000

        package init() {}
    }

    /// The answer while Weir itself is failing.
    package enum OnFailure: String, CaseIterable, Sendable {
        case dunno, `defer`
    }

    /// Where commands look for weir.yaml.
    package static let defaultPath = "/etc/weir/weir.yaml"

    /// Which events to report, and where. All of them are in the log as well.
    package struct Alerts: Equatable, Sendable {
        package enum Tier: String, CaseIterable, Sendable {
            case warn, over, block, trouble
        }

        /// Posts notices to `webhook`.
        package static let webhookProgram = "/usr/bin/curl"

        package var tiers = Tier.allCases
        package var webhook: String?
        package var command: String?
        package var mail: [String] = []
        package var sendmail = "/usr/sbin/sendmail"
        /// Minimum time between two notices of one channel, in seconds.
        package var interval: Int64 = 30
        /// Time until the same alert is sent again, in seconds.
        package var repeatAfter: Int64 = 3600

        package init() {}
    }

    package struct Log: Equatable, Sendable {
        package enum Destination: Equatable, Sendable {
            case standardError
            case file(String)
            /// The local syslog socket, facility mail.
            case syslog
        }
        package var destination = Destination.standardError
        /// Whether to log every decision, not only refusals.
        package var decisions = false
        /// Seconds between summary lines of peaks (anvil's `anvil_status_update_time`).
        package var summaryInterval: Int64 = 600
        /// A file that records policy requests for `weir replay`.
        package var capture: String?

        package init() {}
    }
}
