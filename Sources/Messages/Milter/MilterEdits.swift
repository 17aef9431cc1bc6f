// SPDX-License-Identifier: Apache-2.0
package import Filter
internal import MailSyntax
package import NIOCore
internal import Rules
internal import Wire

/// The headers of a message as the milter protocol counts them: by name, and by position.
package struct MilterHeaders {
    private var names: [UInt8] = []
    private var ends: [Int] = []
    /// The position of each among all headers that the MTA has sent, from 0.
    private var positions: [Int] = []
    private var sent = 0

    private static let most = 65_536
    private static let mostBytes = 1 << 20

    package init() {}

    /// Adds a header that edits may name. Headers beyond the bounds can't be named.
    package mutating func append(_ name: UnsafeRawBufferPointer) {
        defer { sent += 1 }
        guard ends.count < Self.most, names.count + name.count <= Self.mostBytes else { return }
        for byte in name { names.append(byte &- UInt8(ascii: "A") < 26 ? byte | 0x20 : byte) }
        ends.append(names.count)
        positions.append(sent)
    }

    var isEmpty: Bool { sent == 0 }

    /// Counts a header that no edit names.
    package mutating func skip() { sent += 1 }

    func position(_ ordinal: Int) -> Int { positions[ordinal] }

    func has(_ ordinal: Int) -> Bool { ends.indices.contains(ordinal) }

    /// In lower case.
    func name(_ ordinal: Int) -> ArraySlice<UInt8> { names[(ordinal == 0 ? 0 : ends[ordinal - 1])..<ends[ordinal]] }

    /// For each of the first `count` headers its number among the headers of the same name, from 1.
    func numbers(upTo count: Int) -> [Int] {
        var found: [ArraySlice<UInt8>: Int] = [:]
        return (0..<count).map { ordinal in
            let name = name(ordinal)
            let number = found[name, default: 0] + 1
            found[name] = number
            return number
        }
    }
}

/// The edits of a verdict as milter replies.
package struct MilterEdits {
    private let verdict: Verdict
    private let headerEdits: [Edit]
    /// Edits of the body, by its own offsets.
    let bodyEdits: [Edit]
    /// With brackets, exactly as RCPT named them.
    private let recipients: [[UInt8]]
    /// The parameters of RCPT, separated by spaces, for each of `recipients`.
    private let parameters: [[UInt8]]
    /// Whether the MTA takes parameters for an added recipient.
    private let takesParameters: Bool
    /// The new arguments of RCPT, by their index in `recipients`.
    var repairedRecipients: [Int: [UInt8]] = [:]
    var repairedSender: [UInt8]?
    /// The reason of a limit. It takes precedence over that of a rule.
    var holdReason: [UInt8]?
    var prepended: [(name: [UInt8], value: [UInt8])] = []
    var appended: [NewHeader] = []

    /// - Parameter bodyStart: the offset of the body in the ranges of the verdict.
    package init(
        verdict: Verdict, bodyStart: Int, recipients: [[UInt8]], parameters: [[UInt8]], takesParameters: Bool
    ) {
        self.verdict = verdict
        self.recipients = recipients
        self.parameters = parameters
        self.takesParameters = takesParameters
        headerEdits = verdict.edits.filter { $0.header != nil }
        bodyEdits = verdict.edits.compactMap { edit in
            guard edit.header == nil, edit.range.lowerBound >= bodyStart else { return nil }
            var edit = edit
            edit.range = edit.range.lowerBound - bodyStart..<edit.range.upperBound - bodyStart
            return edit
        }
    }

    /// The actions that the MTA must have granted.
    var actions: MilterActions {
        var actions = MilterActions()
        if !headerEdits.isEmpty { actions.insert(.changeHeaders) }
        if !prepended.isEmpty || !appended.isEmpty || headerEdits.contains(where: { !$0.replacement.isEmpty }) {
            actions.insert(.addHeaders)
        }
        if !bodyEdits.isEmpty { actions.insert(.changeBody) }
        for effect in verdict.effects {
            switch effect {
            case .hold: actions.insert(.quarantine)
            // Such a message is deferred before its edits matter.
            case .filter: break
            case .redirect: actions.formUnion([.addRecipients, .deleteRecipients])
            case .bcc: actions.insert(.addRecipients)
            }
        }
        if holdReason != nil { actions.insert(.quarantine) }
        if !repairedRecipients.isEmpty { actions.formUnion([.addRecipients, .deleteRecipients]) }
        if repairedSender != nil { actions.insert(.changeSender) }
        return actions
    }

    /// Postfix's cleanup panics at about 10,000 of them, and master(8) restarts it only after a delay.
    private static let mostHeaderEdits = 4_000

    /// Whether all headers to change can be named, and are not too many.
    func canName(_ headers: MilterHeaders) -> Bool {
        let edits = headerEdits
        return edits.count <= Self.mostHeaderEdits && edits.allSatisfy { headers.has($0.header!) }
    }

    /// Writes all edits but the new body.
    ///
    /// - Parameter headersAhead: how many headers the MTA counts before the first one that it has sent, when it inserts
    ///   one: see `MilterMacros.headersAhead`.
    package func write(
        to output: inout ByteBuffer, headers: MilterHeaders, headersAhead: Int = 1, hasLeadingSpace: Bool
    ) {
        let numbers = headers.numbers(upTo: (headerEdits.last?.header ?? -1) + 1)
        // From the last to the first, so that no edit moves a header that a later edit names.
        for edit in headerEdits.reversed() {
            guard let ordinal = edit.header else { continue }
            write(
                edit, headersAhead + headers.position(ordinal), headers.name(ordinal), numbers[ordinal], to: &output,
                hasLeadingSpace)
        }
        for (name, value) in prepended.reversed() {
            output.writeMilterInsert(header: name, at: 0, value: Self.value(value[...], hasLeadingSpace))
        }
        for header in appended {
            let value = hasLeadingSpace ? [UInt8(ascii: " ")] + header.value : header.value
            output.writeMilterAdd(header: header.name, value: value)
        }
        if let repairedSender { output.writeMilterChange(sender: repairedSender) }
        switch verdict.recipients {
        case .redirect(let redirect):
            var redirected = RedirectedRecipient()
            for (recipient, parameters) in zip(recipients, parameters) {
                Self.delete(recipient, from: &output)
                redirected.add(EnvelopeAddress.internalForm(of: recipient), parameters)
            }
            add(Self.bracketed(redirect), redirected.parameters, to: &output)
        case .envelope(let copies):
            for (index, new) in repairedRecipients.sorted(by: { $0.key < $1.key }) {
                Self.delete(recipients[index], from: &output)
                add(new, parameters[index], to: &output)
            }
            // As in Postfix, the sender gets no bounce for a copy.
            for address in copies { add(Self.bracketed(address), Array("NOTIFY=NEVER".utf8), to: &output) }
        }
        if let holdReason {
            output.writeMilterQuarantine(holdReason)
        } else if let reason = verdict.holdReason {
            output.writeMilterQuarantine(reason.isEmpty ? Array("header or body check".utf8) : reason)
        }
    }

    private func add(_ recipient: [UInt8], _ parameters: [UInt8], to output: inout ByteBuffer) {
        if takesParameters, !parameters.isEmpty {
            output.writeMilterAdd(recipient: recipient, parameters: parameters)
        } else {
            output.writeMilterAdd(recipient: recipient)
        }
    }

    /// Sendmail finds a recipient as RCPT named it, Postfix as it has read that argument.
    private static func delete(_ recipient: [UInt8], from output: inout ByteBuffer) {
        output.writeMilterDelete(recipient: recipient)
        let argument = EnvelopeAddress.argument(EnvelopeAddress.internalForm(of: recipient))
        if argument != recipient { output.writeMilterDelete(recipient: argument) }
    }

    private func write(
        _ edit: Edit, _ position: Int, _ name: ArraySlice<UInt8>, _ number: Int, to output: inout ByteBuffer,
        _ hasLeadingSpace: Bool
    ) {
        guard !edit.replacement.isEmpty else {
            return output.writeMilterChange(header: name, number, to: [])
        }
        let newName = edit.replacement.prefix { $0 != UInt8(ascii: ":") }
        let value = Self.value(Self.withoutLineEnd(edit.replacement[newName.endIndex...].dropFirst()), hasLeadingSpace)
        if !edit.range.isEmpty, newName.count == name.count,
            newName.map({ $0 &- UInt8(ascii: "A") < 26 ? $0 | 0x20 : $0 }) == Array(name),
            !value.isEmpty
        {
            return output.writeMilterChange(header: newName, number, to: value)
        }
        if !edit.range.isEmpty { output.writeMilterChange(header: name, number, to: []) }
        output.writeMilterInsert(header: newName, at: position, value: value)
    }

    private static func withoutLineEnd(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        text.last == 0x0a ? text.dropLast() : text
    }

    /// The text after the colon. Without `leadingSpace`, the MTA adds the space itself.
    private static func value(_ text: ArraySlice<UInt8>, _ hasLeadingSpace: Bool) -> ArraySlice<UInt8> {
        !hasLeadingSpace && text.first == UInt8(ascii: " ") ? text.dropFirst() : text
    }

    private static func bracketed(_ address: [UInt8]) -> [UInt8] {
        address.first == UInt8(ascii: "<") ? address : [UInt8(ascii: "<")] + address + [UInt8(ascii: ">")]
    }
}

