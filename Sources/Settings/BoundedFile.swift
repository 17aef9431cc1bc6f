// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// Reads whole files up to a maximum size.
package enum BoundedFile {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
        /// There is no such file.
        package var isMissing = false
    }

    package static func read(_ path: String, upTo largest: Int) -> Result<[UInt8], Failure> {
        // Without O_NONBLOCK, open(2) waits for a writer of a named pipe.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            return .failure(Failure(description: reason(), isMissing: errno == ENOENT))
        }
        defer { close(descriptor) }
        guard lseek(descriptor, 0, SEEK_CUR) == 0 else {
            return .failure(Failure(description: "not a regular file"))
        }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { return .failure(Failure(description: reason())) }
            if count == 0 { return .success(bytes) }
            bytes += chunk[..<count]
            guard bytes.count <= largest else {
                return .failure(Failure(description: "larger than \(largest >> 20) MiB"))
            }
        }
    }

    private static func reason() -> String { String(cString: strerror(errno)) }
}
