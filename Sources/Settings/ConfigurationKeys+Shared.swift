// SPDX-License-Identifier: Apache-2.0
internal import Sharing

extension ConfigurationKeys {
    /// Limits that several hosts hold together.
    static func shared(in defaults: Configuration) -> [ConfigurationKey<Configuration>] {
        [
            .init(
                "shared.engine", \.shared.engine, .optional(.engine),
                .isNothing(example: "\"redis://127.0.0.1:6379/0\""),
                "Valkey or Redis (7.0 or newer) through which several hosts hold the limits together; see shared.md."),
            .init(
                "shared.name", \.shared.name, .optional(.sharedHost), .isNothing(example: "mx1"),
                "The name of this host in shared.hosts; each host has its own."),
            .init(
                "shared.hosts", \.shared.hosts, .list(of: .sharedHost), in: defaults,
                "All hosts that hold the limits together, the same list on each of them."),
            .init(
                "shared.user", \.shared.user, .optional(.account), .isNothing(example: "weir"),
                "User of the engine; without it, Weir logs in as the default user."),
            .init(
                "shared.password", \.shared.password, .optional(.secret), .isNothing(example: "\"secret\""),
                "Password of the user; better in a file, because others may read weir.yaml."),
            .init(
                "shared.password_file", \.shared.passwordFile, .optional(.path),
                .isNothing(example: "/etc/weir/engine-password"),
                "File whose first line is the password of the user."),
            .init(
                "shared.sentinel_password_file", \.shared.sentinelPasswordFile, .optional(.path),
                .isNothing(example: "/etc/weir/sentinel-password"),
                "File whose first line is the password of Sentinel, if that requires one."),
            .init(
                "shared.share", \.shared.share, .number(0...100), in: defaults,
                "Percentage of each limit that is divided equally among the hosts; a host uses its share without "
                    + "asking the engine, and has only its share while it can't reach the engine."),
            .init(
                "shared.timeout", \.shared.timeout, .number(1...5000, of: "milliseconds"), in: defaults,
                "Maximum time for which a request waits for the engine; then it is refused as over the limit."),
            .init(
                "shared.on_cut_off", \.shared.onCutOff, .word, in: defaults,
                "What a host admits while it can't reach the engine: its share of each limit (share), or all of each "
                    + "limit (open), which all hosts together can then exceed."),
        ]
    }
}
