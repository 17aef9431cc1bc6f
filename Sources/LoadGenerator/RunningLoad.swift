// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// A load that was started.
package struct RunningLoad: Sendable {
    package let report: EventLoopFuture<LoadReport>
    /// Ends the load at once; the report then has the figures so far.
    package let interrupt: @Sendable () -> Void

    /// Runs a load on `eventLoop`.
    ///
    /// - Parameters:
    ///   - makeTraffic: Called on the event loop.
    ///   - progress: Called each second on the event loop.
    package static func start<Traffic: LoadTraffic>(
        on eventLoop: any EventLoop, target: LoadTarget, address: SocketAddress, options: LoadOptions,
        progress: @escaping @Sendable (LoadProgress) -> Void, traffic makeTraffic: @escaping @Sendable () throws -> Traffic
    ) -> RunningLoad {
        let run = eventLoop.submit {
            let run = LoadRun(
                on: eventLoop, target: target, options: options, traffic: try makeTraffic(),
                connect: { $0.connect(to: address, on: eventLoop, timeout: options.timeout) },
                progress: progress)
            return NIOLoopBound(run, eventLoop: eventLoop)
        }
        return RunningLoad(
            report: run.flatMap { $0.value.start() },
            interrupt: { run.whenSuccess { $0.value.interrupt() } })
    }
}
