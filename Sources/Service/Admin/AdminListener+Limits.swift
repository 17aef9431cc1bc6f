// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import HTTPTypes
internal import Hummingbird
internal import Limits
internal import Policy
internal import Report

/// Keys and limits: who has used how much, and changes by administrators.
extension AdminListener {
    func addLimitRoutes(to router: Router<AdminContext>) {
        router.get("limits") { [self] request, _ in try await fullest(request) }
        router.get("search") { [self] request, _ in try await search(request) }
        router.get("limits/key") { [host] request, _ in
            guard let key = request.uri.queryParameters.get("key") else {
                throw AdminFailure(.badRequest, "the parameter key is missing")
            }
            return try AdminResponse.json(
                try await host.standings(ofKey: key, limit: request.uri.queryParameters.get("limit")))
        }
        router.get("key") { [self] request, _ in
            guard let key = request.uri.queryParameters.get("key") else {
                throw AdminFailure(.badRequest, "the parameter key is missing")
            }
            return try AdminResponse.json(try await page(ofKey: key))
        }
        router.post("limits/key") { [self] request, context in
            guard let message = try await request.json(AdminMessages.Intervention.self) else {
                throw AdminFailure(.badRequest, "the body must be JSON with an action and a key")
            }
            return try await intervene(message, by: await context.user())
        }
    }

    private func fullest(_ request: Request) async throws -> Response {
        let parameters = request.uri.queryParameters
        let most = parameters.get("most", as: Int.self) ?? 50
        guard (1...Bounds.keys).contains(most) else {
            throw AdminFailure(.badRequest, "most must be a number from 1 to \(Bounds.keys)")
        }
        let limit = parameters.get("limit")
        let withHistory = parameters.get("history") == "1"
        guard !withHistory || most <= Bounds.histories else {
            throw AdminFailure(.badRequest, "with history, most must be a number from 1 to \(Bounds.histories)")
        }
        return try await cache.response(to: request) { [host] in
            try await host.fullest(most, limit: limit, withHistory: withHistory)
        }
    }

    private func search(_ request: Request) async throws -> Response {
        let text = request.uri.queryParameters.get("text") ?? ""
        guard (1...Bounds.search).contains(text.utf8.count) else {
            throw AdminFailure(.badRequest, "text must have 1 to \(Bounds.search) bytes")
        }
        guard let result = try await host.search(text) else {
            throw AdminFailure(.tooManyRequests, "another search is running; try again")
        }
        return try AdminResponse.json(result)
    }

    private func intervene(_ message: AdminMessages.Intervention, by user: String) async throws -> Response {
        let rates = try (message.rates ?? []).map { text in
            guard let rate = Rate(text) else {
                throw AdminFailure(.badRequest, "'\(text)' is not a rate; write N/window, such as 500/1h")
            }
            return rate
        }
        if message.action == .raise, rates.isEmpty {
            throw AdminFailure(.badRequest, "raise needs rates, such as 500/1h")
        }
        if let duration = message.duration, !(1...Bounds.duration).contains(duration) {
            throw AdminFailure(.badRequest, "the duration must be from 1 second to 10 years")
        }
        guard (message.reason ?? "").utf8.count <= Bounds.reason else {
            throw AdminFailure(.badRequest, "the reason can have at most \(Bounds.reason) bytes")
        }
        let details = [
            message.limit.map { "limit \($0)" }, rates.isEmpty ? nil : rates.map(\.description).joined(separator: " "),
            message.duration.map { "for \($0)s" },
        ].compactMap(\.self).joined(separator: ", ")
        let change = KeyChange(
            message.action, key: message.key, limit: message.limit, rates: rates, duration: message.duration,
            reason: message.reason ?? "", user: user, details: details)
        return try AdminResponse.json(try await host.apply(change))
    }
}
