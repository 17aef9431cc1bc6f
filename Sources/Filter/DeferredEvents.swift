// SPDX-License-Identifier: Apache-2.0
internal import MailSyntax
internal import Rules

/// What the scanner found after a lookup was suspended, in the order of the message.
enum DeferredEvent {
    case header(text: [UInt8], Header)
    /// The header whose lookup was suspended.
    case suspendedHeader(text: [UInt8], Header, ordinal: Int?, MessageChecker.SetPlace)
    /// The header for whose decoded text the lookup was suspended.
    case suspendedDecodedHeader(text: [UInt8], Header, ordinal: Int?, MessageChecker.SetPlace)
    case endOfHeaders(offset: Int, needsEmptyLine: Bool)
    case body(text: [UInt8], offset: Int, isRecord: Bool, MessageChecker.SetPlace)
}

/// Suspension. The scanner does not depend on what the rules find, so it goes on while its events are deferred. That is
/// bounded: whoever feeds the filter waits after each `update` until `resume` has handled them.
extension MessageChecker {
    var isSuspended: Bool { !deferred.isEmpty }

    mutating func suspend(_ event: DeferredEvent) {
        isDeferring = true
        deferred.append(event)
    }

    /// Handles the deferred events with a matcher that is on no event loop. A message that was suspended once takes its
    /// further events this way too, unless its checks are over.
    mutating func resume(with other: Matcher) {
        var events: [DeferredEvent] = []
        swap(&events, &deferred)
        let own = matcher
        matcher = other
        isDeferring = false
        for event in events { handle(event) }
        matcher = own
        isDeferring = !isOver
    }

    private mutating func handle(_ event: DeferredEvent) {
        switch event {
        case .header(let text, let header):
            text.withUnsafeBytes { checkUnscanned(header, $0) }
        case .suspendedHeader(let text, let header, let ordinal, let place):
            text.withUnsafeBytes { bytes in
                let outcome = lookUpAll(header, bytes, ordinal, from: place)
                if let outcome { conclude(header, bytes, ordinal, outcome) }
            }
        case .suspendedDecodedHeader(let text, let header, let ordinal, let place):
            text.withUnsafeBytes { bytes in
                let outcome = lookUpAll(header, bytes, ordinal, from: place, isDecodedOnly: true)
                if let outcome { conclude(header, bytes, ordinal, outcome) }
            }
        case .endOfHeaders(let offset, let needsEmptyLine): endOfHeaders(at: offset, needsEmptyLine: needsEmptyLine)
        case .body(let text, let offset, let isRecord, let place):
            text.withUnsafeBytes { check(BodyText(text: $0, offset: offset, isRecord: isRecord), from: place) }
        }
    }

    private mutating func checkUnscanned(_ header: Header, _ text: UnsafeRawBufferPointer) {
        guard !isDeferring else { return suspend(.header(text: Array(text), header)) }
        guard let (ordinal, isAdded) = take(header, text) else { return }
        let isChecked = !isOver && !isAdded
        let outcome = isChecked ? lookUpAll(header, text, ordinal, from: SetPlace(set: 0, earlier: .keep)) : .keep
        if let outcome { conclude(header, text, ordinal, outcome) }
    }
}
