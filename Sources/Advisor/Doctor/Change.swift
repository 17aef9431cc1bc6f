// SPDX-License-Identifier: Apache-2.0

/// An edit of main.cf or master.cf that the doctor proposes, as a postconf(1) command; or a file that they need.
enum Change: Equatable {
    /// A parameter of main.cf.
    case parameter(String, value: String)
    /// `-o name=value` of a service, named as in `submission/inet`. Without spaces.
    case override(service: String, String, value: String)
    /// A line of master.cf.
    case service(String)
    /// Runs a service of master.cf outside the queue directory's chroot.
    case unchroot(service: String)
    /// Removes a service from master.cf.
    case removal(service: String)
    /// Puts a file of the package where a service looks for it.
    case file(String, copyOf: String)
    /// Ends the last line of main.cf or master.cf, to which postconf(1) would append.
    case newline(String)

    /// The parameter that it sets, and the service if it is for one; nil for another change.
    var parameter: (name: String, service: String?)? {
        switch self {
        case .parameter(let name, _): (name, nil)
        case .override(let service, let name, _): (name, service)
        case .service, .unchroot, .removal, .file, .newline: nil
        }
    }

    /// - Parameter directory: of main.cf and master.cf; nil for the system's instance.
    func command(directory: String?) -> String {
        let option = directory.map { " -c \(Self.quoted($0))" } ?? ""
        return switch self {
        case .parameter(let name, let value): "postconf\(option) -e \(Self.quoted("\(name)=\(value)"))"
        case .override(let service, let name, let value):
            "postconf\(option) -P \(Self.quoted("\(service)/\(name)=\(value)"))"
        case .service(let line): "postconf\(option) -M \(Self.quoted("\(Self.id(ofLine: line))=\(line)"))"
        case .unchroot(let service): "postconf\(option) -F \(Self.quoted("\(service)/chroot=n"))"
        case .removal(let service): "postconf\(option) -MX \(Self.quoted(service))"
        case .newline(let path): "echo >> \(Self.quoted(path))"
        case .file(let path, let original): "install -D -m 644 \(Self.quoted(original)) \(Self.quoted(path))"
        }
    }

    private static func id(ofLine line: String) -> String {
        line.split(separator: " ").prefix(2).joined(separator: "/")
    }

    private static func quoted(_ text: String) -> String {
        text.contains { !$0.isLetter && !$0.isNumber && !"/._-".contains($0) }
            ? "'\(text.replacing("'", with: "'\\''"))'" : text
    }
}
