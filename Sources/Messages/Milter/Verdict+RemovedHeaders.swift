// SPDX-License-Identifier: Apache-2.0
internal import Filter
internal import Glibc
internal import Wire

extension Verdict {
    /// The headers that cleanup(8) would add again if its own checks had removed them.
    ///
    /// It does so for clients in `local_header_rewrite_clients`: by default, those that connect to the address that
    /// they come from, and sendmail(1). Another header that it has added shows that the client is one of them, too.
    func replacements(for macros: MilterMacros) -> [NewHeader] {
        guard let removed else { return [] }
        let address = macros["client_addr"] ?? []
        guard removed.isClientLocal || !address.isEmpty && address == macros["daemon_addr"] else { return [] }
        let client = LocalClient(
            queueID: macros["i"] ?? [], hostName: macros["j"] ?? [], sender: macros["mail_addr"] ?? [])
        return client.replacements(of: removed, at: time(nil))
    }
}
