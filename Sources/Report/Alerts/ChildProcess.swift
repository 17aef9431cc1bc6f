// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import Dispatch
internal import Glibc

/// Runs a program with text on its standard input, for at most 30 seconds.
enum ChildProcess {
    /// The program exited with a status other than 0.
    struct BadExit: Error, CustomStringConvertible {
        let program: String
        let status: Int32

        var description: String { "\(program) exited with status \(status)" }
    }

    private static let timeout: Duration = .seconds(30)
    private static let longestOutput = 1024
    private static let environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]
    private static let queue = DispatchQueue(label: "weir.child", attributes: .concurrent)

    /// The program's output goes to this process's standard error.
    ///
    /// - Parameter words: its path and arguments; no shell interprets them.
    /// - Throws: `BadExit`, or `AlertFailure` if it could not be started or was killed.
    static func run(_ words: [String], input: [UInt8]) async throws {
        try await onQueue { try runAndWait(words, input: input, output: STDERR_FILENO) }
    }

    /// The same, for a program with short output.
    ///
    /// - Returns: its standard output, at most `longestOutput` bytes.
    static func output(of words: [String], input: [UInt8]) async throws -> [UInt8] {
        try await onQueue {
            let (reading, writing) = try makePipe(words)
            defer {
                close(reading)
                close(writing)
            }
            _ = fcntl(reading, F_SETFL, O_NONBLOCK)
            try runAndWait(words, input: input, output: writing)
            return [UInt8](unsafeUninitializedCapacity: longestOutput) { bytes, count in
                count = max(0, read(reading, bytes.baseAddress, bytes.count))
            }
        }
    }

    private static func onQueue<Result: Sendable>(
        _ body: @escaping @Sendable () throws -> Result
    ) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            queue.async { continuation.resume(with: .init(catching: body)) }
        }
    }

    private static func runAndWait(_ words: [String], input: [UInt8], output: Int32) throws {
        let (reading, writing) = try makePipe(words)
        _ = fcntl(writing, F_SETFL, O_NONBLOCK)
        let pid: pid_t
        do {
            defer { close(reading) }
            pid = try spawn(words, standardInput: reading, standardOutput: output)
        } catch {
            close(writing)
            throw error
        }
        let deadline = ContinuousClock.now + timeout
        write(input, to: writing, by: deadline)
        close(writing)
        try wait(for: pid, words, by: deadline)
    }

    private static func makePipe(_ words: [String]) throws -> (reading: Int32, writing: Int32) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw failure(words, errno) }
        return (ends[0], ends[1])
    }

    private static func spawn(_ words: [String], standardInput: Int32, standardOutput: Int32) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, standardInput, STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, standardOutput, STDOUT_FILENO)
        // Sockets of SwiftNIO and pipes of other children may lack FD_CLOEXEC.
        posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // Resets signals that this process ignores. A process group of its own can be killed as a whole.
        var signals = sigset_t()
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))
        let arguments = words.map { strdup($0) }
        let environment = environment.map { strdup($0) }
        defer { for text in arguments + environment { free(text) } }
        var pid: pid_t = 0
        let code = posix_spawn(&pid, words[0], &actions, &attributes, arguments + [nil], environment + [nil])
        guard code == 0 else { throw failure(words, code) }
        return pid
    }

    /// A program that stops reading or exits is not an error here; its exit status decides.
    private static func write(_ input: [UInt8], to descriptor: Int32, by deadline: ContinuousClock.Instant) {
        var rest = input[...]
        while !rest.isEmpty, ContinuousClock.now < deadline {
            let written = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written > 0 {
                rest = rest.dropFirst(written)
            } else if errno == EAGAIN {
                var poller = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&poller, 1, 100)
            } else if errno != EINTR {
                return
            }
        }
    }

    private static func wait(for pid: pid_t, _ words: [String], by deadline: ContinuousClock.Instant) throws {
        var status: Int32 = 0
        while waitpid(pid, &status, WNOHANG) == 0 {
            guard ContinuousClock.now < deadline else {
                kill(-pid, SIGKILL)
                waitpid(pid, &status, 0)
                throw AlertFailure(
                    description: "\(words[0]) ran longer than \(timeout.components.seconds) s and was killed")
            }
            usleep(20_000)
        }
        // As WIFEXITED and WEXITSTATUS of waitpid(2) do.
        guard status & 0x7f == 0 else {
            throw AlertFailure(description: "\(words[0]) was killed by signal \(status & 0x7f)")
        }
        guard status >> 8 & 0xff == 0 else { throw BadExit(program: words[0], status: status >> 8 & 0xff) }
    }

    private static func failure(_ words: [String], _ code: Int32) -> AlertFailure {
        AlertFailure(description: "can't run \(words[0]): \(String(cString: strerror(code)))")
    }
}
