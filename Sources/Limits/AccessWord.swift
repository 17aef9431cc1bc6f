// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax

/// An action word of access(5). The reply codes 4NN and 5NN and the names of restriction classes are actions without
/// one.
///
/// A new word is a new case. The compiler then names each switch that has to decide about it: those in this file, what
/// a milter does (`AccessAction`), how figures count it (`PolicyAction`), and what `weir check-config` says of it.
package enum AccessWord: String, CaseIterable, Sendable {
    case ok = "OK"
    case relay = "RELAY"
    case dunno = "DUNNO"
    case reject = "REJECT"
    case `defer` = "DEFER"
    case deferIfPermit = "DEFER_IF_PERMIT"
    case deferIfReject = "DEFER_IF_REJECT"
    case hold = "HOLD"
    case discard = "DISCARD"
    case filter = "FILTER"
    case redirect = "REDIRECT"
    case bcc = "BCC"
    case prepend = "PREPEND"
    case info = "INFO"
    case warn = "WARN"

    private static let spellings = allCases.map { (word: $0, text: $0.rawValue.utf8.map(\.lowercased)) }

    /// Case does not count, as in Postfix. nil for a reply code, the name of a restriction class, or anything else.
    package init?(_ text: some Collection<UInt8>) {
        guard let known = Self.spellings.first(where: { $0.text.elementsEqual(text) { $0 == $1.lowercased } })
        else { return nil }
        self = known.word
    }

    /// What has to follow the word.
    enum Argument {
        case none, optionalText, transport, address, header
    }

    var argument: Argument {
        switch self {
        case .ok, .relay, .dunno: .none
        case .reject, .defer, .deferIfPermit, .deferIfReject, .hold, .discard, .info, .warn: .optionalText
        case .filter: .transport
        case .redirect, .bcc: .address
        case .prepend: .header
        }
    }

    /// Whether Postfix accepts the request, as far as this action decides. If so, the request is charged beyond the
    /// limit.
    package var letsPass: Bool {
        switch self {
        case .reject, .defer, .deferIfPermit: false
        case .ok, .relay, .dunno, .deferIfReject, .hold, .discard, .filter, .redirect, .bcc, .prepend, .info, .warn:
            true
        }
    }

    /// Whether the milter protocol has a reply or a modification for it. `AccessAction` says which.
    package var worksInMilter: Bool {
        switch self {
        case .filter: false
        case .ok, .relay, .dunno, .reject, .defer, .deferIfPermit, .deferIfReject, .hold, .discard, .redirect, .bcc,
            .prepend, .info, .warn:
            true
        }
    }
}
