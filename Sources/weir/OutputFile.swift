// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A file that an option such as --html names.
enum OutputFile {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    static func write(_ text: String, to path: String) throws(Failure) {
        do {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        } catch {
            throw Failure(description: "can't write \(path): \((error as NSError).localizedDescription)")
        }
    }
}
