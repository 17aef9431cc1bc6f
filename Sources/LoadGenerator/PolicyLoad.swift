// SPDX-License-Identifier: Apache-2.0
package import NIOCore

/// A load on the Postfix policy delegation protocol: connections kept open, one request outstanding on each, as smtpd.
package struct PolicyLoad: Sendable {
    package var options: LoadOptions
    package var mix: PolicyMix

    package init(options: LoadOptions, mix: PolicyMix) {
        self.options = options
        self.mix = mix
    }

    /// Runs the load on `eventLoop`.
    /// - Parameters:
    ///   - firstInstance: What the `instance` of the messages counts up from.
    ///   - progress: Called each second on the event loop.
    package func start(
        on eventLoop: any EventLoop, target: LoadTarget, address: SocketAddress, firstInstance: PolicyInstance,
        progress: @escaping @Sendable (LoadProgress) -> Void
    ) -> RunningLoad {
        let run = eventLoop.submit {
            let traffic = try PolicyTraffic(mix, firstInstance: firstInstance)
            let run = LoadRun(
                on: eventLoop, target: target, options: options, traffic: traffic,
                connect: { $0.connect(to: address, on: eventLoop, timeout: options.timeout) },
                progress: progress)
            return NIOLoopBound(run, eventLoop: eventLoop)
        }
        return RunningLoad(
            report: run.flatMap { $0.value.start() },
            interrupt: { run.whenSuccess { $0.value.interrupt() } })
    }
}

/// A load that was started.
package struct RunningLoad: Sendable {
    package let report: EventLoopFuture<LoadReport>
    /// Ends the load at once; the report then has the figures so far.
    package let interrupt: @Sendable () -> Void
}
