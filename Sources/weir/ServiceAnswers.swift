// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import ArgumentParser
import Foundation
import Limits
import Report
import Settings

extension AdminClient.Failure {
    fileprivate var exitStatus: Int32 {
        switch kind {
        case .unreachable: EX_UNAVAILABLE
        case .inTrouble: EX_TEMPFAIL
        case .notPermitted: EX_NOPERM
        case .refused: EXIT_FAILURE
        }
    }
}

/// Asks the running service and prints its answers.
enum Admin {
    /// - Parameter command: named in error messages.
    static func ask<T>(
        _ options: ConfigurationOptions, by command: String = "limits", _ body: (AdminClient) async throws -> T
    ) async throws -> T {
        try await ask(options.readAdmin(), by: command, body)
    }

    static func ask<T>(
        _ configuration: Configuration, by command: String, _ body: (AdminClient) async throws -> T
    ) async throws -> T {
        do {
            return try await body(AdminClient(configuration))
        } catch let failure as AdminClient.Failure {
            complain(failure.description, by: command)
            throw ExitCode(failure.exitStatus)
        }
    }

    static func complain(_ text: String, by command: String = "limits") {
        StandardError.complain(EventLog.escaped(text), by: command)
    }

    /// Says that no limit has a key, or not the one that was asked, and how to look for what was meant.
    static func unknown(_ key: String, limit: String?) -> String {
        let text = limit.map { "\($0) has not counted \(key) recently" } ?? "no limit has counted \(key) recently"
        // These mean something else in a pattern.
        if key.contains(where: "*?[\\".contains) { return text }
        return "\(text); similar keys: weir limits list --match \(ShellWord.quoted("*\(key)*"))"
    }

    /// - Parameter withParts: with a line for each host that shares the limit.
    static func print(_ standings: [KeyStanding], json: Bool, withParts: Bool = false, whenEmpty: String) throws {
        if json { return try StandardOutput.write(line: JSONText.indented(standings)) }
        if standings.isEmpty { return try StandardOutput.write(line: whenEmpty) }
        for standing in standings {
            try StandardOutput.write(line: description(of: standing))
            guard withParts else { continue }
            for part in standing.hosts ?? [] {
                try StandardOutput.write(line: "  \(description(of: part, standing))")
            }
        }
    }

    /// Whose figures were printed; nothing if no limit is shared.
    static func print(_ hosts: SharedFigures?) throws {
        guard let text = hosts?.summary(age) else { return }
        try StandardOutput.write(line: EventLog.escaped(text))
    }

    /// `mx2: 24 per 1h, 120 per 1d; 2 refused requests (0.4s old)`
    private static func description(of part: HostUse, _ standing: KeyStanding) -> String {
        let age = part.age.map(age)
        guard let used = part.used else {
            return "\(part.host): no answer, \(age.map { "last heard \($0) ago" } ?? "never heard")"
        }
        let rates = zip(used, standing.rates).map { "\($0) per \($1.window)" }.joined(separator: ", ")
        let refused = part.refusedTries.map { $0 > 0 ? "; \(quantity($0, "refused request"))" : "" } ?? ""
        return "\(part.host): \(rates)\(refused)" + (part.age ?? 0 > 0 ? age.map { " (\($0) old)" } ?? "" : "")
    }

    /// `0.4s`, `12s`, `1h 30m`
    static func age(_ seconds: Double) -> String {
        seconds < 10 ? String(format: "%.1fs", max(0, seconds)) : duration(Int(min(seconds, 1e9).rounded()))
    }

    /// `2d`, `1h 30m`: the two largest units, rounded up.
    static func duration(_ seconds: Int) -> String {
        let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)]
        let seconds = max(1, seconds)
        let index = units.firstIndex { seconds >= $0.1 }!
        let (unit, length) = units[index]
        let (smallUnit, smallLength) = units[min(index + 1, units.count - 1)]
        let rounded = (seconds + smallLength - 1) / smallLength * smallLength
        guard rounded == seconds else { return duration(rounded) }
        let rest = seconds % length / smallLength
        return "\(seconds / length)\(unit)" + (rest > 0 ? " \(rest)\(smallUnit)" : "")
    }

    /// `per-user user@example.org: recipients 12/100 per 1m, 540/1000 per 1h, room in 35s; 4 refused requests`
    static func description(of standing: KeyStanding) -> String {
        let now = secondsSince1970()
        func remaining(until time: Double) -> String { duration(Int((time - now).rounded())) }
        let rates = standing.rates.map { rate in
            "\(rate.used)/\(rate.limit) per \(rate.window)"
                + (rate.freesAt.map { ", room in \(remaining(until: $0))" } ?? "")
        }
        var parts = [
            "\(standing.limit) \(EventLog.escaped(standing.key)): "
                + "\(standing.count) \(rates.joined(separator: ", "))"
        ]
        if standing.refusedTries > 0 {
            parts.append(quantity(standing.refusedTries, "refused request"))
        }
        if let until = standing.blockedUntil {
            let isEndless = until - now > Double(RefusedRequest.endless)
            parts.append(isEndless ? "blocked until unblocked" : "blocked for \(remaining(until: until))")
        }
        if let until = standing.raisedUntil { parts.append("raised for \(remaining(until: until))") }
        if standing.exempt { parts.append("exempt") }
        if standing.mode == "shadow" { parts.append("shadow") }
        if let note = standing.note { parts.append(EventLog.escaped(note)) }
        return parts.joined(separator: "; ")
    }
}
