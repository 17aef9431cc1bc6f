// SPDX-License-Identifier: Apache-2.0
import Advisor
import Limits

/// The report of `weir replay` as an HTML page with plots.
enum ReplayPage {
    static func html(_ report: ReplayReport) -> String {
        let plots = report.limits.flatMap { limit in
            limit.windows.map { window in
                let title = "\(limit.name): peak \(limit.count) per \(window.window), by share of keys"
                return "<h2>\(PlotPage.escaped(title))</h2>\n\(plot(limit, window))"
            }
        }
        return PlotPage.html(
            title: "Replay",
            "<pre>\(PlotPage.escaped(ReplayCommand.text(report)))</pre>\n" + plots.joined(separator: "\n"))
    }

    /// The peaks of the keys, and the suggested limit.
    private static func plot(_ limit: LimitReplay, _ window: WindowReplay) -> String {
        guard limit.keys > 1, let suggested = window.suggested else { return "<p>Too few keys for a plot.</p>" }
        let top = PlotPage.scale(Double(max(window.max, suggested)))
        let keys = zip(WindowReplay.shares, window.curve).map { (x: $0, y: Double($1) / top) }
        let line = [0.0, 1.0].map { (x: $0, y: Double(suggested) / top) }
        let ticks = stride(from: 0, through: 100, by: 25).map { (Double($0) / 100, "\($0) %") }
        return PlotPage.plot("\(limit.name), \(window.window)", [("one", keys), ("two", line)], top: top, ticks: ticks)
    }
}
