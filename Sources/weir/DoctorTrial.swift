// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Advisor
import ArgumentParser
import Filter
import Foundation
import LoadGenerator
import Report
import Rules
import Settings

/// `weir doctor --try`: sends a probe message through Postfix and all stages of Weir.
struct DoctorTrial {
    let configuration: Configuration
    let rules: ContentRules
    let setup: PostfixSetup
    let target: LoadTarget
    let recipient: String?
    let requiresTLS: Bool
    let login: ProbeMail.Login?

    struct Report: Encodable {
        let sender: String
        let recipient: String
        let target: String
        let replies: [ProbeMail.Reply]
        /// The certificate of a session in TLS.
        let certificate: ProbeMail.Certificate?
        let sightings: [ProbeSighting]
        /// Stages that weir.yaml enables and that did not see the probe.
        let missing: [ProbeStage]
        /// No stage discarded the message.
        let mayBeDelivered: Bool

        var hasPassed: Bool { missing.isEmpty && replies.allSatisfy(\.isPositive) }
        var isHealthy: Bool { hasPassed && certificate?.isOutOfDate != true }
    }

    /// How long to wait for the last stage to see the probe.
    private static let timeout: Duration = .seconds(20)

    func run() async throws -> Report {
        let address = try target.localAddress(option: "--smtp", command: "doctor")
        let client = AdminClient(configuration, timeout: DoctorCommand.adminTimeout)
        let stages = Examination.stages(in: setup, configuration: configuration, rules: rules)
        let last = stages.last ?? .policy
        let asked = ContinuousClock.now
        let probe = try await client.beginProbe(upTo: last)
        let token = probe.token ?? ""
        // The service counts from here, too. If it is on another machine, its clock says nothing.
        let begun = min(max(probe.begun ?? asked, asked), .now)
        let host = setup.value("myhostname")
        var mail: ProbeMail
        do {
            mail = try ProbeMail(
                to: address, sender: sender(token), recipient: recipient ?? "postmaster@\(host)", token: token,
                begun: begun)
        } catch {
            _ = try? await client.endProbe(token)
            throw error
        }
        // The policy server can't discard a message, so the session must end before DATA.
        let sendsContent = last != .policy
        do {
            try mail.open(requiresTLS: requiresTLS, login: login)
            try mail.send(content: sendsContent)
        } catch {
            _ = try? await client.endProbe(token)
            throw error
        }
        let deadline = ContinuousClock.now + Self.timeout
        let isAccepted = sendsContent && mail.replies.allSatisfy(\.isPositive)
        while isAccepted, ContinuousClock.now < deadline,
            try await !client.sightings(ofProbe: token).contains(where: { $0.stage == last })
        {
            try await Task.sleep(for: .milliseconds(100))
        }
        let sightings = try await client.endProbe(token)
        let missing = enabledStages.filter { stage in !sightings.contains { $0.stage == stage } }
        return Report(
            sender: mail.sender, recipient: mail.recipient, target: "\(target)", replies: mail.replies,
            certificate: mail.certificate, sightings: sightings, missing: missing,
            mayBeDelivered: isAccepted && !sightings.contains { $0.stage == last })
    }

    /// An address of the user with an extension, if Postfix knows extensions: reject_sender_login_mismatch lets it
    /// pass.
    private func sender(_ token: String) -> String {
        let mark = "weir-probe-\(token)"
        guard let user = login?.user, let delimiter = setup.value("recipient_delimiter").first,
            let at = user.lastIndex(of: "@"), user.wholeMatch(of: /[!#-;=?-~]+/) != nil
        else { return "\(mark)@\(setup.value("myhostname"))" }
        return "\(user[..<at])\(delimiter)\(mark)\(user[at...])"
    }

    private var enabledStages: [ProbeStage] {
        let listen = configuration.listen
        let isChargedByMilter = !listen.milter.isEmpty && configuration.milter.limits
        return ProbeStage.allCases.filter { stage in
            switch stage {
            case .policy: !configuration.limits.isEmpty && !isChargedByMilter
            case .milter: !listen.milter.isEmpty
            case .filter: !listen.filter.isEmpty
            }
        }
    }

    static func text(_ report: Report) -> String {
        func time(_ milliseconds: Double) -> String { LoadSummary.time(milliseconds * 1000) }
        var lines = ["probe from \(report.sender) to \(report.recipient) via \(report.target)"]
        for reply in report.replies {
            let command = reply.command.prefix { $0 != ":" }
            lines.append("    \(time(reply.milliseconds))  \(command): \(printable(reply.text.utf8))")
        }
        if let certificate = report.certificate {
            let faults = certificate.faults.isEmpty ? "valid" : certificate.faults.joined(separator: ", ")
            lines.append("  certificate of \(printable(certificate.subject.utf8)): \(printable(faults.utf8))")
            if certificate.isOutOfDate { lines.append("  mail clients refuse this certificate: renew it") }
        }
        for sighting in report.sightings {
            let outcome = printable(sighting.outcome.utf8)
            lines.append("  seen by the \(sighting.place) after \(time(sighting.milliseconds)): \(outcome)")
        }
        if report.sightings.contains(where: { $0.isRefused == true }) {
            lines.append("  real mail would be refused; Weir let the probe pass")
        }
        for stage in report.missing { lines.append("  MISSING: not seen by the \(stage.rawValue) stage") }
        if report.mayBeDelivered {
            lines.append("  no stage discarded the probe: it may be delivered to \(report.recipient)")
        }
        if report.hasPassed { lines.append("  every stage saw the probe; it was not delivered, and counts for nobody") }
        return lines.joined(separator: "\n")
    }
}
