// SPDX-License-Identifier: Apache-2.0
internal import Advisor
internal import Settings

extension Target {
    /// The doctor must come to an end with any main.cf and master.cf, and to the same findings again.
    ///
    /// The first byte chooses the weir.yaml. The output of `postconf -n` follows, ended by 0xff, and then that of
    /// `postconf -M`.
    static let postfix = Target(name: "postfix") { input in
        var choices = Choices(input)
        let outcome = outcomes[Int(choices.byte()) % outcomes.count]
        let texts = choices.rest.split(separator: 0xff, maxSplits: 1, omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
        let setup = PostfixSetup(
            defaults: defaults, settings: texts[0], master: texts.count > 1 ? texts[1] : "",
            complaints: ["postconf: warning: x"])
        for name in setup.set { _ = setup.value(name) }
        let findings = Examination.findings(
            in: setup, configuration: outcome.configuration, rules: outcome.rules, directory: nil)
        precondition(findings.allSatisfy { !$0.text.isEmpty && !$0.kind.isEmpty })
        let again = Examination.findings(
            in: setup, configuration: outcome.configuration, rules: outcome.rules, directory: nil)
        precondition(findings == again)
        _ = Examination.stages(in: setup, configuration: outcome.configuration, rules: outcome.rules)
        _ = Examination.limitsCanApply(in: setup, configuration: outcome.configuration, rules: outcome.rules)
    }
}

/// Of `postconf -d`: the parameters at which most examinations look.
private let defaults = """
    cleanup_service_name = cleanup
    compatibility_level = 0
    inet_interfaces = all
    mail_version = 3.7.11
    milter_content_timeout = 300s
    milter_default_action = tempfail
    mynetworks = ${{$compatibility_level} <level {2} ? {subnet} : {host}}
    queue_directory = /var/spool/postfix
    smtpd_client_event_limit_exceptions = ${smtpd_client_connection_limit_exceptions:$mynetworks}
    smtpd_delay_reject = yes
    smtpd_hard_error_limit = ${stress?{1}:{20}}
    smtpd_policy_service_default_action = 451 4.3.5 Server configuration problem
    smtpd_policy_service_timeout = 100s
    smtpd_proxy_timeout = 100s
    smtpd_relay_restrictions = ${{$compatibility_level} <level {1} ? {} : {permit_mynetworks, defer_unauth_destination}}
    smtpd_timeout = ${stress?{10}:{300}}s

    """

private let outcomes: [ConfigurationReader.Outcome] = [
    """
    listen:
      policy: inet:127.0.0.1:10040
      milter: inet:127.0.0.1:10041
      filter: [{ listen: "inet:127.0.0.1:10025", next_hop: "inet:127.0.0.1:10026" }]
    limits:
      - { name: sender, key: [sender], count: recipients, rates: [5/1m] }
    """,
    """
    listen: { policy: "unix:/var/spool/postfix/private/weir" }
    give_back_dropped: yes
    limits:
      - name: user
        when: { policy_context: submission, sasl_username: present }
        key: [sasl_username]
        rates: [100/1h]
      - { name: volume, key: [client_address], count: bytes, rates: [1G/1d] }
    """,
    """
    listen:
      milter: unix:/var/spool/postfix/weir/milter
      filter: [{ listen: "inet:127.0.0.1:10025", next_hop: "inet:[::1]:10026", mode: before_queue }]
    checks: { message_budget: 200s }
    limits:
      - { name: client, key: [client_address], count: connections, rates: [10/1m] }
    """,
    """
    listen:
      filter:
        - { listen: "inet:192.0.2.5:10025", next_hop: "lmtp:127.0.0.1:10026", networks: [192.0.2.0/24] }
        - { listen: "inet:127.0.0.1:10027", next_hop: "lmtp:unix:/run/lmtp", protocol: lmtp }
    """,
].map { text in
    switch ConfigurationReader.read(Array(text.utf8), file: "weir.yaml") {
    case .success(let outcome): return outcome
    case .failure(let faults): preconditionFailure(faults.description)
    }
}
