// SPDX-License-Identifier: Apache-2.0
package import Filter
package import Limits
package import Wire

/// What `weir.yaml` says, checked and compiled: nothing in it can fail later for the way it was written.
package struct Configuration: Sendable {
    package var listen = Listen()
    package var ledger = LedgerSettings()
    package var filter = Filter()
    package var milter = Milter()
    package var canonicalise = Canonicalise.none
    package var onFailure = OnFailure.dunno
    /// What a transaction was charged is given back where it ended before DATA.
    package var givesBackDropped = false
    package var log = Log()
    package var alerts = Alerts()
    /// How values are made one key, where a limit does not say otherwise.
    package var keyForms = KeyForms()
    /// Names of `smtpd_restriction_classes`, which limits use as actions.
    package var restrictionClasses: [String] = []
    package var limits: [Limit] = []
    package var checks = ContentChecks()
    /// The attributes that limits ask for, by the indexes that they were compiled with.
    package var attributeNames = AttributeNames()

    package init() {}

    package struct Listen: Equatable, Sendable {
        package var policy: [Endpoint] = [.inet(host: "127.0.0.1", port: 10040)]
        package var admin: Endpoint = .unix(path: "/run/weir/admin", mode: 0o660, group: "weir")
        /// Policy connections open at once; more are closed as they come.
        package var policyConnections = 20_000
        package var filter: [FilterListener] = []
        package var milter: [Endpoint] = []

        package init() {}
    }

    package struct Milter: Equatable, Sendable {
        /// What becomes of a message from sendmail(1) that a limit refuses: no recipient of it can be refused.
        package enum LocalOver: String, CaseIterable, Sendable {
            case hold, `defer`
        }

        /// Connections at once, over all milter listeners.
        package var connections = 10_000
        /// Whether messages are charged to the limits.
        package var limits = true
        package var localOver = LocalOver.hold

        package init() {}
    }

    /// What the milter makes canonical.
    package enum Canonicalise: String, CaseIterable, Sendable {
        case none
        /// Sender and recipients.
        case envelope
    }

    /// A proxy of the content filter.
    package struct FilterListener: Equatable, Sendable {
        package enum Mode: String, CaseIterable, Sendable {
            case afterQueue = "after_queue"
            case beforeQueue = "before_queue"
        }

        package var listen: Endpoint
        package var nextHop: Endpoint
        package var variant = SMTPServerSession.Variant.smtp
        package var mode = Mode.afterQueue
        /// Clients outside these are refused; none: all but those of this machine are.
        package var networks: [Network] = []

        package init(listen: Endpoint, nextHop: Endpoint) {
            self.listen = listen
            self.nextHop = nextHop
        }
    }

    package struct Filter: Equatable, Sendable {
        /// Clients of each listener at once.
        package var connections = 2_000
        package var spool = "/var/lib/weir"
        /// MiB of content in memory, over all listeners.
        package var mostMemory = 64
        /// MiB of content in the spool, over all listeners.
        package var mostSpool = 2_048

        package init() {}
    }

    /// Where a listener is reached, in Postfix's notation.
    package enum Endpoint: Hashable, Sendable {
        case inet(host: String, port: Int)
        /// `mode` and `group` of the socket's file; a nil group leaves the service's own.
        case unix(path: String, mode: UInt16, group: String?)

        var isTCP: Bool {
            if case .inet = self { true } else { false }
        }
    }

    package struct LedgerSettings: Equatable, Sendable {
        package var path = "/var/lib/weir/ledger.sqlite"
        package var durability = Durability.commit
        /// Keys in memory over all limits.
        package var mostKeys = 2_000_000

        package init() {}
    }

    /// What a request is answered while Weir itself is in trouble.
    package enum OnFailure: String, CaseIterable, Sendable {
        case dunno, `defer`
    }

    /// Whom to tell what at once; all of it is in the log, too.
    package struct Alerts: Equatable, Sendable {
        package enum Tier: String, CaseIterable, Sendable {
            case warn, over, block, trouble
        }

        package var tiers = Tier.allCases
        package var webhook: String?
        package var command: String?
        package var mail: [String] = []
        package var sendmail = "/usr/sbin/sendmail"
        /// Seconds between notices by one channel.
        package var interval: Int64 = 30
        /// Seconds until the same is told again.
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
        /// A line for every decision, not only for refusals.
        package var decisions = false
        /// Seconds between summary lines of peaks (anvil's `anvil_status_update_time`).
        package var summaryInterval: Int64 = 600
        /// Where policy requests are kept, for `weir replay`.
        package var capture: String?

        package init() {}
    }
}
