// SPDX-License-Identifier: Apache-2.0
import Advisor
import Limits

/// What a replay has found, as a page with plots.
enum ReplayPage {
    static func html(_ report: ReplayReport) -> String {
        let plots = report.limits.flatMap { limit in
            limit.windows.map { window in
                """
                <h2>\(PlotPage.escaped("\(limit.name): \(limit.count) in \(window.window), at most, by share of the keys"))</h2>
                \(plot(limit, window))
                """
            }
        }
        return PlotPage.html(
            title: "Replay",
            "<pre>\(PlotPage.escaped(ReplayCommand.text(report)))</pre>\n" + plots.joined(separator: "\n"))
    }

    /// The keys' peaks, and what is suggested.
    private static func plot(_ limit: LimitReplay, _ window: WindowReplay) -> String {
        guard limit.keys > 1, let suggested = window.suggested else { return "<p>Too few keys.</p>" }
        let top = PlotPage.scale(Double(max(window.max, suggested)))
        let keys = zip(WindowReplay.shares, window.curve).map { (x: $0, y: Double($1) / top) }
        let line = [0.0, 1.0].map { (x: $0, y: Double(suggested) / top) }
        let ticks = stride(from: 0, through: 100, by: 25).map { (Double($0) / 100, "\($0) %") }
        return PlotPage.plot("\(limit.name), \(window.window)", [("one", keys), ("two", line)], top: top, ticks: ticks)
    }
}
