// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// journald, as the reader of a file descriptor.
package enum Journal {
    /// Whether journald reads what is written to the descriptor. systemd sets `JOURNAL_STREAM` to the device and inode
    /// of the stream, in decimal (systemd.exec(5)). A process that is started with its output elsewhere inherits the
    /// variable, so the variable alone says nothing.
    package static func reads(_ descriptor: Int32, stream: String? = environmentStream) -> Bool {
        var status = stat()
        guard let stream, fstat(descriptor, &status) == 0 else { return false }
        return stream == "\(status.st_dev):\(status.st_ino)"
    }

    package static var environmentStream: String? { getenv("JOURNAL_STREAM").map { String(cString: $0) } }
}
