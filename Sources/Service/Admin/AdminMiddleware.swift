// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import HTTPTypes
internal import Hummingbird
internal import Limits
internal import Policy
internal import Settings

/// Turns errors into responses with `AdminMessages.Failure`.
struct AdminFailureMiddleware: RouterMiddleware {
    func handle(
        _ request: Request, context: AdminContext, next: (Request, AdminContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch let failure as AdminFailure {
            return try Self.response(failure.status, failure.text)
        } catch let unavailable as LedgerUnavailable {
            return try Self.response(.serviceUnavailable, "the ledger is not open: \(unavailable.reason)")
        } catch is TooManyListings {
            var response = try Self.response(.serviceUnavailable, "too many lists of keys are being made; try again")
            response.headers[.retryAfter] = "1"
            return response
        } catch let unsaved as ChangeNotSaved {
            return try Self.response(
                .serviceUnavailable,
                "the change is in force, but not saved, and is lost if the service ends before the ledger is saved: "
                    + unsaved.reason)
        } catch let fault as AdministrationFault {
            let isUnknown = if case .unknownLimit = fault { true } else { false }
            return try Self.response(isUnknown ? .notFound : .badRequest, fault.description)
        }
    }

    private static func response(_ status: HTTPResponse.Status, _ text: String) throws -> Response {
        try AdminResponse.json(AdminMessages.Failure(error: text), status: status)
    }
}

/// Refuses requests that a page of another site makes a browser send: under a host name of its own for this address
/// (DNS rebinding), or from its own origin.
struct AdminOriginMiddleware: RouterMiddleware {
    func handle(
        _ request: Request, context: AdminContext, next: (Request, AdminContext) async throws -> Response
    ) async throws -> Response {
        let host = request.head.authority ?? ""
        guard Self.isOwn(host) else {
            context.closeSoon()
            throw AdminFailure(.misdirectedRequest, "the host name must be localhost or a loopback address")
        }
        let origin = request.headers[.origin] ?? "http://\(host)"
        let site = request.headers[Self.fetchSite] ?? "none"
        guard origin == "http://\(host)", site == "same-origin" || site == "none" else {
            context.closeSoon()
            throw AdminFailure(.forbidden, "requests from other sites are refused")
        }
        return try await next(request, context)
    }

    private static let fetchSite = HTTPField.Name("Sec-Fetch-Site")!

    /// `weir limits` sends the host name `weir`; browsers and tunnels send a loopback name.
    private static func isOwn(_ host: String) -> Bool {
        let isBracketed = host.hasPrefix("[")
        let name = isBracketed ? String(host.prefix { $0 != "]" }.dropFirst()) : String(host.prefix { $0 != ":" })
        return ["", "weir", "localhost"].contains(name.lowercased()) || EndpointType.isLoopback(name)
    }
}

/// Refuses requests without the token. The page's files, `/healthz` and `/readyz` need none.
struct AdminTokenMiddleware: RouterMiddleware {
    let token: String

    func handle(
        _ request: Request, context: AdminContext, next: (Request, AdminContext) async throws -> Response
    ) async throws -> Response {
        if request.method == .get || request.method == .head, Self.isOpen(request.uri.path) {
            return try await next(request, context)
        }
        let given = Array((request.headers[.authorization] ?? "").utf8)
        let expected = Array("Bearer \(token)".utf8)
        // Compares all bytes: the time must not depend on where they differ.
        let difference = zip(given, expected).reduce(UInt8(given.count == expected.count ? 0 : 1)) {
            $0 | ($1.0 ^ $1.1)
        }
        guard difference == 0 else {
            context.closeSoon()
            throw AdminFailure(.unauthorized, given.isEmpty ? "missing token" : "wrong token")
        }
        return try await next(request, context)
    }

    private static func isOpen(_ path: String) -> Bool {
        path == "/healthz" || path == "/readyz" || AdminPage.contains(path)
    }
}
