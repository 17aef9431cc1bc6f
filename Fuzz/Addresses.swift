// SPDX-License-Identifier: Apache-2.0
internal import Limits
internal import MailSyntax

extension Target {
    /// A repaired address needs no repair, and neither does a repaired header. Canonical forms of addresses, IP
    /// addresses and networks are their own canonical forms.
    ///
    /// The first byte chooses repairs; the rest is an argument of MAIL or RCPT, and the value of a header.
    static let addresses = Target(name: "addresses") { input in
        var choices = Choices(input)
        let repairs = AddressRepairs(rawValue: UInt16(choices.byte()) << 8 | UInt16(choices.byte()))
        let text = Array(choices.rest)
        for repairs in [repairs, AddressRepairs(AddressRepair.allCases)] { checkRepair(of: text, repairs) }
        checkHeader(text)
        checkForms(of: text)
        checkNetworks(text)
    }
}

private func checkRepair(of argument: [UInt8], _ repairs: AddressRepairs) {
    var repairer = AddressRepairer(repairs)
    repairer.hostName = Array("mx.example.org".utf8)
    repairer.hostAddress = Array("192.0.2.25".utf8)
    guard case .repaired(let new, let made) = repairer.repair(argument) else { return }
    precondition(new != argument && !made.isEmpty)
    precondition(made.isSubset(of: repairs))
    // One route may hide behind another, or behind needless quotes.
    let routes = AddressRepairs([.percentRoute, .bangRoute])
    if case .repaired(_, let more) = repairer.repair(new) {
        precondition(!made.isDisjoint(with: routes) || more.isSubset(of: routes))
    } else if made.isDisjoint(with: routes) {
        precondition(repairer.repair(new) == .unchanged)
    }
    let internalForm = EnvelopeAddress.internalForm(of: new)
    precondition(EnvelopeAddress.argument(internalForm) == new)
}

private func checkHeader(_ value: [UInt8]) {
    let repairer = HeaderRepairer(.inHeaders)
    let changes = repairer.changes(in: value[...])
    var (new, end): ([UInt8], Int) = ([], 0)
    for change in changes {
        precondition(
            change.range.lowerBound >= end && change.range.upperBound <= value.count && !change.repairs.isEmpty)
        new += value[end..<change.range.lowerBound] + change.new
        end = change.range.upperBound
    }
    new += value[end...]
    if !changes.isEmpty { precondition(repairer.changes(in: new[...]).isEmpty) }
}

private func checkForms(of text: [UInt8]) {
    let canonical = text.withUnsafeBytes { CanonicalAddress($0) }
    let bytes = canonical.bytes
    // A text in brackets would be read as an external form.
    guard !(bytes.first == UInt8(ascii: "<") && bytes.last == UInt8(ascii: ">")) else { return }
    precondition(bytes.withUnsafeBytes { CanonicalAddress($0) } == canonical)
}

private func checkNetworks(_ text: [UInt8]) {
    if let address = IPAddress(text) {
        var written: [UInt8] = []
        address.append(to: &written)
        precondition(IPAddress(written) == address)
        for length in 0...address.bits { precondition(address.prefix(length).prefix(length) == address.prefix(length)) }
    }
    guard let network = Network(text) else { return }
    precondition(Network(network.description) == network && network.contains(network.address))
    precondition(network.subtracting(network).isEmpty)
}
