// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// The senders and clients of a load, drawn from a Zipf distribution, and optionally a trojan: a sender that starts to
/// spam.
package struct Population: Sendable {
    /// The trojan has its own sender and client address.
    package struct Trojan: Sendable, Equatable {
        /// When it starts.
        package var after: TimeAmount
        /// Operations per second, in addition to `honestRate`.
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
    /// Less than `PolicyRequest.clients`, because the trojan has its own address.
    package var clients = 10_000
    /// Exponent of the distribution; 0 is uniform.
    package var zipf = 1.1
    /// Operations per second without the trojan's; nil in a closed loop.
    package var honestRate: Double?
    package var trojan: Trojan?

    package init() {}
}

/// Draws the senders and clients of a load's operations.
struct PopulationDraw {
    private let population: Population
    private let senders: AliasTable
    private let clients: AliasTable
    /// The trojan's share of operations, once it has started.
    private let share: Double
    private var owed = 0.0

    init(_ population: Population) {
        self.population = population
        senders = .zipf(count: population.senders, exponent: population.zipf)
        clients = .zipf(count: population.clients, exponent: population.zipf)
        share = population.trojan.map { $0.rate / ($0.rate + (population.honestRate ?? $0.rate)) } ?? 0
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

/// The figures of the trojan, and of the honest senders. The trojan is held at its first refusal.
package struct TrojanReport: Codable, Sendable, Equatable {
    package private(set) var answered = 0
    /// Answers that are not refusals.
    package private(set) var passed = 0
    /// Nil while it has not been held.
    package private(set) var passedBeforeHeld: Int?
    /// From its first answer to its first refusal.
    package private(set) var heldAfterSeconds: Double?
    /// From its last pass before the first refusal to that refusal.
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
