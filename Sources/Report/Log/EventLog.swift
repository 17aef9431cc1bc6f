// SPDX-License-Identifier: Apache-2.0
internal import Dispatch
internal import Glibc
package import NIOCore
package import Settings
internal import Synchronization

/// The log in Postfix's style: one line per event, to standard error, a file, or syslog.
///
/// A queue of its own writes the lines, so a slow disk or terminal delays no answer. If too many lines wait, more are
/// dropped, and the log says how many.
package final class EventLog: Sendable {
    package enum Level: Int32, Sendable {
        // Values of syslog(3).
        case error = 3
        case warning = 4
        case notice = 5
        case info = 6

        var word: String {
            switch self {
            case .error: "error: "
            case .warning: "warning: "
            case .notice, .info: ""
            }
        }
    }

    /// Events that a peer or a fault can repeat without end. Each kind is logged at most once in ten seconds.
    package enum Complaint: Hashable, Sendable {
        case tooManyConnections, tooManyAdminConnections, malformedRequest, slowRequest, evictedKeys, failedCheckpoint,
            noRoom, strangeClient, strangeHost, capture
        case nextHop(String)
        case undecidedCondition(limit: String)

        /// The part of the service that is in trouble; nil if only a peer is at fault.
        fileprivate var subject: String? {
            switch self {
            case .tooManyConnections: "connections"
            case .tooManyAdminConnections: "admin listener"
            case .evictedKeys: "keys of the ledger"
            case .failedCheckpoint: "checkpoint of the ledger"
            case .nextHop(let endpoint): "next hop \(endpoint)"
            case .undecidedCondition(let limit): "conditions of limit \(limit)"
            case .noRoom: "room for messages"
            case .capture: "capture"
            case .malformedRequest, .slowRequest, .strangeClient, .strangeHost: nil
            }
        }

        /// The prefix of a line whose text does not name the peer.
        fileprivate var origin: String {
            if case .nextHop(let endpoint) = self { "the next hop \(endpoint): " } else { "" }
        }
    }

    private struct State {
        var destination: Configuration.Log.Destination
        var waiting: [(level: Level, line: String)] = []
        var waitingBytes = 0
        /// Lines that `drain` has taken and not written yet.
        var writing = 0
        var dropped = 0
        var droppedSinceStart: UInt64 = 0
        var isDraining = false
        var complaints: [Complaint: (last: ContinuousClock.Instant, kept: Int)] = [:]
        var onTrouble: (@Sendable (_ subject: String, _ text: String) -> Void)?
        var onRecovery: (@Sendable (_ subject: String, _ text: String) -> Void)?
    }

    private let state: Mutex<State>
    private let queue = DispatchQueue(label: "weir.log", qos: .utility)
    private let prefix: String
    private let standardError: Int32
    private let syslog: Syslog
    /// Standard error leads to journald. It adds the time itself, and takes `<N>` as the level (sd-daemon(3)).
    private let writesToJournal: Bool

    private static let mostWaiting = 10_000
    private static let mostWaitingBytes = 16 << 20
    private static let complaintInterval: Duration = .seconds(10)

    /// - Parameters:
    ///   - standardError: also gets the lines that can't be written elsewhere; nil: nothing may be written there.
    ///   - journalStream: the value of `JOURNAL_STREAM`.
    package init(
        destination: Configuration.Log.Destination, standardError: Int32? = STDERR_FILENO,
        journalStream: String? = Journal.environmentStream, syslog: Syslog = Syslog()
    ) {
        let standardError = standardError ?? -1
        state = Mutex(State(destination: destination))
        prefix = "weir[\(getpid())]: "
        self.standardError = standardError
        self.syslog = syslog
        writesToJournal = Journal.reads(standardError, stream: journalStream)
    }

    package func error(_ text: String) { write(.error, text) }
    package func warning(_ text: String) { write(.warning, text) }
    package func notice(_ text: String) { write(.notice, text) }
    package func info(_ text: String) { write(.info, text) }

    /// Sets the callbacks for trouble and for recovery.
    package func onTrouble(
        _ tell: @escaping @Sendable (_ subject: String, _ text: String) -> Void,
        recovery: @escaping @Sendable (_ subject: String, _ text: String) -> Void
    ) {
        state.withLock { ($0.onTrouble, $0.onRecovery) = (tell, recovery) }
    }

    /// Logs that the trouble is over.
    package func recover(_ complaint: Complaint, _ text: String) {
        let tell = state.withLock { state in
            state.complaints[complaint] = nil
            return state.onRecovery
        }
        if let tell, let subject = complaint.subject { tell(subject, text) }
        notice(complaint.origin + text)
    }

    /// Reports trouble that is logged elsewhere.
    package func tell(trouble subject: String, _ text: String) {
        if let tell = state.withLock({ $0.onTrouble }) { tell(subject, text) }
    }

    /// Logs an event at most every ten seconds, with the number of similar events in between.
    package func complain(_ complaint: Complaint, _ text: @autoclosure () -> String) {
        let now = ContinuousClock.now
        let kept: Int? = state.withLock { state in
            guard let earlier = state.complaints[complaint] else {
                state.complaints[complaint] = (now, 0)
                return 0
            }
            if now - earlier.last < Self.complaintInterval {
                state.complaints[complaint] = (earlier.last, earlier.kept + 1)
                return nil
            }
            state.complaints[complaint] = (now, 0)
            return earlier.kept
        }
        guard let kept else { return }
        let text = text()
        if let subject = complaint.subject { tell(trouble: subject, text) }
        warning(complaint.origin + text + (kept == 0 ? "" : " (and \(kept) more since the last such line)"))
    }

    /// Lines dropped since the start because too many waited.
    package var droppedLines: UInt64 { state.withLock { $0.droppedSinceStart } }

    package func redirect(to destination: Configuration.Log.Destination) {
        state.withLock { $0.destination = destination }
    }

    /// Writes one line. Control characters are escaped, so one event stays one line.
    package func write(_ level: Level, _ text: String) {
        let line = Self.escaped(level.word + text)
        let starts = state.withLock { state in
            guard state.waiting.count < Self.mostWaiting, state.waitingBytes + line.utf8.count <= Self.mostWaitingBytes
            else {
                state.dropped += 1
                state.droppedSinceStart += 1
                return false
            }
            state.waiting.append((level, line))
            state.waitingBytes += line.utf8.count
            defer { state.isDraining = true }
            return !state.isDraining
        }
        if starts { queue.async { self.drain() } }
    }

    /// Returns when all lines so far are written, or after `limit`: a pipe that nobody reads takes no more.
    ///
    /// - Returns: the number of lines that are not written yet. A line on standard error says so too, if that can still
    ///   be written.
    @discardableResult
    package func flush(within limit: TimeAmount = .seconds(2)) -> Int {
        let isWritten = DispatchSemaphore(value: 0)
        queue.async { isWritten.signal() }
        guard isWritten.wait(timeout: .now() + .nanoseconds(Int(limit.nanoseconds))) == .timedOut else { return 0 }
        let lost = state.withLock { $0.writing + $0.waiting.count + $0.dropped }
        var query = pollfd(fd: standardError, events: Int16(POLLOUT), revents: 0)
        if poll(&query, 1, 0) == 1, query.revents & Int16(POLLOUT) != 0 {
            let warning = "warning: the log is not written: dropped its last \(lost == 1 ? "line" : "\(lost) lines")\n"
            _ = Self.put((writesToJournal ? Self.mark(.warning) : "") + prefix + warning, to: standardError)
        }
        return lost
    }

    private func drain() {
        while true {
            let (lines, dropped, destination) = state.withLock { state in
                if state.waiting.isEmpty, state.dropped == 0 { state.isDraining = false }
                defer {
                    state.writing = state.waiting.count
                    state.waiting.removeAll(keepingCapacity: true)
                    state.waitingBytes = 0
                    state.dropped = 0
                }
                return (state.waiting, state.dropped, state.destination)
            }
            var batch = lines
            if dropped > 0 {
                batch.append((.warning, "warning: \(dropped) log lines were dropped: the log is too slow"))
            }
            if batch.isEmpty { return }
            put(batch, to: destination)
        }
    }

    private func put(_ lines: [(level: Level, line: String)], to destination: Configuration.Log.Destination) {
        switch destination {
        case .syslog:
            if let reason = syslog.fault {
                put([(.error, "error: can't write to syslog: \(reason)")] + lines, to: .standardError)
            } else {
                for (level, line) in lines { syslog.write(level.rawValue, line) }
            }
        case .standardError:
            let stamp = writesToJournal ? "" : Self.timestamp()
            let text = lines.map { (writesToJournal ? Self.mark($0.level) : stamp) + prefix + $0.line + "\n" }.joined()
            let unwritten = Self.put(text, to: standardError)
            state.withLock { $0.droppedSinceStart += UInt64(unwritten) }
        case .file(let path):
            let descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o640)
            var unwritten = lines.count
            if descriptor >= 0 {
                let stamp = Self.timestamp()
                unwritten = Self.put(lines.map { stamp + prefix + $0.line + "\n" }.joined(), to: descriptor)
            }
            guard unwritten > 0 else {
                close(descriptor)
                return
            }
            let reason = String(cString: strerror(errno))
            if descriptor >= 0 { close(descriptor) }
            put(
                [(.error, "error: can't write to the log \(path): \(reason)")] + lines.suffix(unwritten),
                to: .standardError)
        }
    }

    private static func mark(_ level: Level) -> String { "<\(level.rawValue)>" }

    /// - Returns: the number of lines that were not written completely; `errno` has the reason.
    private static func put(_ text: String, to descriptor: Int32) -> Int {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written < 0, errno == EINTR { continue }
            guard written > 0 else { return bytes.count { $0 == 0x0a } }
            bytes = bytes.dropFirst(written)
        }
        return 0
    }

    /// Seconds since 1970 as `Nov 23 02:44:06`, as in the mail log.
    package static func time(_ seconds: Int64) -> String {
        var seconds = time_t(seconds)
        var parts = tm()
        localtime_r(&seconds, &parts)
        var text = [CChar](repeating: 0, count: 64)
        let length = strftime(&text, text.count, "%b %e %H:%M:%S", &parts)
        return String(decoding: text[..<length].map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// `Nov 23 02:44:06 host `
    private static func timestamp() -> String {
        "\(time(Int64(Glibc.time(nil)))) \(hostName()) "
    }

    package static func escaped(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        var escaped = ""
        for scalar in text.unicodeScalars {
            if isControl(scalar) {
                escaped += scalar.escaped(asASCII: true)
            } else {
                escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }

    static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case ..<0x20, 0x7f...0x9f, 0x2028, 0x2029: true
        // They reorder what a terminal shows (Unicode UAX #9).
        case 0x061c, 0x200e, 0x200f, 0x202a...0x202e, 0x2066...0x2069: true
        default: false
        }
    }
}
