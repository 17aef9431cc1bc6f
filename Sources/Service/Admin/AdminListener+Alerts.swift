// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Hummingbird
internal import Report

/// Test notices of `weir alert`.
extension AdminListener {
    func addAlertRoutes(to router: Router<AdminContext>) {
        router.post("alerts/test") { [alerts] request, context in
            let message = try await request.json(
                AdminMessages.AlertTest.self, "the body must be JSON, with a channel if not all are meant")
            let outcomes = await alerts.test(message.channel, for: await context.user())
            guard !outcomes.isEmpty else {
                guard let channel = message.channel else {
                    throw AdminFailure(.notFound, "the running service has no channel for alerts")
                }
                let names = alerts.channelNames
                let others = names.isEmpty ? ", and no other channel is" : "; only \(names.joined(separator: ", ")) is"
                throw AdminFailure(.notFound, "\(channel) is not configured in the running service\(others)")
            }
            return try AdminResponse.json(outcomes)
        }
    }
}
