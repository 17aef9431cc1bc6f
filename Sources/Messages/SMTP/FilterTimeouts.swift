// SPDX-License-Identifier: Apache-2.0
package import NIOCore
package import Settings

/// After how long the filter gives up.
package struct FilterTimeouts: Sendable {
    /// For the next command or piece of content of a client (RFC 5321 4.5.3.2.7).
    package var client: TimeAmount = .seconds(300)
    /// For all of the content of one message, without the time that the spool takes.
    package var content: TimeAmount = .seconds(3600)
    /// For one read or write of the spool.
    package var disk: TimeAmount
    /// For a client to read the last reply, and to stop sending.
    package var linger: TimeAmount = .seconds(2)
    package var connect: TimeAmount = .seconds(10)
    /// For a reply of the next hop.
    package var reply: TimeAmount
    /// For its reply to the final dot (RFC 5321 4.5.3.2.6).
    package var finalReply: TimeAmount
    /// For the answer to a client's final dot: the disk, the next hop's DATA, the content and the final reply together.
    /// An LMTP client waits for each reply anew.
    package var answer: TimeAmount
    /// How long an idle connection to the next hop is kept.
    package var idle: TimeAmount = .seconds(5)
    /// How long the next hop's capabilities are taken as known without a connection to it.
    package var capabilities: TimeAmount = .seconds(60)
    /// How often the timeouts are checked.
    package var sweep: TimeAmount = .seconds(1)

    package init(mode: Configuration.FilterListener.Mode) {
        switch mode {
        // smtp(8) waits 1800 s (smtp_data_done_timeout in conf/postfix/master.cf).
        case .afterQueue:
            (disk, reply, finalReply, answer) = (.seconds(300), .seconds(300), .seconds(600), .seconds(1400))
        // smtpd(8) waits 100 s (smtpd_proxy_timeout). Its final dot may have to wait for one write of the spool.
        case .beforeQueue:
            (disk, reply, finalReply, answer) = (.seconds(20), .seconds(80), .seconds(70), .seconds(70))
        }
    }
}