extension MilterEdits {
    /// The edits of rules and limits together.
    init(_ judgement: MilterJudgement, _ transaction: MilterTransaction) {
        let (effects, granted) = (transaction.effects, transaction.terms.actions)
        var verdict = judgement.verdict
        if let redirect = effects.redirect, !verdict.isRedirected { verdict.add(.redirect(redirect)) }
        for address in effects.bcc where !verdict.effects.contains(.bcc(address)) { verdict.add(.bcc(address)) }
        // Without permission to change the body, changes that no rule asks for are omitted.
        if !granted.contains(.changeBody) { verdict.edits.removeAll { $0.isFormal && $0.header == nil } }
        self.init(
            verdict: verdict, bodyStart: judgement.bodyStart, recipients: transaction.recipients,
            parameters: transaction.parameters, takesParameters: granted.contains(.addRecipientsWithParameters))
        holdReason = effects.holdReason
        prepended = effects.prepended
        appended = judgement.newHeaders
    }
}

/// A new body, in packets of the largest size that the protocol allows.
struct MilterBody {
    private var pending = ByteBuffer()
    private var isWritten = false

    mutating func write(_ bytes: UnsafeRawBufferPointer, to output: inout ByteBuffer) {
        pending.writeBytes(bytes)
        while pending.readableBytes >= MilterSession.largestChunk { writePacket(&output) }
    }

    mutating func finish(_ output: inout ByteBuffer) {
        // Without any packet, the MTA would keep the old body.
        if pending.readableBytes > 0 || !isWritten { writePacket(&output) }
    }

    private mutating func writePacket(_ output: inout ByteBuffer) {
        isWritten = true
        var piece = pending.readSlice(length: min(pending.readableBytes, MilterSession.largestChunk))!
        piece.readWithUnsafeReadableBytes { bytes in
            output.writeMilterBody(bytes)
            return bytes.count
        }
        pending.discardReadBytes()
    }
}
