// SPDX-License-Identifier: Apache-2.0
import Limits
import Settings
import Testing

@Suite struct SetupAnswersTests {
    /// All combinations of the answers.
    private static var all: [SetupAnswers] {
        var all: [SetupAnswers] = []
        for subject in SetupAnswers.Subject.allCases {
            for interface in SetupAnswers.ContentInterface.allCases {
                for address in [nil, "postmaster@example.org"] {
                    for day in [nil, "2030-01-31"] {
                        for rates in [SetupAnswers.usualRates, [Rate("7/1h")!]] {
                            var answers = SetupAnswers()
                            (answers.subject, answers.contentInterface) = (subject, interface)
                            (answers.alertAddress, answers.shadowUntil, answers.rates) = (address, day, rates)
                            all.append(answers)
                        }
                    }
                }
            }
        }
        return all
    }

    @Test func everyCombinationIsAConfigurationWithoutWarnings() throws {
        #expect(Self.all.count == 72)
        for answers in Self.all {
            let outcome = try ConfigurationReader.read(Array(answers.yaml.utf8), file: "weir.yaml").get()
            #expect(outcome.warnings.isEmpty)
            #expect(answers.problem == nil)
            let configuration = outcome.configuration
            let limit = try #require(configuration.limits.first)
            #expect(configuration.limits.count == 1)
            #expect(limit.rates == answers.rates)
            #expect((limit.mode == .shadow) == (answers.shadowUntil != nil))
            let condition = answers.subject == .client ? "client_address" : "sasl_username"
            #expect(limit.conditions.map(\.part.name) == [condition])
            let key = [
                SetupAnswers.Subject.login: "sasl_username", .client: "client_address", .domain: "sender_domain",
            ]
            #expect(limit.key.parts.map(\.name) == [key[answers.subject]])
            #expect(configuration.listen.milter.isEmpty == (answers.contentInterface != .milter))
            #expect(configuration.listen.filter.isEmpty == (answers.contentInterface != .filter))
            #expect(configuration.alerts.mail == [answers.alertAddress].compactMap(\.self))
        }
    }

    /// The file that the commands write is the one in docs/operation.md.
    @Test func mailNeedsADropIn() throws {
        let commands = SetupAnswers.commandsForMail(queue: "/var/spool/postfix", group: "postdrop")
        let folder = "/etc/systemd/system/weir.service.d"
        let lines = [
            "[Service]", "SupplementaryGroups=postdrop",
            "ReadWritePaths=/var/spool/postfix/maildrop /var/spool/postfix/public",
            "RestrictAddressFamilies=AF_NETLINK",
        ]
        let words = lines.map { "'\($0)'" }.joined(separator: " ")
        #expect(
            commands == [
                "mkdir -p \(folder)", "printf '%s\\n' \(words) > \(folder)/mail.conf", "systemctl daemon-reload",
            ])
        let manual = try Repository.text("docs/operation.md")
        #expect(manual.contains(lines.map { "    \($0)\n" }.joined()))
    }

    /// Each line of a value has a comment at or above it, and no line is too long for a terminal of 120 columns.
    @Test func everyLineFits() {
        for answers in Self.all {
            for line in answers.yaml.split(separator: "\n") { #expect(line.count <= 120, "\(line)") }
        }
    }

    private static let badAnswers: [([String], String?, String?)] = [
        (["10/1m", "10/1m"], nil, "'10/1m' has the same window as '10/1m'"),
        (["10/1m", "5/1h"], nil, "'10/1m' is never reached: '5/1h' is stricter"),
        ([], nil, "is empty; expected at least one rate, such as 100/1m"),
        (["1/1h"], "-oQ/tmp", nil), (["1/1h"], "a\"], command: /bin/true", nil), (["1/1h"], "a\u{1}@example.org", nil),
    ]

    @Test(arguments: badAnswers)
    func badAnswersHaveAProblem(rates: [String], address: String?, problem: String?) {
        var answers = SetupAnswers()
        answers.rates = rates.map { Rate($0)! }
        answers.alertAddress = address
        #expect(answers.problem != nil)
        if let problem { #expect(answers.problem == problem) }
    }

    @Test(
        arguments: [
            ([nil, nil, nil], ["100/1m", "1000/1h", "5000/1d"]),
            ([40, 300, 900], ["40/1m", "300/1h", "900/1d"]),
            // A quiet log.
            ([2, 2, 2], ["10/1m", "100/1h", "500/1d"]),
            // The suggestion for a minute is reached in no other way than with that for an hour.
            ([800, 300, 900], ["800/1h", "900/1d"]),
            ([6000, 6000, 6000], ["6000/1d"]),
        ] as [([UInt64?], [String])])
    func ratesFromALog(suggested: [UInt64?], rates: [String]) {
        var answers = SetupAnswers()
        answers.rates = SetupAnswers.rates(suggested: suggested)
        #expect(answers.rates.map(\.description) == rates)
        #expect(answers.problem == nil)
    }
}
