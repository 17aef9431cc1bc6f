// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import Foundation
import Report

/// The output of `weir top` to a pipe.
enum TopText {
    private static let mostRefusals = 10

    /// A line with the time and the rates, then an indented line for each key and each refusal.
    ///
    /// - Parameter time: of the last refresh; 0 for the first.
    static func lines(_ figures: TopFigures, since time: Double) -> [String] {
        let snapshot = figures.snapshot
        // Each refusal is in one refresh. What has a later time, by the clock of another host, is left for the next.
        let refusals = snapshot.refusals.filter { time == 0 || $0.time >= time && $0.time < snapshot.time }.prefix(
            mostRefusals)
        return ["\(clock(snapshot.time)) \(rates(snapshot))"]
            + figures.standings.map { "  \(Admin.description(of: $0))" }
            + refusals.map { "  refused \(clock($0.time)): \(EventLog.escaped(text($0)))" }
    }

    private static func clock(_ time: Double) -> String { Date(timeIntervalSince1970: time).formatted(.iso8601) }

    private static func rates(_ snapshot: AdminMessages.Snapshot) -> String {
        let answers = snapshot.answers.map { "\($0.action.lowercased())/s=\($0.perSecond.last ?? 0)" }.joined(
            separator: " ")
        let messages = snapshot.ways.map { way in
            way.name + " " + TopText.messages(way).map { "\($0.name)=\($0.count)" }.joined(separator: ",")
        }
        let latency = "p50/1m=\(time(snapshot.medianAnswer)) p99/1m=\(time(snapshot.slowAnswer))"
        let ledger =
            "keys=\(snapshot.status.keys) ledger=\(snapshot.status.trouble == nil ? "ok" : "trouble")"
            + (snapshot.status.engineTrouble == nil ? "" : " engine=trouble")
            + (snapshot.reload?.fault == nil ? "" : " reload=rejected")
            + (snapshot.hosts.map { " hosts=\($0.hosts.count(where: \.hasAnswered))/\($0.hosts.count)" } ?? "")
        return (["\(answers) \(latency) \(ledger)"] + messages).joined(separator: "; ")
    }

    /// What a way in did with messages, without counts of 0.
    static func messages(_ way: WayFigures) -> [(name: String, count: UInt64)] {
        way.values.messages.sorted { $0.key < $1.key }.filter { $0.value > 0 }.map { ($0.key, $0.value) }
    }

    private static func text(_ refusal: RefusedRequest) -> String {
        "\(refusal.limit)\(refusal.mode == "shadow" ? " (shadow)" : "") \(refusal.key): \(refusal.reason), "
            + "\(refusal.usage), \(refusal.outlook { Admin.duration(Int($0)) }), \(refusal.client)"
            + (refusal.host.map { ", on \($0)" } ?? "")
    }

    static func time(_ microseconds: Int64?) -> String {
        microseconds.map { $0 < 1000 ? "\($0)us" : "\(Double($0) / 1000)ms" } ?? "-"
    }
}
