// SPDX-License-Identifier: Apache-2.0

/// Makes the scenario of a seed.
struct Generator {
    private var random: Random
    /// For what `vary` adds: without it, a seed makes the same scenario as ever.
    private var variants: Random
    private let seed: UInt64

    private static let windows: [Int64] = [10_000, 60_000, 600_000, 3_600_000, 86_400_000]

    /// In milliseconds.
    static let longestSlot: Int64 = 86_400_000 / 60

    init(seed: UInt64) {
        self.seed = seed
        random = Random(seed: seed)
        variants = Random(seed: ~seed)
    }

    mutating func scenario() -> Scenario {
        let kind = random.pick([.kills, .kills, .kills, .power, .power, .errors, .errors, .damage] as [Scenario.Kind])
        let durabilities =
            kind == .power ? ["power", "power", "commit", "relaxed"] : ["commit", "commit", "power", "relaxed"]
        let durability = random.pick(durabilities)
        var scenario = Scenario(
            seed: seed, kind: kind, durability: durability, configurations: [limits()], operations: [])
        scenario.defersOnFailure = random.chance(30)
        scenario.givesBackDropped = kind == .kills && random.chance(30)
        for _ in 0..<random.below(3) { scenario.configurations.append(changed(scenario.configurations[0])) }
        let count = 20 + random.below(random.chance(20) ? 140 : 60)
        for _ in 0..<count { scenario.operations.append(operation(scenario)) }
        vary(&scenario)
        return scenario
    }

    private mutating func vary(_ scenario: inout Scenario) {
        if variants.chance(35) { addContexts(to: &scenario) }
        if variants.chance(30) {
            for number in scenario.configurations.indices {
                for limit in scenario.configurations[number].indices where variants.chance(60) {
                    scenario.configurations[number][limit].keepsBlocks = false
                }
            }
        }
        if variants.chance(30) {
            let hour: Int64 = 3_600_000
            for _ in 0...variants.below(4) {
                let random = Int64(variants.below(100_000)) - 50_000
                let step = variants.pick([1000, -1000, hour, -hour, 24 * hour, -72 * hour, random])
                scenario.operations.insert(.stepClock(step), at: variants.below(scenario.operations.count + 1))
            }
        }
        if scenario.kind == .kills, variants.chance(30) {
            scenario.mostKeys = 2 + variants.below(6)
            for (index, operation) in scenario.operations.enumerated() {
                guard case .ask(let session, let ask, _) = operation else { continue }
                scenario.operations[index] = .ask(session: session, ask, endsTurn: true)
            }
        }
        if variants.chance(15) { addGenerosity(to: &scenario) }
    }

    /// Lets limits block early, and adds reloads that raise their rates, so that the blocks end.
    private mutating func addGenerosity(to scenario: inout Scenario) {
        var generous = scenario.configurations[0]
        for index in generous.indices {
            scenario.configurations[0][index].block = (1, 600_000)
            generous[index].block = (1, 600_000)
            generous[index].keepsBlocks = false
            generous[index].rates[0].count += 1 + variants.below(3)
        }
        scenario.configurations.append(generous)
        for _ in 0..<2 + variants.below(3) {
            let place = variants.below(scenario.operations.count + 1)
            let number = variants.pick([0, scenario.configurations.count - 1])
            scenario.operations.insert(contentsOf: [.reload(number), .look], at: place)
        }
    }

    private mutating func addContexts(to scenario: inout Scenario) {
        for number in scenario.configurations.indices {
            for limit in scenario.configurations[number].indices where variants.chance(40) {
                scenario.configurations[number][limit].context = variants.pick(["a", "b"])
            }
        }
        for index in scenario.operations.indices.reversed() {
            if case .ask(let session, _, let endsTurn) = scenario.operations[index], variants.chance(30) {
                scenario.operations.insert(.ask(session: session, .elsewhere, endsTurn: endsTurn), at: index + 1)
            }
        }
    }

    // MARK: Limits

    private mutating func limits() -> [LimitPlan] {
        (0...random.below(4)).map { limit("limit\($0)") }
    }

    private mutating func limit(_ name: String) -> LimitPlan {
        let count = random.pick([.recipients, .recipients, .recipients, .messages, .bytes, .connections] as [Unit])
        let takesRecipient = count == .recipients || count == .messages
        let attributes: [KeyAttribute] = [.user, .user, .sender, .client] + (takesRecipient ? [.recipient] : [])
        var limit = LimitPlan(name: name, key: random.pick(attributes), count: count, rates: rates(count))
        limit.warnsOnly = random.chance(15)
        limit.isShadow = random.chance(15)
        if random.chance(30) { limit.block = (1 + random.below(5), Int64(10 + random.below(200)) * 1000) }
        limit.countsRefused = random.chance(15)
        if random.chance(20) { limit.exempt = keys(of: limit.key, everyth: 2) }
        if random.chance(20) {
            limit.overrides = keys(of: limit.key, everyth: 3).map { ($0, [overriding(limit)]) }
        }
        return limit
    }

    private mutating func rates(_ count: Unit) -> [PlannedRate] {
        var windows = Self.windows
        return (0...random.below(3)).map { _ in
            PlannedRate(count: amount(count), window: windows.remove(at: random.below(windows.count)))
        }
    }

