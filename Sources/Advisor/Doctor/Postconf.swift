// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Asks postconf(1) how Postfix is set up; it changes nothing.
package enum Postconf {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    private static let timeout: TimeInterval = 10
    private static let largestOutput = 8 << 20

    /// - Parameter directory: of main.cf and master.cf; nil: the one of the system.
    package static func setup(directory: String?) throws -> PostfixSetup {
        let directory = directory.map { ["-c", $0] } ?? []
        let (defaults, settings, master) = (
            try run(directory + ["-d"]), try run(directory + ["-n"]), try run(directory + ["-M"])
        )
        return PostfixSetup(
            defaults: defaults.output, settings: settings.output, master: master.output,
            complaints: defaults.complaints + settings.complaints + master.complaints)
    }

    /// - Returns: what it printed, and its warnings.
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
        // Its warnings are few, and fit into the pipe; they are read when it has ended.
        let content = try? output.fileHandleForReading.readToEnd()
        process.waitUntilExit()
        let complaints = String(decoding: (try? errors.fileHandleForReading.readToEnd()) ?? Data(), as: UTF8.self)
            .split(separator: "\n").map(String.init)
        guard process.terminationReason == .exit else {
            throw Failure(description: "\(command) was killed, as it took longer than \(Int(timeout)) s")
        }
        guard process.terminationStatus == 0 else {
            throw Failure(
                description: process.terminationStatus == 127
                    ? "there is no postconf in \(environment["PATH"] ?? "")"
                    : "\(command) ended with \(process.terminationStatus)" + complaints.map { "\n\($0)" }.joined())
        }
        let text = content.flatMap { $0 } ?? Data()
        guard text.count <= largestOutput else {
            throw Failure(description: "\(command) printed \(text.count >> 20) MiB")
        }
        return (String(decoding: text, as: UTF8.self), complaints)
    }
}
