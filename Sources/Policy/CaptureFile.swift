// SPDX-License-Identifier: Apache-2.0
internal import Dispatch
internal import Glibc
internal import NIOCore
internal import Report
internal import Synchronization

/// Writes the requests of policy clients to a file for `weir replay`, each after a line `time=SECONDS.MICROSECONDS`.
///
/// A queue of its own writes the file, so a slow disk delays no answer. If too many requests wait, more are dropped and
/// the log says how many.
final class CaptureFile: Sendable {
    private struct State {
        var waiting = ByteBuffer()
        var dropped = 0
        var isDraining = false
    }

    let path: String
    private let log: EventLog
    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "weir.capture", qos: .utility)

    private static let mostWaiting = 16 << 20

    init(path: String, log: EventLog) {
        self.path = path
        self.log = log
    }

    /// - Parameter request: includes its empty line.
    func append(_ request: Slice<UnsafeRawBufferPointer>) {
        let now = microseconds(of: CLOCK_REALTIME)
        let fraction = String(now % 1_000_000 + 1_000_000).dropFirst()
        let starts = state.withLock { state in
            guard state.waiting.readableBytes + request.count <= Self.mostWaiting else {
                state.dropped += 1
                return false
            }
            state.waiting.writeString("time=\(now / 1_000_000).\(fraction)\n")
            state.waiting.writeBytes(request)
            defer { state.isDraining = true }
            return !state.isDraining
        }
        if starts { queue.async { self.drain() } }
    }

    private func drain() {
        while true {
            let (bytes, dropped) = state.withLock { state in
                if state.waiting.readableBytes == 0 { state.isDraining = false }
                defer { (state.waiting, state.dropped) = (ByteBuffer(), 0) }
                return (state.waiting, state.dropped)
            }
            if bytes.readableBytes == 0 { return }
            if dropped > 0 { log.warning("dropped \(dropped) requests from the capture \(path): writing is too slow") }
            write(bytes)
        }
    }

    private func write(_ bytes: ByteBuffer) {
        let descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            return log.complain(.capture, "can't write to \(path): \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        var rest = bytes
        while rest.readableBytes > 0 {
            let written = rest.withUnsafeReadableBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written < 0 {
                if errno == EINTR { continue }
                return log.complain(.capture, "can't write to \(path): \(String(cString: strerror(errno)))")
            }
            rest.moveReaderIndex(forwardBy: written)
        }
    }

    /// Returns when all appended requests are written or have failed, at the latest at `deadline`.
    func flush(by deadline: NIODeadline) {
        let isWritten = DispatchSemaphore(value: 0)
        queue.async { isWritten.signal() }
        if isWritten.wait(timeout: .now() + .nanoseconds(Int((deadline - .now()).nanoseconds))) == .timedOut {
            log.warning("dropped the last requests from the capture \(path): writing is too slow")
        }
    }
}
