// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Foundation
internal import Glibc
internal import Limits
internal import Report

extension Target {
    /// A message that can be read can be written, and reads the same. So does a rate.
    ///
    /// The input is the body of a request or an answer, and the text of a rate. Its first line is a pattern, the rest
    /// is a key.
    static let admin = Target(name: "admin") { input in
        let data = Data(input)
        check(AdminMessages.Intervention.self, data) { message in
            for text in message.rates ?? [] { check(rate: text) }
        }
        check(AdminMessages.SelectionIntervention.self, data) { message in
            if let match = message.match { check(pattern: Array(match.utf8), key: Array((message.reason ?? "").utf8)) }
        }
        check(AdminMessages.Probe.self, data) { _ in }
        check(AdminMessages.Status.self, data) { _ in }
        check(AdminMessages.Failure.self, data) { _ in }
        check(AdminMessages.Protections.self, data) { _ = $0.summary }
        check([KeyStanding].self, data) { _ in }
        _ = try? JSONDecoder().decode(AdminMessages.Snapshot.self, from: data)
        let lines = input.split(separator: UInt8(ascii: "\n"), maxSplits: 1, omittingEmptySubsequences: false)
        check(pattern: Array(lines[0]), key: lines.count > 1 ? Array(lines[1]) : [])
        check(rate: String(decoding: input, as: UTF8.self))
    }
}

private func check<Message: Codable & Equatable>(_ type: Message.Type, _ data: Data, _ body: (Message) -> Void) {
    guard let message = try? JSONDecoder().decode(type, from: data) else { return }
    guard let written = try? JSONEncoder().encode(message), let again = try? JSONDecoder().decode(type, from: written)
    else { preconditionFailure("can't be written") }
    precondition(message == again)
    body(message)
}

private func check(rate text: String) {
    guard let rate = Rate(text) else { return }
    precondition(Rate(rate.description) == rate, text)
}

/// A key matches itself where every byte is escaped. Of ASCII without sets, fnmatch(3) must find the same.
private func check(pattern: [UInt8], key: [UInt8]) {
    let escaped = key.prefix(KeyPattern.longest / 2).flatMap { [UInt8(ascii: "\\"), $0] }
    // Only if the text is UTF-8: others become U+FFFD.
    if let text = String(validating: escaped, as: UTF8.self), let itself = KeyPattern(text) {
        precondition(itself.matches(Array(key.prefix(KeyPattern.longest / 2))))
    }
    guard let compiled = KeyPattern(String(decoding: pattern, as: UTF8.self)) else { return }
    let isMatch = compiled.matches(key)
    let isPlain = { (byte: UInt8) in 1..<0x80 ~= byte }
    guard key.count <= 64, pattern.allSatisfy(isPlain), key.allSatisfy(isPlain), !pattern.contains(UInt8(ascii: "["))
    else { return }
    let lowercased = { (bytes: [UInt8]) in String(decoding: bytes, as: UTF8.self).lowercased() }
    precondition(isMatch == (fnmatch(lowercased(pattern), lowercased(key), 0) == 0))
}
