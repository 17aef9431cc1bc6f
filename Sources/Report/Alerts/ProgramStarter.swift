// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import CSandbox
internal import Dispatch
internal import Glibc
package import Settings

/// Has programs run, with text on their standard input, for at most 30 seconds each.
///
/// The service itself may not start programs. A process that was split off before the restrictions does it, and ends
/// with the service.
package struct ProgramStarter: Sendable {
    /// The program exited with a status other than 0.
    struct BadExit: Error, CustomStringConvertible {
        let program: String
        let status: Int32

        var description: String { "\(program) exited with status \(status)" }
    }

    package struct SplitFailure: Error, CustomStringConvertible {
        package let description: String
    }

    /// A socket to the other process.
    private let control: Int32
    /// The programs that the other process starts. It refuses others, whatever happens to this process.
    private let permitted: [String]

    private static let timeout: Duration = .seconds(30)
    private static let longestOutput = 1024
    private static let queue = DispatchQueue(label: "weir.child", attributes: .concurrent)

    package init(control: Int32, permitted: [String] = []) {
        self.control = control
        self.permitted = permitted
    }

    /// Splits off the process that starts the programs of these alerts. Call it before other threads start.
    ///
    /// - Throws: `SplitFailure`.
    package static func split(for alerts: Configuration.Alerts) throws -> ProgramStarter {
        var control: Int32 = -1
        let permitted = programs(of: alerts)
        let text = bytes(of: permitted)
        let code = weir_starter_split(&control, text, text.count)
        guard code == 0 else {
            throw SplitFailure(
                description: "can't split off the process that starts programs: \(String(cString: strerror(code)))")
        }
        // The other process must not remain as a zombie if it ends first.
        signal(SIGCHLD, SIG_IGN)
        return ProgramStarter(control: control, permitted: permitted)
    }

    /// sendmail also without mail addresses, which a reload may add.
    private static func programs(of alerts: Configuration.Alerts) -> [String] {
        [Configuration.Alerts.webhookProgram, alerts.sendmail] + (alerts.command.map { [$0] } ?? [])
    }

    /// The programs that these alerts need and that it does not start.
    package func outOfReach(_ alerts: Configuration.Alerts) -> [String] {
        Self.programs(of: alerts).filter { program in
            let isUsed = program != alerts.sendmail || !alerts.mail.isEmpty
            return isUsed && !permitted.contains(program)
        }
    }

    /// Each with a final NUL.
    private static func bytes(of words: [String]) -> [CChar] {
        words.flatMap { word -> [CChar] in word.utf8CString.map(\.self) }
    }

    /// The program's output goes to this process's standard error.
    ///
    /// - Parameter words: its path and arguments; no shell interprets them.
    /// - Throws: `BadExit`, or `AlertFailure` if it could not be started or was killed.
    func run(_ words: [String], input: [UInt8]) async throws {
        try await onQueue { try runAndWait(words, input: input, output: STDERR_FILENO) }
    }

    /// The same, for a program with short output.
    ///
    /// - Returns: its standard output, at most `longestOutput` bytes.
    func output(of words: [String], input: [UInt8]) async throws -> [UInt8] {
        try await onQueue {
            let (reading, writing) = try Self.makePipe(words)
            defer {
                close(reading)
                close(writing)
            }
            _ = fcntl(reading, F_SETFL, O_NONBLOCK)
            try runAndWait(words, input: input, output: writing)
            return [UInt8](unsafeUninitializedCapacity: Self.longestOutput) { bytes, count in
                count = max(0, read(reading, bytes.baseAddress, bytes.count))
            }
        }
    }

    private func onQueue<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            Self.queue.async { continuation.resume(with: .init(catching: body)) }
        }
    }

    private func runAndWait(_ words: [String], input: [UInt8], output: Int32) throws {
        let (reading, writing) = try Self.makePipe(words)
        _ = fcntl(writing, F_SETFL, O_NONBLOCK)
        let channel: Int32
        do {
            defer { close(reading) }
            channel = try start(words, standardInput: reading, standardOutput: output)
        } catch {
            close(writing)
            throw error
        }
        // Closing it kills a program that still runs.
        defer { close(channel) }
        let deadline = ContinuousClock.now + Self.timeout
        Self.write(input, to: writing, by: deadline, watching: channel)
        close(writing)
        try Self.wait(for: channel, words, by: deadline)
    }

    private static func makePipe(_ words: [String]) throws -> (reading: Int32, writing: Int32) {
        var ends: [Int32] = [-1, -1]
        guard pipe2(&ends, O_CLOEXEC) == 0 else { throw failure(words, errno) }
        return (ends[0], ends[1])
    }

    /// - Returns: a socket for the answer when the program has ended.
    private func start(_ words: [String], standardInput: Int32, standardOutput: Int32) throws -> Int32 {
        var ends: [Int32] = [-1, -1]
        var code = weir_starter_channel(&ends)
        guard code == 0 else { throw Self.failure(words, code) }
        defer { close(ends[1]) }
        let text = Self.bytes(of: words)
        code = weir_starter_request(control, text, text.count, ends[1], standardInput, standardOutput)
        guard code == 0 else {
            close(ends[0])
            throw Self.failure(words, code)
        }
        return ends[0]
    }

    /// A program that stops reading or exits is not an error here; its exit status decides.
    private static func write(
        _ input: [UInt8], to descriptor: Int32, by deadline: ContinuousClock.Instant, watching channel: Int32
    ) {
        var rest = input[...]
        while !rest.isEmpty, ContinuousClock.now < deadline {
            let written = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written > 0 {
                rest = rest.dropFirst(written)
            } else if errno == EAGAIN {
                var pollers = [
                    pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0),
                    pollfd(fd: channel, events: Int16(POLLIN), revents: 0),
                ]
                poll(&pollers, 2, 100)
                if pollers[1].revents != 0 { return }
            } else if errno != EINTR {
                return
            }
        }
    }

    private static func wait(for channel: Int32, _ words: [String], by deadline: ContinuousClock.Instant) throws {
        var answer = weir_starter_answer()
        while true {
            let left = (deadline - .now).components
            var poller = pollfd(fd: channel, events: Int16(POLLIN), revents: 0)
            let milliseconds = max(0, left.seconds * 1000 + left.attoseconds / 1_000_000_000_000_000)
            let ready = poll(&poller, 1, Int32(milliseconds))
            if ready < 0, errno == EINTR { continue }
            guard ready > 0 else {
                throw AlertFailure(
                    description: "\(words[0]) ran longer than \(timeout.components.seconds) s and was killed")
            }
            break
        }
        guard recv(channel, &answer, MemoryLayout.size(ofValue: answer), 0) == MemoryLayout.size(ofValue: answer) else {
            throw AlertFailure(
                description: "can't run \(words[0]): the process that starts programs has ended; restart the service")
        }
        guard answer.error == 0 else { throw failure(words, answer.error) }
        // As WIFEXITED and WEXITSTATUS of waitpid(2) do.
        guard answer.status & 0x7f == 0 else {
            throw AlertFailure(description: "\(words[0]) was killed by signal \(answer.status & 0x7f)")
        }
        let status = answer.status >> 8 & 0xff
        guard status == 0 else { throw BadExit(program: words[0], status: status) }
    }

    private static func failure(_ words: [String], _ code: Int32) -> AlertFailure {
        let reason =
            code == EPIPE || code == ECONNRESET
            ? "the process that starts programs has ended; restart the service" : String(cString: strerror(code))
        return AlertFailure(description: "can't run \(words[0]): \(reason)")
    }
}
