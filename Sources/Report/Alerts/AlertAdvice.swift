// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
package import Settings

/// What an operator can do about an alert: commands for the mail server's shell, and the page.
package struct AlertAdvice: Sendable {
    private let configurationPath: String
    private let pageTunnel: PageTunnel

    package init(configurationPath: String, _ configuration: Configuration) {
        self.configurationPath = configurationPath
        pageTunnel = PageTunnel(configuration)
    }

    /// - Returns: the commands in the order in which to use them: first what shows more, then what changes something.
    func commands(for tier: Alert.Tier, limit: String, mode: String, key: String) -> [String] {
        let verbs =
            switch tier {
            // A limit in shadow mode has blocked nothing.
            case .block where mode != "shadow": ["show", "unblock"]
            case .warn, .over, .block: ["show", "block"]
            case .trouble, .recovery, .test: [] as [String]
            }
        return verbs.map { verb in
            command("limits \(verb)") + " --limit \(ShellWord.quoted(limit)) \(ShellWord.argument(key))"
        }
    }

    /// Says what is wrong with weir.yaml.
    var checkCommand: String { command("check-config") }
    /// Says what is wrong with the running service.
    var healthCommand: String { command("check-health") }

    private func command(_ name: String) -> String {
        let isUsual = configurationPath == Configuration.defaultPath
        return "weir \(name)" + (isUsual ? "" : " --config \(ShellWord.quoted(configurationPath))")
    }

    /// The address of the page; with a key, that of the key's page. It works on the operator's machine after `tunnel`.
    func page(ofKey key: String? = nil) -> String {
        "http://127.0.0.1:\(pageTunnel.port)/" + (key.map { "#key=\(Self.encoded($0))" } ?? "")
    }

    /// The ssh(1) command that makes the page reachable from the operator's machine.
    func tunnel(to host: String) -> String {
        "ssh -L \(ShellWord.quoted(pageTunnel.forwarding)) \(ShellWord.quoted(host))"
    }

    /// As JavaScript's encodeURIComponent.
    private static func encoded(_ text: String) -> String {
        text.utf8.map { byte in
            if byte.isAlphanumeric || "-_.!~*'()".utf8.contains(byte) { return String(UnicodeScalar(byte)) }
            let digits = String(byte, radix: 16, uppercase: true)
            return "%" + (byte < 16 ? "0" : "") + digits
        }
        .joined()
    }
}
