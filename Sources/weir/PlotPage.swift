// SPDX-License-Identifier: Apache-2.0
import Foundation

/// An HTML page of plots in one file, without scripts and without references to other files.
enum PlotPage {
    static func html(title: String, _ content: String) -> String {
        """
        <!doctype html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>\(escaped(title))</title>
        <style>
        \(String(decoding: PackageResources.plot_css, as: UTF8.self))</style>
        <h1>\(escaped(title))</h1>
        \(content)
        </html>

        """
    }

    private static let (width, height, left, bottom) = (800.0, 260.0, 60.0, 30.0)

    /// The smallest of 1, 2 and 5 times a power of ten that is not below `value`.
    static func scale(_ value: Double) -> Double {
        guard value > 0 else { return 1 }
        let power = pow(10, floor(log10(value)))
        return [1, 2, 5, 10].map { $0 * power }.first { $0 >= value } ?? value
    }

    /// - Parameters:
    ///   - lines: CSS class, and points with coordinates from 0 to 1.
    ///   - ticks: position on the x axis from 0 to 1, and label.
    static func plot(
        _ name: String, _ lines: [(String, [(x: Double, y: Double)])], top: Double, ticks: [(Double, String)]
    ) -> String {
        func x(_ share: Double) -> String { number(left + share * (width - left - 20)) }
        func y(_ share: Double) -> String { number(10 + (1 - share) * (height - bottom - 10)) }
        var parts = [
            "<svg viewBox=\"0 0 \(number(width)) \(number(height))\" role=\"img\" aria-label=\"\(escaped(name))\">"
        ]
        for step in 0...4 {
            let share = Double(step) / 4
            parts.append("<line class=\"grid\" x1=\"\(x(0))\" x2=\"\(x(1))\" y1=\"\(y(share))\" y2=\"\(y(share))\"/>")
            parts.append(
                "<text x=\"\(number(left - 6))\" y=\"\(y(share))\" text-anchor=\"end\" "
                    + "dominant-baseline=\"middle\">\(number(top * share))</text>"
            )
        }
        for (share, label) in ticks {
            parts.append(
                "<text x=\"\(x(share))\" y=\"\(number(height - 8))\" text-anchor=\"middle\">\(escaped(label))</text>")
        }
        for (style, points) in lines {
            let path = points.map { "\(x($0.x)),\(y(min(1, $0.y)))" }.joined(separator: " ")
            parts.append("<polyline class=\"\(style)\" points=\"\(path)\"/>")
        }
        return parts.joined(separator: "\n") + "\n</svg>"
    }

    /// With at most two decimals, without trailing zeros.
    private static func number(_ value: Double) -> String {
        value == value.rounded() ? "\(Int(value))" : "\((value * 100).rounded() / 100)"
    }

    static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;").replacing(
            "\"", with: "&quot;")
    }
}
