// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A page of plots that needs nothing else: no script, nothing from elsewhere.
enum PlotPage {
    static func html(title: String, _ content: String) -> String {
        """
        <!doctype html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>\(escaped(title))</title>
        <style>
        :root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --line: #d5dce4; --one: #1769aa; --two: #b3261e }
        @media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9aa7b5; --line: #323c47; --one: #7fc1f5; --two: #ff8a80 } }
        body { font: 16px/1.45 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 1rem auto; padding: 0 1rem }
        pre { overflow-x: auto } svg { width: 100%; height: auto } text { font: 11px system-ui, sans-serif; fill: var(--soft) }
        .grid { stroke: var(--line) } .one { stroke: var(--one) } .two { stroke: var(--two) } polyline { fill: none; stroke-width: 1.5 }
        </style>
        <h1>\(escaped(title))</h1>
        \(content)
        </html>

        """
    }

    private static let (width, height, left, bottom) = (800.0, 260.0, 60.0, 30.0)

    /// The next of 1, 2 and 5 times a power of ten.
    static func scale(_ value: Double) -> Double {
        guard value > 0 else { return 1 }
        let power = pow(10, floor(log10(value)))
        return [1, 2, 5, 10].map { $0 * power }.first { $0 >= value } ?? value
    }

    /// - Parameters:
    ///   - lines: style, and points from 0 to 1 each way.
    ///   - ticks: along the x axis, from 0 to 1.
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
                "<text x=\"\(number(left - 6))\" y=\"\(y(share))\" text-anchor=\"end\" dominant-baseline=\"middle\">\(number(top * share))</text>"
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

    /// Without zeros at its end.
    private static func number(_ value: Double) -> String {
        value == value.rounded() ? "\(Int(value))" : "\((value * 100).rounded() / 100)"
    }

    static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;").replacing(
            "\"", with: "&quot;")
    }
}
