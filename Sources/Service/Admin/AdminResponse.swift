// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import HTTPTypes
internal import Hummingbird
internal import NIOCore
internal import Synchronization

/// A refused or failed request: `AdminFailureMiddleware` answers with the status and `AdminMessages.Failure`.
struct AdminFailure: Error {
    let status: HTTPResponse.Status
    let text: String

    init(_ status: HTTPResponse.Status, _ text: String) {
        self.status = status
        self.text = text
    }
}

enum AdminResponse {
    static func text(
        _ text: String, as type: String = "text/plain; charset=utf-8", status: HTTPResponse.Status = .ok
    ) -> Response {
        make(ByteBuffer(string: text), type, status)
    }

    static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok) throws -> Response {
        json(bytes: try encoded(value), status: status)
    }

    fileprivate static func json(bytes: ByteBuffer, status: HTTPResponse.Status = .ok) -> Response {
        make(bytes, "application/json", status)
    }

    fileprivate static func encoded(_ value: some Encodable) throws -> ByteBuffer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return ByteBuffer(bytes: try encoder.encode(value))
    }

    private static func make(_ body: ByteBuffer, _ type: String, _ status: HTTPResponse.Status) -> Response {
        Response(
            status: status, headers: [.contentType: type, .cacheControl: "no-store"], body: .init(byteBuffer: body))
    }
}

extension Request {
    /// The message in the body.
    ///
    /// - Parameter rule: the text of the failure if the body is not such JSON.
    /// - Throws: `AdminFailure`.
    func json<Message: Decodable>(_ type: Message.Type, _ rule: String) async throws -> Message {
        let bytes: ByteBuffer
        do {
            bytes = try await body.collect(upTo: AdminListener.Bounds.body)
        } catch is NIOTooManyBytesError {
            throw AdminFailure(.contentTooLarge, "the body has more than \(AdminListener.Bounds.body) bytes")
        }
        guard let message = try? JSONDecoder().decode(type, from: Data(bytes.readableBytesView)) else {
            throw AdminFailure(.badRequest, rule)
        }
        return message
    }

    /// A parameter that the request must have.
    func parameter(_ name: String) throws -> String {
        guard let value = uri.queryParameters.get(name) else {
            throw AdminFailure(.badRequest, "the parameter \(name) is missing")
        }
        return value
    }

    /// How old cached data may be, in seconds.
    fileprivate func age() throws -> Int64 {
        let text = uri.queryParameters.get("age") ?? "0"
        guard let age = Int64(text), age >= 0 else {
            throw AdminFailure(.badRequest, "age must be a whole number of seconds")
        }
        return age
    }

    /// How many keys the response may have.
    func most() throws -> Int {
        let text = uri.queryParameters.get("most") ?? "50"
        guard let most = Int(text), (1...AdminListener.Bounds.keys).contains(most) else {
            throw AdminFailure(.badRequest, "most must be a number from 1 to \(AdminListener.Bounds.keys)")
        }
        return most
    }
}

/// The latest JSON responses by path and query, because many open pages ask for the same at the same time.
final class AdminResponseCache: Sendable {
    private let responses = Mutex<[String: (bytes: ByteBuffer, madeAt: NIODeadline)]>([:])

    /// The cached response, if it is not older than the request's `age` in seconds; else a new one.
    func response(
        to request: Request, _ make: @Sendable () async throws -> some Encodable
    ) async throws -> Response {
        let age = min(AdminListener.Bounds.cachedAge, try request.age())
        guard age > 0 else { return try AdminResponse.json(try await make()) }
        let (uri, now) = (request.uri.string, NIODeadline.now())
        if let cached = responses.withLock({ $0[uri] }), now - cached.madeAt < .seconds(age) {
            return AdminResponse.json(bytes: cached.bytes)
        }
        let bytes = try AdminResponse.encoded(try await make())
        responses.withLock { responses in
            if responses.count >= AdminListener.Bounds.cachedResponses { responses = [:] }
            responses[uri] = (bytes, now)
        }
        return AdminResponse.json(bytes: bytes)
    }
}
