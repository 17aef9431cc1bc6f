// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// Who sends: names drawn by a Zipf law, and one of them that turns to spamming where the load is about that.
package struct Population: Sendable {
    /// A sender that nobody else is, from a client that nobody else is.
    package struct Trojan: Sendable, Equatable {
        /// When it begins.
        package var after: TimeAmount
        /// Operations a second, beside all others.
        package var rate: Double

        package init(after: TimeAmount, rate: Double) {
            self.after = after
            self.rate = rate
        }
    }

    package struct Person: Sendable, Equatable {
        package var sender: Int
        package var client: Int
        package var isTrojan: Bool
    }

    package var senders = 10_000
    /// At most `PolicyRequest.clients`, which includes the trojan's.
    package var clients = 10_000
    /// Exponent of the law by which senders and clients are drawn; 0 draws all alike.
    package var zipf = 1.1
    package var trojan: Trojan?

    package init() {}
}

/// Draws people, one after the other.
struct PopulationDraw {
    private let population: Population
    private let senders: AliasTable
    private let clients: AliasTable
    /// The share of operations that are the trojan's, once it has begun.
    private let share: Double
    private var owed = 0.0

    /// - Parameter honestRate: operations a second of all others; nil where they are sent as fast as they are answered.
    init(_ population: Population, honestRate: Double?) {
        self.population = population
        senders = .zipf(count: population.senders, exponent: population.zipf)
        clients = .zipf(count: population.clients, exponent: population.zipf)
        share = population.trojan.map { $0.rate / ($0.rate + (honestRate ?? $0.rate)) } ?? 0
    }

    mutating func next(at time: TimeAmount, using random: inout SplitMix64) -> Population.Person {
        if let trojan = population.trojan, time >= trojan.after {
            owed += share
            if owed >= 1 {
                owed -= 1
                return Population.Person(sender: population.senders, client: population.clients, isTrojan: true)
            }
        }
        return Population.Person(
            sender: senders.draw(using: &random), client: clients.draw(using: &random), isTrojan: false)
    }
}

/// How the trojan fared, and what the others felt of it.
package struct TrojanReport: Codable, Sendable, Equatable {
    /// Its answers in all, and those that let it through.
    package private(set) var answered = 0
    package private(set) var passed = 0
    /// What it got through before it was held for the first time; absent where it never was.
    package private(set) var passedBeforeHeld: Int?
    /// From its first answer to the first that refused it.
    package private(set) var heldAfterSeconds: Double?
    /// From the last that let it through before that to the first that refused it.
    package private(set) var heldSinceLastPassSeconds: Double?
    package private(set) var passedAfterHeld = 0
    package private(set) var honestAnswered = 0
    package private(set) var honestRefused = 0

    private var first: Double?
    private var lastPass: Double?

    private enum CodingKeys: String, CodingKey {
        case answered, passed, passedBeforeHeld, heldAfterSeconds, heldSinceLastPassSeconds, passedAfterHeld
        case honestAnswered, honestRefused
    }

    package init() {}

    package mutating func count(isTrojan: Bool, isRefused: Bool, at time: TimeAmount) {
        guard isTrojan else {
            honestAnswered += 1
            if isRefused { honestRefused += 1 }
            return
        }
        answered += 1
        let now = time.seconds
        let first = first ?? now
        self.first = first
        if isRefused {
            guard heldAfterSeconds == nil else { return }
            heldAfterSeconds = now - first
            heldSinceLastPassSeconds = lastPass.map { now - $0 }
            passedBeforeHeld = passed
        } else {
            passed += 1
            lastPass = now
            if heldAfterSeconds != nil { passedAfterHeld += 1 }
        }
    }
}
