// SPDX-License-Identifier: Apache-2.0
internal import Wire

/// Reads `listen.filter`.
enum FilterReader {
    static func listeners(
        _ node: YAMLNode, _ key: String, _ reading: inout ConfigurationReading
    ) -> [Configuration.FilterListener] {
        if case .nothing = node.value { return [] }
        guard case .list(let items) = node.value else {
            reading.fault(node, key, "expected a list of filters, found \(node.kind)")
            return []
        }
        return items.enumerated().map { index, item in
            let key = "\(key)[\(index)]"
            var listener = Configuration.FilterListener.unset
            let found = reading.read(item, at: key, rows: ConfigurationKeys.filter, into: &listener)
            check(listener, found, key, &reading)
            return listener
        }
    }

    private static func check(
        _ listener: Configuration.FilterListener, _ found: [String: YAMLNode], _ key: String,
        _ reading: inout ConfigurationReading
    ) {
        if let node = found["listen"], listener.networks.isEmpty, case .inet(let host, _) = listener.listen,
            !EndpointType.isLoopback(host)
        {
            reading.fault(
                node, "\(key).listen",
                "'\(host)' is reachable from other machines, which makes it an open relay; list the clients in "
                    + "'networks'"
            )
        }
        if let node = found["networks"], case .unix = listener.listen, !listener.networks.isEmpty {
            reading.fault(
                node, "\(key).networks",
                "clients of a UNIX socket have no address; use 'mode' and 'group' of the socket instead")
        }
        if let node = found["next_hop"], found["listen"] != nil,
            listener.nextHop.endpoint.description == listener.listen.description
        {
            reading.fault(
                node, "\(key).next_hop",
                "'\(listener.nextHop)' is this filter itself, which makes a mail loop; expected the address of an smtpd"
            )
        }
        if let node = found["protocol"], listener.variant == .lmtp, listener.mode == .beforeQueue {
            reading.fault(
                node, "\(key).protocol", "smtpd_proxy_filter speaks only SMTP; use lmtp with 'mode: after_queue'")
        }
    }
}

extension Configuration.FilterListener {
    /// The start value for reading. Both addresses are required keys.
    static let unset = Configuration.FilterListener(
        listen: .unix(path: "", mode: EndpointType.filter.mode, group: nil),
        nextHop: .init(.unix(path: "", mode: EndpointType.filter.mode, group: nil)))
}
