// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Reads the configuration of Postfix with postconf(1).
package enum Postconf {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    private static let timeout: TimeInterval = 10
    private static let largestOutput = 8 << 20

    /// - Parameter directory: of main.cf and master.cf; nil for the system's.
    package static func setup(directory: String?) throws -> PostfixSetup {
        let option = directory.map { ["-c", $0] } ?? []
        let (defaults, settings, master) = (
            try run(option + ["-d"]), try run(option + ["-n"]), try run(option + ["-M"])
        )
        // With `-n`, Postfix 3.7 prints it, and 3.10 does not.
        let place = directory.map { "config_directory = \($0)\n" } ?? ""
        var setup = PostfixSetup(
            defaults: defaults.output, settings: place + settings.output, master: master.output,
            complaints: defaults.complaints + settings.complaints + master.complaints)
        let folder = setup.value("config_directory")
        setup.unfinishedFiles = ["main.cf", "master.cf"].map { "\(folder)/\($0)" }.filter(lacksNewline)
        return setup
    }

    /// Whether a file's last line has no newline.
    private static func lacksNewline(_ path: String) -> Bool {
        guard let file = FileHandle(forReadingAtPath: path), let end = try? file.seekToEnd(), end > 0 else {
            return false
        }
        try? file.seek(toOffset: end - 1)
        return (try? file.read(upToCount: 1)) != Data([0x0a])
    }

    /// - Returns: its standard output, and the lines of its standard error.
    private static func run(_ arguments: [String]) throws -> (output: String, complaints: [String]) {
        let command = "postconf \(arguments.joined(separator: " "))"
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["postconf"] + arguments
        var environment = ProcessInfo.processInfo.environment
        environment["PATH"] = (environment["PATH"] ?? "") + ":/usr/sbin:/sbin:/usr/local/sbin"
        environment["LC_ALL"] = "C"
        process.environment = environment
        let (output, errors) = (Pipe(), Pipe())
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = errors
        do { try process.run() } catch {
            throw Failure(description: "can't run postconf: \(error.localizedDescription)")
        }
        let timer = DispatchSource.makeTimerSource()
        timer.schedule(deadline: .now() + timeout)
        timer.setEventHandler { kill(process.processIdentifier, SIGKILL) }
        timer.resume()
        defer { timer.cancel() }
        // Warnings are few and fit into the pipe, so they can be read after the exit.
        let content = try? output.fileHandleForReading.readToEnd()
        process.waitUntilExit()
        let complaints = String(decoding: (try? errors.fileHandleForReading.readToEnd()) ?? Data(), as: UTF8.self)
            .split(separator: "\n").map(String.init)
        guard process.terminationReason == .exit else {
            throw Failure(description: "\(command) took longer than \(Int(timeout)) s and was killed")
        }
        guard process.terminationStatus == 0 else {
            throw Failure(
                description: process.terminationStatus == 127
                    ? "postconf not found in \(environment["PATH"] ?? "")"
                    : "\(command) exited with status \(process.terminationStatus)"
                        + complaints.map { "\n\($0)" }.joined())
        }
        let text = content.flatMap { $0 } ?? Data()
        guard text.count <= largestOutput else {
            throw Failure(
                description: "\(command) printed \(text.count >> 20) MiB, more than \(largestOutput >> 20) MiB")
        }
        return (String(decoding: text, as: UTF8.self), complaints)
    }
}
