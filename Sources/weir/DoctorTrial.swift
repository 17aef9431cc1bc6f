// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Advisor
import ArgumentParser
import Foundation
import LoadGenerator
import Report
import Rules
import Settings

/// `weir doctor --try`: one probe mail, from Postfix through all stages of Weir.
struct DoctorTrial {
    let configuration: Configuration
    let setup: PostfixSetup
    let target: LoadTarget
    let recipient: String?

    struct Report: Encodable {
        let sender: String
        let recipient: String
        let target: String
        let replies: [ProbeMail.Reply]
        let sightings: [AdminMessages.ProbeSighting]
        /// Stages that weir.yaml has, and the probe did not come by.
        let missing: [AdminMessages.ProbeStage]
        /// Nothing took the message away.
        let mayBeDelivered: Bool

        var isWell: Bool { missing.isEmpty && replies.allSatisfy(\.isPositive) }
    }

    private static let patience: Duration = .seconds(20)

    func run() async throws -> Report {
        let address = try LoadArguments.address(of: target, named: "--smtp", iOwn: nil)
        let client = AdminClient(configuration)
        let stages = Examination.stages(in: setup, configuration: configuration)
        let last = stages.last ?? .policy
        let token = try await client.beginProbe(upTo: last)
        let host = setup.value("myhostname")
        var mail = try ProbeMail(
            to: address, sender: "weir-probe-\(token)@\(host)", recipient: recipient ?? "postmaster@\(host)",
            token: token)
        // Where nothing takes the message away at its end, it is given up before.
        let sendsContent = last != .policy
        do { try mail.send(content: sendsContent) } catch {
            _ = try? await client.endProbe(token)
            throw error
        }
        let deadline = ContinuousClock.now + Self.patience
        let isOnItsWay = sendsContent && mail.replies.allSatisfy(\.isPositive)
        while isOnItsWay, ContinuousClock.now < deadline,
            try await !client.sightings(ofProbe: token).contains(where: { $0.stage == last })
        {
            try await Task.sleep(for: .milliseconds(100))
        }
        let sightings = try await client.endProbe(token)
        let missing = configured.filter { stage in !sightings.contains { $0.stage == stage } }
        return Report(
            sender: mail.sender, recipient: mail.recipient, target: "\(target)", replies: mail.replies,
            sightings: sightings, missing: missing,
            mayBeDelivered: isOnItsWay && !sightings.contains { $0.stage == last })
    }

    private var configured: [AdminMessages.ProbeStage] {
        let listen = configuration.listen
        let isChargedByMilter = !listen.milter.isEmpty && configuration.milter.limits
        return AdminMessages.ProbeStage.allCases.filter { stage in
            switch stage {
            case .policy: !configuration.limits.isEmpty && !isChargedByMilter
            case .milter: !listen.milter.isEmpty
            case .filter: !listen.filter.isEmpty
            }
        }
    }

    static func text(_ report: Report) -> String {
        func time(_ milliseconds: Double) -> String { LoadSummary.time(milliseconds * 1000) }
        var lines = ["probe mail from \(report.sender) to \(report.recipient) by \(report.target)"]
        for reply in report.replies {
            lines.append("    \(time(reply.milliseconds))  \(reply.command.prefix(12)): \(printable(reply.text.utf8))")
        }
        for sighting in report.sightings {
            lines.append(
                "  seen by the \(sighting.place) after \(time(sighting.milliseconds)): \(printable(sighting.outcome.utf8))"
            )
        }
        for stage in report.missing { lines.append("  MISSING: the \(stage.rawValue) never saw it") }
        if report.mayBeDelivered {
            lines.append("  nothing took the message away: it may be delivered to \(report.recipient)")
        }
        if report.isWell { lines.append("  it came by everywhere, and is gone") }
        return lines.joined(separator: "\n")
    }
}
