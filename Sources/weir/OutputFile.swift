// SPDX-License-Identifier: Apache-2.0
import Glibc

/// A file that an option such as --html names.
enum OutputFile {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    static func write(_ text: String, to path: String) throws(Failure) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
        let code = descriptor < 0 ? errno : writeAll(Array(text.utf8), to: descriptor)
        if descriptor >= 0 { close(descriptor) }
        guard code == 0 else { throw Failure(description: "can't write \(path): \(String(cString: strerror(code)))") }
    }
}