    private mutating func amount(_ count: Unit) -> Int {
        switch count {
        case .recipients, .messages, .connections: 1 + random.below(12)
        case .bytes: 500 + random.below(8000)
        }
    }

    private mutating func overriding(_ limit: LimitPlan) -> PlannedRate {
        PlannedRate(count: amount(limit.count), window: random.pick(limit.rates).window)
    }

    /// Some of the population's keys.
    private mutating func keys(of attribute: KeyAttribute, everyth: Int) -> [String] {
        let remainder = random.below(everyth)
        return (0..<40).filter { $0 % everyth == remainder && $0 % 3 != 0 }.map { Population.key(attribute, $0) }
    }

    private mutating func changed(_ limits: [LimitPlan]) -> [LimitPlan] {
        var limits = limits
        for index in limits.indices where random.chance(60) {
            switch random.below(7) {
            case 0: limits[index].rates = rates(limits[index].count)
            case 1: limits[index].rates[0].count = amount(limits[index].count)
            case 2: limits[index].isShadow.toggle()
            case 3: limits[index].warnsOnly.toggle()
            case 4: limits[index].block = random.chance(50) ? nil : (1 + random.below(5), 60_000)
            case 5: limits[index].exempt = random.chance(50) ? [] : keys(of: limits[index].key, everyth: 2)
            default: limits[index] = limit(limits[index].name)
            }
        }
        if random.chance(20) { limits.append(limit("limit\(limits.count)")) }
        if random.chance(20), limits.count > 1 { limits.remove(at: random.below(limits.count)) }
        return limits
    }

    // MARK: Operations

    private mutating func operation(_ scenario: Scenario) -> Operation {
        switch random.below(100) {
        case 0..<60: .ask(session: random.below(scenario.sessions), ask(), endsTurn: random.chance(60))
        case 60..<63: .abandon(session: random.below(scenario.sessions))
        case 63..<65: .hangUp(session: random.below(scenario.sessions))
        case 65..<80: .advance(time(scenario))
        case 80..<84: intervention(scenario)
        case 84..<87: .reload(random.below(scenario.configurations.count))
        case 87..<89: .checkpoint
        case 89..<91: .runJob
        case 91..<92: .look
        default: misfortune(scenario.kind)
        }
    }

    private mutating func ask() -> Ask {
        switch random.below(100) {
        case 0..<5: .helo
        case 5..<60: .recipient(random.below(4), isRejected: random.chance(15))
        case 60..<70: .data
        case 70..<88: .end
        default: .again
        }
    }

    private mutating func time(_ scenario: Scenario) -> Int64 {
        let longest: [Int64] =
            scenario.givesBackDropped
            ? [100, 1000, 5000, 20_000] : [100, 1000, 10_000, 60_000, 600_000, 3_600_000, 40_000_000]
        return 1 + Int64(random.below(Int(random.pick(longest))))
    }

    private mutating func intervention(_ scenario: Scenario) -> Operation {
        let limit = random.below(4)
        let seconds = Int64(1 + random.below(600))
        let rate = PlannedRate(count: 1 + random.below(30), window: random.pick(Self.windows))
        // A reset that a loss of power or an error takes back has no bounds that the simulator could check.
        var interventions: [Intervention] = [.block(seconds: seconds), .unblock, .raise(rate, seconds: seconds)]
        if scenario.kind == .kills { interventions.append(.reset) }
        return .intervene(random.pick(interventions), limit: limit, key: random.below(scenario.keys))
    }

    private mutating func misfortune(_ kind: Scenario.Kind) -> Operation {
        let calls = UInt64(1 + random.below(random.chance(50) ? 6 : 80))
        switch kind {
        case .kills: return random.chance(30) ? .restart : .kill(calls: calls)
        case .power:
            if random.chance(20) { return .restart }
            return random.chance(30) ? .kill(calls: calls) : .losePower(calls: calls, seed: random.next())
        case .errors:
            switch random.below(10) {
            case 0..<2: return .restart
            case 2..<4: return .kill(calls: calls)
            case 4..<6: return .repair
            default:
                let count = UInt64(random.chance(50) ? 1 : 1 + random.below(60))
                if random.chance(40) { return .fail(calls: calls, count: count, error: 28, kinds: 7) }
                return .fail(calls: calls, count: count, error: 5, kinds: Int32(1 + random.below(7)))
            }
        case .damage:
            switch random.below(10) {
            case 0..<2: return .restart
            case 2..<4: return .kill(calls: calls)
            case 4..<6: return .losePower(calls: calls, seed: random.next())
            default:
                return .flip(seed: random.next(), part: random.pick(["ledger.sqlite", "segment", "-wal"]))
            }
        }
    }
}

/// The keys of all scenarios. After a loss, a scenario goes on with a new generation.
enum Population {
    static let perGeneration = 3

    static func key(_ attribute: KeyAttribute, _ number: Int) -> String {
        switch attribute {
        case .user: "user\(number)"
        case .sender: "sender\(number)@example.org"
        case .client: "192.0.2.\(number + 1)"
        case .recipient: "recipient\(number)@example.com"
        }
    }
}
