// SPDX-License-Identifier: Apache-2.0
import AdminAPI
import ArgumentParser
import Limits
import NIOCore
import Report
import Settings

/// What the shell offers for an argument. The shell calls `weir ---completion` for it at each press of the Tab key.
enum Completions {
    /// The names of the limits in the configuration.
    static let limits = CompletionKind.custom { words, _, _ in
        configuration(named: words).limits.map(\.name)
    }

    /// The hosts of the configuration.
    static let hosts = CompletionKind.custom { words, _, _ in
        configuration(named: words).shared.hosts
    }

    /// The fullest keys of the running service; none if it doesn't answer soon, or not to this user.
    static let keys = CompletionKind.custom { words, _, _ async -> [String] in
        let client = AdminClient(configuration(named: words), timeout: .seconds(1))
        let standings = (try? await client.fullest(mostKeys, limit: value(of: "--limit", in: words))) ?? []
        // Not every shell keeps a word with a control character in one piece.
        return Array(Set(standings.map(\.key))).filter { !$0.contains(where: \.isNewline) }.sorted()
    }

    private static let mostKeys = 200

    /// What can be read of the file in `--config`, or of the default file. Its faults do not matter here.
    private static func configuration(named words: [String]) -> Configuration {
        switch ConfigurationReader.read(path: value(of: "--config", in: words) ?? ConfigurationOptions.defaultPath) {
        case .success(let outcome): outcome.configuration
        case .failure(let faults): faults.readable ?? Configuration()
        }
    }

    /// `--option VALUE` or `--option=VALUE`
    private static func value(of option: String, in words: [String]) -> String? {
        for (index, word) in words.enumerated() {
            if word == option { return words.dropFirst(index + 1).first }
            if word.hasPrefix("\(option)=") { return String(word.dropFirst(option.count + 1)) }
        }
        return nil
    }
}
