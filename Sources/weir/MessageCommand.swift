// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import CLinux
import Dispatch
import Foundation
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
    static func limitTime(to seconds: Int) {
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(seconds)) {
            stage.withLock { stage in
                switch stage {
                case .ended: return
                // Foundation begins a process group for each command.
                case .running(let command): kill(-command, SIGKILL)
                case .none: break
                }
                _ = FilterCommand.deferral("stopped after \(seconds) seconds")
                _exit(EX_TEMPFAIL)
            }
        }
    }

    /// Runs the command until it ends, with the message as its standard input.
    ///
    /// - Throws: the exit status of `weir filter`, unless the command has taken the message.
    static func run(_ path: String, _ arguments: [String], _ message: [UInt8]) throws {
        let input = try file(with: message, for: path)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        process.standardInput = FileHandle(fileDescriptor: input)
        do {
            try stage.withLock { stage in
                try process.run()
                stage = .running(process.processIdentifier)
            }
        } catch {
            throw FilterCommand.deferral("can't pass the message to \(path): \(error.localizedDescription)")
        }
        process.waitUntilExit()
        stage.withLock { $0 = .ended }
        guard process.terminationReason == .exit else {
            throw FilterCommand.deferral("\(path) was killed by signal \(process.terminationStatus)")
        }
        switch process.terminationStatus {
        // The command has read up to here: its descriptor and this one share their position.
        case 0 where lseek(input, 0, SEEK_CUR) == message.count: return
        case 0: throw FilterCommand.deferral("\(path) exited with status 0, but has not read the whole message")
        // With these, sendmail rejects the message; any other status is a problem on this machine.
        case EX_DATAERR, EX_NOUSER, EX_NOHOST, EX_UNAVAILABLE: throw ExitCode(process.terminationStatus)
        default: throw FilterCommand.deferral("\(path) exited with status \(process.terminationStatus)")
        }
    }

    private static func file(with message: [UInt8], for path: String) throws -> Int32 {
        let file = memfd_create("message", UInt32(MFD_CLOEXEC))
        guard file >= 0, writeAll(message, to: file) == 0, lseek(file, 0, SEEK_SET) == 0 else {
            throw FilterCommand.deferral("no memory for the message to \(path): \(String(cString: strerror(errno)))")
        }
        return file
    }
}
