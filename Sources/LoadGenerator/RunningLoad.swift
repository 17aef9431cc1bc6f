// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import NIOCore

/// A started load.
package struct RunningLoad: Sendable {
    package let report: EventLoopFuture<LoadReport>
    /// Ends the load now; the report has the figures so far.
    package let interrupt: @Sendable () -> Void

    /// Runs a load on `eventLoop`.
    ///
    /// - Parameters:
    ///   - progress: called each second on the event loop.
    ///   - makeTraffic: called on the event loop.
    package static func start<Traffic: LoadTraffic>(
        on eventLoop: any EventLoop, target: LoadTarget, address: SocketAddress, options: LoadOptions,
        progress: @escaping @Sendable (LoadProgress) -> Void,
        traffic makeTraffic: @escaping @Sendable () throws -> Traffic
    ) -> RunningLoad {
        let run = eventLoop.submit {
            let run = LoadRun(
                on: eventLoop, target: target, options: options, traffic: try makeTraffic(),
                connect: { connection in
                    guard hasSpareDescriptors else {
                        return eventLoop.makeFailedFuture(IOError(errnoCode: EMFILE, reason: "socket"))
                    }
                    return connection.connect(to: address, on: eventLoop, timeout: options.timeout)
                },
                progress: progress)
            return NIOLoopBound(run, eventLoop: eventLoop)
        }
        return RunningLoad(
            report: run.flatMap { $0.value.start() },
            interrupt: { run.whenSuccess { $0.value.interrupt() } })
    }

    /// Descriptors not used for connections: libdispatch aborts the process when it can't get one for the main thread.
    private static let spareDescriptors: UInt = 8

    /// Whether another connection would leave `spareDescriptors`.
    private static var hasSpareDescriptors: Bool {
        var limit = rlimit()
        // open(2) returns the lowest free descriptor.
        let next = open("/dev/null", O_RDONLY | O_CLOEXEC)
        guard next >= 0, getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return false }
        close(next)
        return UInt(next) + spareDescriptors < limit.rlim_cur
    }
}
