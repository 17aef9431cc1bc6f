// SPDX-License-Identifier: Apache-2.0
import NIOCore
import Testing
import Wire

@Suite struct SocketAddressTextTests {
    @Test(arguments: [("192.0.2.1", 25, "192.0.2.1:25"), ("2001:db8::1", 10_040, "[2001:db8::1]:10040")])
    func hasHostAndPort(host: String, port: Int, text: String) throws {
        #expect(try SocketAddress(ipAddress: host, port: port).text == text)
    }

    @Test func isThePathOfASocket() throws {
        #expect(try SocketAddress(unixDomainSocketPath: "/run/weir/policy").text == "/run/weir/policy")
    }
}
