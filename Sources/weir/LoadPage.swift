// SPDX-License-Identifier: Apache-2.0
import Foundation
import LoadGenerator

/// The report of `weir load` as an HTML page with plots.
enum LoadPage {
    static func html(_ report: LoadReport) -> String {
        PlotPage.html(
            title: "Load on \(report.target)",
            """
            <pre>\(PlotPage.escaped(LoadSummary.text(report)))</pre>
            <h2>Latency by percentile</h2>
            \(percentiles(report))
            <h2>Answers per second</h2>
            \(course(report, "answers per second", "one") { Double($0.answered) })
            <h2>p99 per second, in milliseconds</h2>
            \(course(report, "p99 in milliseconds", "two") { $0.latency.p99 / 1000 })
            """)
    }

    /// On a logarithmic x axis: 90 %, 99 % and 99.9 % are equally far apart.
    private static func percentiles(_ report: LoadReport) -> String {
        let points = report.percentiles.filter { $0.percentile < 100 }
        guard points.count > 1 else { return "<p>Too few answers for a plot.</p>" }
        func nines(_ percentile: Double) -> Double { -log10(1 - percentile / 100) }
        let (last, top) = (max(1, nines(points.last!.percentile)), PlotPage.scale(points.map(\.latency).max()! / 1000))
        let line = points.map { (x: nines($0.percentile) / last, y: $0.latency / 1000 / top) }
        let ticks = [0, 50, 90, 99, 99.9, 99.99, 99.999].filter { nines($0) <= last }.map {
            (nines($0) / last, "\($0) %")
        }
        return PlotPage.plot("latency in milliseconds by percentile", [("one", line)], top: top, ticks: ticks)
    }

    private static func course(
        _ report: LoadReport, _ name: String, _ style: String, _ value: (LoadProgress) -> Double
    ) -> String {
        let series = report.series
        guard series.count > 1 else { return "<p>Too short for a plot.</p>" }
        let (seconds, top) = (Double(series.last!.elapsedSeconds), PlotPage.scale(series.map(value).max()!))
        let line = series.map { (x: Double($0.elapsedSeconds) / seconds, y: value($0) / top) }
        let ticks = (0...4).map { (Double($0) / 4, "\(Int(seconds) * $0 / 4) s") }
        return PlotPage.plot(name, [(style, line)], top: top, ticks: ticks)
    }
}
