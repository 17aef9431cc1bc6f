// SPDX-License-Identifier: Apache-2.0

/// The configuration of a Postfix instance, from postconf(1): main.cf with all defaults, and master.cf.
package struct PostfixSetup: Sendable {
    /// A service of master.cf.
    package struct Service: Sendable {
        package let name: String
        /// `inet`, `unix`, `pass`, `fifo` or `unix-dgram`.
        package let type: String
        /// `y`, `n` or `-`.
        package fileprivate(set) var chroot: String
        /// `smtpd`, `smtp`, `cleanup`, ...
        package let program: String
        /// From `-o name=value`.
        package fileprivate(set) var overrides: [String: String]
        /// The other words of the command line, such as the `argv=` of pipe(8) and what follows it.
        package let arguments: [String]

        /// `submission/inet`, as in postconf -P.
        package var id: String { "\(name)/\(type)" }

        /// Whether it is pipe(8) with `weir filter`.
        var runsWeirFilter: Bool {
            let command = arguments.drop { !$0.hasPrefix("argv=") }.prefix(2)
            return program == "pipe" && command.first?.dropFirst(5).split(separator: "/").last == "weir"
                && command.last == "filter"
        }
    }

    private let defaults: [String: String]
    private var parameters: [String: String]
    /// The names of parameters set in main.cf.
    package private(set) var set: Set<String>
    package private(set) var services: [Service]
    /// The warnings of postconf(1), without repetitions.
    package let complaints: [String]
    /// The paths of main.cf and master.cf, if their last line has no newline: postconf(1) would append to that line.
    var unfinishedFiles: [String] = []

    /// - Parameters:
    ///   - defaults: the output of `postconf -d`.
    ///   - settings: the output of `postconf -n`.
    ///   - master: the output of `postconf -M`.
    ///   - complaints: the lines of their standard error.
    package init(defaults: String, settings: String, master: String, complaints: [String]) {
        let own = Self.parameters(settings)
        self.defaults = Self.parameters(defaults)
        parameters = self.defaults.merging(own) { $1 }
        set = Set(own.keys)
        services = Self.joined(master).compactMap(Self.service)
        var seen: Set<String> = []
        self.complaints = complaints.filter { seen.insert($0).inserted }
    }

    /// The setup after a change.
    mutating func apply(_ change: Change) {
        switch change {
        case .parameter(let name, let value):
            parameters[name] = value
            set.insert(name)
        case .override(let id, let name, let value):
            guard let index = services.firstIndex(where: { $0.id == id }) else { return }
            services[index].overrides[name] = value
        case .service(let line):
            guard let service = Self.service(line) else { return }
            services.removeAll { $0.id == service.id }
            services.append(service)
        case .unchroot(let id):
            guard let index = services.firstIndex(where: { $0.id == id }) else { return }
            services[index].chroot = "n"
        case .removal(let id): services.removeAll { $0.id == id }
        case .file, .newline: break
        }
    }

    // MARK: Values

    /// The value of a parameter in a service, without expansion.
    package func raw(_ name: String, in service: Service? = nil) -> String {
        service?.overrides[name] ?? parameters[name] ?? ""
    }

    /// The value of a parameter in a service, expanded.
    package func value(_ name: String, in service: Service? = nil) -> String {
        expanded(raw(name, in: service), in: service)
    }

    /// The words of a list in a service, expanded.
    func words(_ name: String, in service: Service? = nil) -> [String] {
        RestrictionList.words(value(name, in: service))
    }

    /// Whether a parameter is `yes`, in any case, as Postfix takes it.
    func isOn(_ name: String, in service: Service?) -> Bool { value(name, in: service).lowercased() == "yes" }

    /// Whether this version of Postfix has the parameter.
    func knows(_ name: String) -> Bool { defaults[name] != nil }

    /// The value of a parameter without main.cf, expanded.
    func defaultValue(_ name: String) -> String {
        var plain = self
        plain.parameters = defaults
        return plain.value(name)
    }

    /// The text with all parameters expanded, or unchanged if Postfix can't expand it.
    package func expanded(_ text: String, in service: Service? = nil) -> String {
        (try? expand(text, in: service)) ?? text
    }

    func expand(_ text: String, in service: Service? = nil) throws(ParameterExpansion.Fault) -> String {
        try ParameterExpansion { raw($0, in: service) }.expand(text)
    }

    /// The parts of a parameter's value that depend on another parameter, such as `${stress?{10}:{300}}`; also those of
    /// the parameters that it names. Postfix's defaults have none that could be lost.
    func conditions(of name: String, in service: Service?) -> [String] {
        var (found, seen, pending): ([String], Set<String>, [String]) = ([], [name], [name])
        while let name = pending.popLast() {
            guard service?.overrides[name] != nil || set.contains(name) else { continue }
            for reference in ParameterExpansion.references(in: raw(name, in: service)) {
                switch reference {
                case .condition(let text): found.append(text)
                case .parameter(let name): if seen.insert(name).inserted { pending.append(name) }
                }
            }
        }
        return found
    }

    /// The text between the opening bracket, with which `text` must start, and its closing bracket; and the text after
    /// it.
    static func enclosed(_ text: Substring, _ open: Character, _ close: Character) -> (Substring, after: Substring)? {
        guard text.first == open else { return nil }
        var depth = 0
        for index in text.indices {
            if text[index] == open { depth += 1 }
            if text[index] == close { depth -= 1 }
            if depth == 0 {
                return (text[text.index(after: text.startIndex)..<index], text[text.index(after: index)...])
            }
        }
        return nil
    }

    // MARK: Parsing

    /// Lines of `name = value`.
    private static func parameters(_ text: String) -> [String: String] {
        var parameters: [String: String] = [:]
        for line in joined(text) {
            guard let equals = line.firstIndex(of: "=") else { continue }
            parameters[line[..<equals].trimmed] = line[line.index(after: equals)...].trimmed
        }
        return parameters
    }

    /// Joins lines that start with a space or tab to the previous one. Comments and empty lines between them are
    /// ignored.
    static func joined(_ text: String) -> [String] {
        var lines: [String] = []
        for line in text.split(whereSeparator: \.endsLine) where !line.trimmed.isEmpty && line.trimmed.first != "#" {
            if let first = line.first, first == " " || first == "\t", !lines.isEmpty {
                lines[lines.count - 1] += " " + line.trimmed
            } else {
                lines.append(String(line))
            }
        }
        return lines
    }

    private static func service(_ line: String) -> Service? {
        let words = RestrictionList.words(line, separators: " \t")
        guard words.count >= 8 else { return nil }
        var overrides: [String: String] = [:]
        var arguments: [String] = []
        var rest = words[8...]
        while let word = rest.popFirst() {
            guard word.hasPrefix("-o"), arguments.isEmpty else {
                arguments.append(word)
                continue
            }
            let argument = word == "-o" ? rest.popFirst() ?? "" : String(word.dropFirst(2))
            let text = argument.first == "{" ? String(argument.dropFirst().dropLast()) : argument
            guard let equals = text.firstIndex(of: "=") else { continue }
            overrides[text[..<equals].trimmed] = text[text.index(after: equals)...].trimmed
        }
        return Service(
            name: words[0], type: words[1], chroot: words[4], program: words[7], overrides: overrides,
            arguments: arguments)
    }
}

extension Character {
    /// A line of main.cf ends with LF, or CR LF. A form feed and the like are part of it.
    var endsLine: Bool { self == "\n" || self == "\r\n" }
}

extension StringProtocol {
    /// Without spaces and tabs at its beginning and end.
    var trimmed: String {
        let scalars = unicodeScalars
        guard let first = scalars.firstIndex(where: { $0 != " " && $0 != "\t" }),
            let last = scalars.lastIndex(where: { $0 != " " && $0 != "\t" })
        else { return "" }
        return String(self[first..<scalars.index(after: last)])
    }
}
