// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Hummingbird
internal import Policy
internal import Report

/// Probe mails of `weir doctor`: begins one, tells where it was seen, ends it.
extension AdminListener {
    func addProbeRoutes(to router: Router<AdminContext>) {
        router.post("probe") { [host] request, _ in
            let stages = ProbeStage.allCases.map(\.rawValue).joined(separator: ", ")
            let rule = "the body must be JSON with the last stage, one of \(stages)"
            guard let last = try await request.json(AdminMessages.Probe.self, rule).last else {
                throw AdminFailure(.badRequest, rule)
            }
            let begun = ContinuousClock.now
            let token = host.probes.begin(upTo: last, at: begun)
            return try AdminResponse.json(AdminMessages.Probe(last: last, token: token, begun: begun))
        }
        router.get("probe") { [host] request, _ in
            try AdminResponse.json(host.probes.sightings(of: request.uri.queryParameters.get("token") ?? ""))
        }
        router.delete("probe") { [host] request, _ in
            let token = request.uri.queryParameters.get("token") ?? ""
            defer { host.probes.end(token) }
            return try AdminResponse.json(host.probes.sightings(of: token))
        }
    }
}
