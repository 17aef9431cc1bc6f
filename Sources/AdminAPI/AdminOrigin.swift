// SPDX-License-Identifier: Apache-2.0
internal import Settings

/// Whether a request comes from this machine. A page of another site can make a browser send one: from its own origin,
/// or under a host name of its own for this address (DNS rebinding).
package enum AdminOrigin {
    /// `weir limits` sends the host name `weir`; browsers and tunnels send a loopback name.
    ///
    /// - Parameter host: the value of `Host`; empty without one.
    package static func isOwn(host: String) -> Bool {
        let isBracketed = host.hasPrefix("[")
        let name = isBracketed ? String(host.prefix { $0 != "]" }.dropFirst()) : String(host.prefix { $0 != ":" })
        return ["", "weir", "localhost"].contains(name.lowercased()) || EndpointType.isLoopback(name)
    }

    /// - Parameters:
    ///   - origin: the value of `Origin`, if there is one.
    ///   - fetchSite: that of `Sec-Fetch-Site`.
    package static func isOwn(origin: String?, fetchSite: String?, host: String) -> Bool {
        let (own, site) = ("http://\(host)", fetchSite ?? "none")
        return (origin ?? own) == own && (site == "same-origin" || site == "none")
    }
}
