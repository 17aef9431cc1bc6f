// SPDX-License-Identifier: Apache-2.0
internal import AdminAPI
internal import Exchange
internal import HTTPTypes
internal import Hummingbird
internal import Limits
internal import Policy

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
        } catch is TooManyWalks {
            var response = try Self.response(.serviceUnavailable, "too many lists of keys are being made; try again")
            response.headers[.retryAfter] = "1"
            return response
        } catch let unsaved as ChangeNotSaved {
            return try Self.response(
                .serviceUnavailable,
                "the change is in force, but not saved, and is lost if the service ends before the ledger is saved: "
                    + unsaved.reason)
        } catch let fault as SelectionFault {
            return try Self.response(.badRequest, fault.description)
        } catch let fault as AdministrationFault {
            let isUnknown = if case .unknownLimit = fault { true } else { false }
            return try Self.response(isUnknown ? .notFound : .badRequest, fault.description)
        } catch let error as HTTPError where error.status == .notFound {
            // Of the router: of a path that it knows, it does not tell the methods.
            let response = try Self.response(
                .notFound,
                "nothing here answers \(request.method.rawValue) \(request.uri.path); "
                    + "docs/operation.md lists the paths")
            return request.method == .head ? response.createHeadResponse() : response
        }
    }

    private static func response(_ status: HTTPResponse.Status, _ text: String) throws -> Response {
        try AdminResponse.json(AdminMessages.Failure(error: text), status: status)
    }
}

/// Refuses requests that a page of another site makes a browser send (`AdminOrigin`).
struct AdminOriginMiddleware: RouterMiddleware {
    func handle(
        _ request: Request, context: AdminContext, next: (Request, AdminContext) async throws -> Response
    ) async throws -> Response {
        let host = request.head.authority ?? ""
        guard AdminOrigin.isOwn(host: host) else {
            context.closeSoon()
            throw AdminFailure(.misdirectedRequest, "the host name must be localhost or a loopback address")
        }
        let site = request.headers[Self.fetchSite]
        guard AdminOrigin.isOwn(origin: request.headers[.origin], fetchSite: site, host: host) else {
            context.closeSoon()
            throw AdminFailure(.forbidden, "requests from other sites are refused")
        }
        return try await next(request, context)
    }

    private static let fetchSite = HTTPField.Name("Sec-Fetch-Site")!
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
        let given = request.headers[.authorization] ?? ""
        guard AdminToken.isToken(token, in: given) else {
            context.closeSoon()
            throw AdminFailure(.unauthorized, given.isEmpty ? "missing token" : "wrong token")
        }
        return try await next(request, context)
    }

    private static func isOpen(_ path: String) -> Bool {
        path == "/healthz" || path == "/readyz" || AdminPage.contains(path)
    }
}
