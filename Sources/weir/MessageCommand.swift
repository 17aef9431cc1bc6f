// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import CLinux
import Dispatch
import Glibc
import Synchronization

/// The command that takes the message from `weir filter`, such as sendmail(1), and the time that both have.
///
/// The command reads the message from a file in memory. If this process is killed, a pipe would end early, and sendmail
/// would deliver the part that it has.
struct MessageCommand {
    private enum Stage {
        case none
        case running(pid_t)
        case ended
    }

    private static let stage = Mutex(Stage.none)

    /// Begins the time of this process: `seconds` later, it and the command end, and the message is deferred. pipe(8)
    /// would bounce the message at `command_time_limit`, and leave the command running.
    ///
    /// Without a thread for that, or if nobody reads standard error, a signal ends this process a little later. pipe(8)
    /// then defers the message, too.
    static func limitTime(to seconds: Int) {
        signal(SIGALRM, SIG_DFL)
        alarm(UInt32(clamping: seconds + 5))
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(seconds)) {
            stage.withLock { stage in
                switch stage {
                case .ended: return
                case .running(let command): kill(-command, SIGKILL)
                case .none: break
                }
                _ = FilterCommand.deferral("stopped after \(seconds) seconds")
                _exit(EX_TEMPFAIL)
            }
        }
    }

    /// Runs the command until it ends, with the message as its standard input. What the command leaves running in the
    /// background is not waited for.
    ///
    /// - Throws: the exit status of `weir filter`, unless the command has taken the message.
    static func run(_ path: String, _ arguments: [String], _ message: [UInt8]) throws {
        let input = try file(with: message, for: path)
        // If the caller ignores this signal, the kernel drops the exit status of the command.
        signal(SIGCHLD, SIG_DFL)
        var command: pid_t = 0
        let failure = stage.withLock { stage in
            let code = spawn([path] + arguments, input, &command)
            if code == 0 { stage = .running(command) }
            return code
        }
        guard failure == 0 else {
            throw FilterCommand.deferral("can't pass the message to \(path): \(String(cString: strerror(failure)))")
        }
        var status: Int32 = 0
        while waitpid(command, &status, 0) < 0 {
            guard errno == EINTR else {
                throw FilterCommand.deferral("no exit status from \(path): \(String(cString: strerror(errno)))")
            }
        }
        stage.withLock { $0 = .ended }
        let signal = status & 0x7f
        guard signal == 0 else { throw FilterCommand.deferral("\(path) was killed by signal \(signal)") }
        switch status >> 8 & 0xff {
        // The command has read up to here: its descriptor and this one share their position.
        case 0 where lseek(input, 0, SEEK_CUR) == message.count: return
        case 0: throw FilterCommand.deferral("\(path) exited with status 0, but has not read the whole message")
        // With these, sendmail rejects the message; any other status is a problem on this machine.
        case let code where [EX_DATAERR, EX_NOUSER, EX_NOHOST, EX_UNAVAILABLE].contains(code): throw ExitCode(code)
        case let code: throw FilterCommand.deferral("\(path) exited with status \(code)")
        }
    }

    /// Starts the command in a process group of its own.
    ///
    /// - Returns: 0 or an errno.
    private static func spawn(_ words: [String], _ input: Int32, _ command: inout pid_t) -> Int32 {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        var (all, none) = (sigset_t(), sigset_t())
        sigfillset(&all)
        sigemptyset(&none)
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
        posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1)
        posix_spawnattr_init(&attributes)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setsigmask(&attributes, &none)
        let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK
        posix_spawnattr_setflags(&attributes, Int16(flags))
        var arguments = words.map { strdup($0) } + [nil]
        defer {
            for argument in arguments { free(argument) }
            posix_spawnattr_destroy(&attributes)
            posix_spawn_file_actions_destroy(&actions)
        }
        return posix_spawn(&command, words[0], &actions, &attributes, &arguments, weir_environment())
    }

    /// A file without permissions: a script that opened /dev/stdin would read it from the beginning with a position of
    /// its own, and nobody would know whether it has read all of it. So the script fails, unless root runs it.
    private static func file(with message: [UInt8], for path: String) throws -> Int32 {
        let file = memfd_create("message", UInt32(MFD_CLOEXEC))
        guard file >= 0, writeAll(message, to: file) == 0, lseek(file, 0, SEEK_SET) == 0, fchmod(file, 0) == 0 else {
            throw FilterCommand.deferral("no memory for the message to \(path): \(String(cString: strerror(errno)))")
        }
        return file
    }
}
