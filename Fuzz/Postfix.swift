// SPDX-License-Identifier: Apache-2.0
internal import Advisor
internal import Filter
internal import Settings

extension Target {
    /// The doctor must come to an end with any main.cf and master.cf, and to the same findings again.
    ///
    /// Three texts, each ended by 0xff: the output of `postconf -d`, `postconf -n` and `postconf -M`.
    static let postfix = Target(name: "postfix") { input in
        var texts = input.split(separator: 0xff, maxSplits: 2, omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
        while texts.count < 3 { texts.append("") }
        let setup = PostfixSetup(
            defaults: texts[0], settings: texts[1], master: texts[2], complaints: ["postconf: warning: x"])
        for name in setup.set { _ = setup.value(name) }
        let findings = Examination.findings(
            in: setup, configuration: outcome.configuration, rules: outcome.rules, directory: nil)
        precondition(findings.allSatisfy { !$0.text.isEmpty && !$0.kind.isEmpty })
        let again = Examination.findings(
            in: setup, configuration: outcome.configuration, rules: outcome.rules, directory: nil)
        precondition(findings == again)
        _ = Examination.stages(in: setup, configuration: outcome.configuration, rules: outcome.rules)
    }
}

private let outcome: ConfigurationReader.Outcome = {
    let text = """
        listen:
          policy: inet:127.0.0.1:10040
          milter: inet:127.0.0.1:10041
          filter: [{ listen: "inet:127.0.0.1:10025", next_hop: "inet:127.0.0.1:10026" }]
        limits:
          - { name: sender, key: [sender], count: recipients, rates: [5/1m] }
        """
    guard case .success(let outcome) = ConfigurationReader.read(Array(text.utf8), file: "weir.yaml") else {
        preconditionFailure("the configuration is not valid")
    }
    return outcome
}()
