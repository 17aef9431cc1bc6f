// SPDX-License-Identifier: Apache-2.0

/// A call to the engine's library.
package enum Call: Equatable, Sendable {
    /// Which epoch it is. `run` is the run id that the host has read on this connection.
    case hello(Hello)
    case exchange(Exchange)

    /// `known` is the newest epoch that the host has been in.
    package struct Hello: Equatable, Sendable {
        package let known: Int64
        package let knownID: String
        package let run: String
        package let mark: UInt64
        package let connection: Int64
    }

    package struct Exchange: Equatable, Sendable {
        package let host: String
        /// A random number of the host's ledger.
        package let mark: UInt64
        package let connection: Int64
        /// Counts the calls on the connection.
        package let number: Int64
        package let epoch: Int64
        package let epochID: String
        /// Whether all that the host has used is in the engine after this call.
        package let completes: Bool
        package let terms: String
        /// All terms that the host obeys; empty as long as it has never seen terms settled.
        package let obeyed: [String]
        /// The hosts of all terms.
        package let hosts: [String]
        package let termsMatter: Int64
        package let hidden: Int64
        /// The position of the changes that the host has seen, and how many more it takes.
        package let position: Int64
        package let mostNews: Int64
        package let changes: [SharedChanges.Told]
        package var lanes: [LaneReport] = []
    }

    /// All that a host has in a lane's pool, and what it asks for.
    package struct LaneReport: Equatable, Sendable {
        package let lane: Lane
        package let pool: Int64
        package let need: Int64
        package let want: Int64
        package let validity: Int64
        /// What was used and what refused requests count, by age; a negative age is the time that an open grant has
        /// left.
        package var rows: [Row] = []
    }

    package struct Row: Equatable, Sendable {
        package let age: Int64
        package let units: Int64
    }
}

/// What the engine answers. Anything else is an error of the connection.
package enum Answer: Equatable, Sendable {
    case hello(epoch: Int64, id: String, settled: String)
    /// The call was of another epoch, or a later call has overtaken it.
    case late
    /// Another ledger under this host's name is running.
    case clone
    case exchanged(time: Int64, settled: String, granted: [Int64], news: SharedChanges.News = SharedChanges.News())
}

extension Call {
    /// The function's name, its keys, and its arguments, for FCALL. The keys of a group have one hash tag.
    package func arguments(group: String) -> (function: String, keys: [String], arguments: [String]) {
        let prefix = "{weir:\(group)}:"
        let keys = [EngineLibrary.stateKey(group: group)] + ["lanes", "stale"].map { prefix + $0 }
        switch self {
        case .hello(let call):
            let mark = String(call.mark, radix: 16)
            let own = [String(call.known), call.knownID, call.run, mark, String(call.connection)]
            return ("\(EngineLibrary.name)_hello", keys, own)
        case .exchange(let call):
            let changes = ["changes", "changes:order", "changes:ends"].map { prefix + $0 }
            let lanes = call.lanes.map { "\(prefix)\(call.epoch):\(String($0.lane.key, radix: 16)):\($0.lane.window)" }
            return ("\(EngineLibrary.name)_exchange", keys + changes + lanes, call.arguments)
        }
    }
}

extension Call.Exchange {
    fileprivate var arguments: [String] {
        var arguments = [
            host, String(mark, radix: 16), String(connection), String(number), epochID,
            completes ? "1" : "0", terms, obeyed.joined(separator: "|"), hosts.joined(separator: ","),
            String(termsMatter), String(hidden), String(position), String(mostNews), String(changes.count),
        ]
        for change in changes { arguments += change.words }
        for report in lanes {
            let numbers = [
                report.lane.window, report.pool, report.need, report.want, report.validity, Int64(report.rows.count),
            ]
            arguments += (numbers + report.rows.flatMap { [$0.age, $0.units] }).map { String($0) }
        }
        return arguments
    }
}

extension SharedChanges.Told {
    fileprivate var words: [String] {
        let mark = String(version.mark, radix: 16)
        // As long for each, so that texts compare as the numbers do.
        let zeros = String(repeating: "0", count: 16 - mark.count)
        return [subject, String(version.number), zeros + mark, String(left), content]
    }

    fileprivate static let wordCount = 5

    fileprivate init?(words: ArraySlice<String>) {
        let words = Array(words)
        guard words.count == Self.wordCount, let number = Answer.count(words[1]), words[2].utf8.count == 16,
            let mark = UInt64(words[2], radix: 16), let left = Answer.count(words[3])
        else { return nil }
        let version = SharedChange.Version(number: number, mark: mark)
        self.init(subject: words[0], version: version, left: left, content: words[4])
    }
}

extension Answer {
    /// The largest whole number that the library can count with.
    private static let largest: Int64 = 1 << 53

    /// A number of the library that is not negative.
    fileprivate static func count(_ text: String) -> Int64? {
        Int64(text).flatMap { 0...largest ~= $0 ? $0 : nil }
    }

    /// Reads the library's reply; nil if it is none, or grants more than was asked for.
    package init?(reply: [String], to call: Call) {
        switch (call, reply.first) {
        case (.hello, _):
            guard reply.count == 3, let epoch = Int64(reply[0]), 1...Self.largest ~= epoch else { return nil }
            self = .hello(epoch: epoch, id: reply[1], settled: reply[2])
        case (.exchange, "late"): self = .late
        case (.exchange, "clone"): self = .clone
        case (.exchange(let exchange), "ok") where reply.count >= 5:
            let granted = reply.dropFirst(5).prefix(exchange.lanes.count).compactMap { Int64($0) }
            guard granted.count == exchange.lanes.count,
                zip(granted, exchange.lanes).allSatisfy({ 0...$1.want ~= $0 }), let time = Int64(reply[1]),
                let news = Self.news(reply.dropFirst(3).prefix(2) + reply.dropFirst(5 + granted.count), exchange)
            else { return nil }
            self = .exchanged(time: time, settled: reply[2], granted: granted, news: news)
        case (.exchange, _): return nil
        }
    }

    private static func news(_ words: ArraySlice<String>, _ call: Call.Exchange) -> SharedChanges.News? {
        let words = Array(words)
        guard words.count >= 2, let stable = count(words[0]), let position = count(words[1]) else { return nil }
        var news = SharedChanges.News(stable: stable, position: position)
        var rest = words.dropFirst(2)
        while !rest.isEmpty {
            guard let position = rest.first.flatMap(count), news.changes.count < call.mostNews,
                let told = SharedChanges.Told(words: rest.dropFirst().prefix(SharedChanges.Told.wordCount))
            else { return nil }
            news.changes.append((position, told))
            rest = rest.dropFirst(1 + SharedChanges.Told.wordCount)
        }
        return news
    }

    /// The answer in the form in which the library replies.
    package var reply: [String] {
        switch self {
        case .hello(let epoch, let id, let settled): [String(epoch), id, settled]
        case .late: ["late"]
        case .clone: ["clone"]
        case .exchanged(let time, let settled, let granted, let news):
            ["ok", String(time), settled, String(news.stable), String(news.position)] + granted.map { String($0) }
                + news.changes.flatMap { [String($0)] + $1.words }
        }
    }
}
