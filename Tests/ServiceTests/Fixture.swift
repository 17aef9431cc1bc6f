// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Files of Fixtures.
enum Fixture {
    /// Names without their extension.
    static func names(_ directory: String, _ suffix: String) -> [String] {
        let urls = Bundle.module.urls(forResourcesWithExtension: suffix, subdirectory: "Fixtures/\(directory)")!
        return urls.compactMap { $0.lastPathComponent }.map { String($0.dropLast(suffix.count + 1)) }.sorted()
    }

    /// The lines that are neither empty nor comments, with their numbers.
    static func lines(_ path: String) throws -> [(number: Int, text: String)] {
        let url = Bundle.module.resourceURL!.appending(path: "Fixtures/\(path)")
        let text = try String(contentsOf: url, encoding: .utf8)
        var lines: [(number: Int, text: String)] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
        where !line.isEmpty && !line.hasPrefix("#") {
            lines.append((index + 1, String(line)))
        }
        return lines
    }
}

/// A directory that is removed with the value.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        let url = FileManager.default.temporaryDirectory.appending(path: "weir-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ lines: [String], to name: String) throws {
        try Data(lines.map { $0 + "\n" }.joined().utf8).write(to: URL(filePath: "\(path)/\(name)"))
    }
}
