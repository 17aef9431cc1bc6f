// SPDX-License-Identifier: Apache-2.0
import LoadGenerator
import NIOCore
import Testing

@Suite struct LoadTargetTests {
    @Test(arguments: [
        ("inet:127.0.0.1:10040", LoadTarget.inet(host: "127.0.0.1", port: 10040)),
        ("inet:[::1]:25", .inet(host: "::1", port: 25)),
        ("inet:localhost:65535", .inet(host: "localhost", port: 65535)),
        ("unix:/run/weir/policy", .unix(path: "/run/weir/policy")),
    ])
    func `reads Postfix's notation and writes it again`(text: String, target: LoadTarget) throws {
        #expect(LoadTarget(text) == target)
        #expect(target.description == text)
    }

    @Test(arguments: [
        "", "unix:", "inet:", "inet:25", "inet:host:", "inet::25", "inet:host:0", "inet:host:65536", "tcp:a:1",
    ])
    func `takes nothing else`(text: String) {
        #expect(LoadTarget(text) == nil)
    }

    @Test(arguments: [
        ("127.0.0.1", true), ("127.255.0.3", true), ("::1", true), ("192.0.2.1", false), ("0.0.0.0", false),
        ("2001:db8::1", false), ("::ffff:192.0.2.1", false), ("::", false),
    ])
    func `knows loopback addresses`(address: String, isLoopback: Bool) throws {
        #expect(try SocketAddress(ipAddress: address, port: 25).isLoopback == isLoopback)
    }
}
