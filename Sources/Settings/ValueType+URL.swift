// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import MailSyntax

extension ValueType where Value == String {
    /// The URL of a web service often contains a secret, so no message quotes it.
    static let url = ValueType.text(webURL, write: { "\"\($0)\"" }) { text in
        isWebURL(text)
            ? .value(text)
            : .fault("the value is not a URL (not shown, because it may hold a secret); expected \(webURL)")
    }

    private static let webURL = "http://host/path or https://host/path"

    /// `http` or `https`, a host, an optional user and port, and anything printable after them (RFC 3986 3).
    private static func isWebURL(_ text: String) -> Bool {
        guard text.utf8.allSatisfy({ 0x21...0x7e ~= $0 && $0 != UInt8(ascii: "\"") }),
            let scheme = ["http://", "https://"].first(where: text.hasPrefix)
        else { return false }
        let authority = text.dropFirst(scheme.count).prefix { !"/?#".contains($0) }
        // What precedes the last "@" is a user name and password.
        let hostStart = authority.lastIndex(of: "@").map(authority.index(after:)) ?? authority.startIndex
        let hostAndPort = authority[hostStart...]
        let hostEnd: Substring.Index
        if hostAndPort.first == "[" {
            guard let bracket = hostAndPort.firstIndex(of: "]") else { return false }
            let address = hostAndPort[..<bracket].dropFirst()
            guard address.allSatisfy({ $0.isHexDigit || $0 == ":" || $0 == "." }), address.contains(":"),
                IPAddress(String(address)) != nil
            else { return false }
            hostEnd = hostAndPort.index(after: bracket)
        } else {
            hostEnd = hostAndPort.firstIndex(of: ":") ?? hostAndPort.endIndex
            let labels = hostAndPort[..<hostEnd].split(separator: ".", omittingEmptySubsequences: false)
            // A final dot marks an absolute name.
            guard (labels.count > 1 && labels.last == "" ? labels.dropLast() : labels[...]).allSatisfy(isHostLabel)
            else { return false }
        }
        let port = hostAndPort[hostEnd...]
        return port.isEmpty || (port.first == ":" && isPort(port.dropFirst()))
    }

    private static func isHostLabel(_ label: Substring) -> Bool {
        (1...63).contains(label.utf8.count)
            && label.utf8.allSatisfy { $0.isAlphanumeric || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_") }
    }

    private static func isPort(_ text: Substring) -> Bool {
        text.utf8.allSatisfy(\.isAlphanumeric) && Int(text).map { 1...65_535 ~= $0 } ?? false
    }
}
