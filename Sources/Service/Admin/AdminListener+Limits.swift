// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Exchange
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
        router.get("limits/key") { [allHosts] request, _ in
            try AdminResponse.json(
                try await allHosts.standings(
                    ofKey: try request.parameter("key"), limit: request.uri.queryParameters.get("limit")))
        }
        router.get("hosts") { [allHosts] _, _ in
            try AdminResponse.json(allHosts.hosts ?? SharedFigures(fault: nil, hosts: []))
        }
        router.get("key") { [self] request, _ in
            try AdminResponse.json(try await page(ofKey: try request.parameter("key")))
        }
        router.post("limits/key") { [self] request, context in
            let message = try await request.json(
                AdminMessages.Intervention.self, "the body must be JSON with an action and a key")
            return try await intervene(message, by: await context.user())
        }
        router.get("limits/selection") { [self] request, _ in try await selection(request) }
        router.post("limits/selection") { [self] request, context in
            let message = try await request.json(
                AdminMessages.SelectionIntervention.self, "the body must be JSON with an action")
            return try await intervene(message, by: await context.user())
        }
    }

    private func fullest(_ request: Request) async throws -> Response {
        let parameters = request.uri.queryParameters
        let most = try request.most()
        let limit = parameters.get("limit")
        let withHistory = parameters.get("history") == "1"
        guard !withHistory || most <= Bounds.histories else {
            throw AdminFailure(.badRequest, "with history, most must be a number from 1 to \(Bounds.histories)")
        }
        return try await cache.response(to: request) { [allHosts] in
            try await allHosts.fullest(most, limit: limit, withHistory: withHistory)
        }
    }

    private func selection(_ request: Request) async throws -> Response {
        let parameters = request.uri.queryParameters
        let most = try request.most()
        return try AdminResponse.json(
            try await allHosts.keys(
                state: parameters.get("state"), limit: parameters.get("limit"), match: parameters.get("match"),
                most: most))
    }

    private func intervene(_ message: AdminMessages.SelectionIntervention, by user: String) async throws -> Response {
        let state: KeySelection.State
        switch message.action {
        case .reset: state = .used
        case .unraise: state = .raised
        case .block: state = .any
        case .unblock: state = .blocked
        case .raise: throw AdminFailure(.badRequest, "raise is for one key")
        }
        let selection = try KeySelection(limit: message.limit, match: message.match, state: state)
        let change = KeyChange(
            message.action, key: message.match.map { "--match '\($0)'" } ?? "--all", limit: message.limit, rates: [],
            duration: try Self.checked(message.duration), reason: try Self.checked(message.reason), user: user,
            details: Self.details(limit: message.limit, rates: [], duration: message.duration))
        return try AdminResponse.json(try await allHosts.apply(change, to: selection, most: message.most))
    }

    private func search(_ request: Request) async throws -> Response {
        let text = request.uri.queryParameters.get("text") ?? ""
        guard (1...Bounds.search).contains(text.utf8.count) else {
            throw AdminFailure(.badRequest, "text must have 1 to \(Bounds.search) bytes")
        }
        guard let result = try await allHosts.search(text) else {
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
        let change = KeyChange(
            message.action, key: message.key, limit: message.limit, rates: rates,
            duration: try Self.checked(message.duration), reason: try Self.checked(message.reason), user: user,
            details: Self.details(limit: message.limit, rates: rates, duration: message.duration))
        return try AdminResponse.json(try await allHosts.apply(change))
    }

    private static func checked(_ duration: Int64?) throws -> Int64? {
        if let duration, !(1...Bounds.duration).contains(duration) {
            throw AdminFailure(.badRequest, "the duration must be from 1 second to 10 years")
        }
        return duration
    }

    private static func checked(_ reason: String?) throws -> String {
        guard (reason ?? "").utf8.count <= Bounds.reason else {
            throw AdminFailure(.badRequest, "the reason can have at most \(Bounds.reason) bytes")
        }
        return reason ?? ""
    }

    private static func details(limit: String?, rates: [Rate], duration: Int64?) -> String {
        [
            limit.map { "limit \($0)" }, rates.isEmpty ? nil : rates.map(\.description).joined(separator: " "),
            duration.map { "for \(Rate.text(ofDuration: $0 * 1000))" },
        ].compactMap(\.self).joined(separator: ", ")
    }
}
