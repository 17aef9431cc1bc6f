// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Foundation
internal import Limits
internal import Report

extension Target {
    /// A message that can be read can be written, and reads the same. So does a rate.
    ///
    /// The input is the body of a request, the text of a rate and the name of a key.
    static let admin = Target(name: "admin") { input in
        let data = Data(input)
        check(AdminMessages.Intervention.self, data) { message in
            for text in message.rates ?? [] { check(rate: text) }
        }
        check(AdminMessages.Probe.self, data) { _ in }
        check(AdminMessages.Status.self, data) { _ in }
        check([KeyStanding].self, data) { _ in }
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
