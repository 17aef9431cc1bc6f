// SPDX-License-Identifier: Apache-2.0
internal import Settings

/// The logins of this machine by name (passwd(5)). The sender of mail from sendmail(1) is the login of the user who
/// runs it, and the milter protocol says nothing else about that user.
struct LocalAccounts {
    private var userIDs: [[UInt8]: [UInt8]] = [:]

    private static let largest = 16 << 20

    /// - Parameter passwd: the file; an unreadable one counts as empty.
    init(passwd: String = "/etc/passwd") {
        self.init((try? BoundedFile.read(passwd, upTo: Self.largest).get()) ?? [])
    }

    init(_ passwd: [UInt8]) {
        for line in passwd.split(separator: UInt8(ascii: "\n")) {
            let fields = line.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
            guard fields.count >= 3, !fields[2].isEmpty else { continue }
            userIDs[Array(fields[0])] = Array(fields[2])
        }
    }

    /// The user ID, in digits, of the sender's login; nil if the sender is no login of this machine.
    ///
    /// - Parameters:
    ///   - sender: in its internal form.
    ///   - host: the MTA's name. Its parent domains count as this machine's, too (`myorigin`).
    func userID(of sender: ArraySlice<UInt8>, host: [UInt8]) -> [UInt8]? {
        let at = sender.lastIndex(of: UInt8(ascii: "@"))
        guard let userID = userIDs[Array(sender[..<(at ?? sender.endIndex)])] else { return nil }
        guard let at else { return userID }
        let domain = sender[(at + 1)...]
        let isOwn =
            domain.elementsEqual(host)
            || !domain.isEmpty && host.suffix(domain.count + 1).elementsEqual([UInt8(ascii: ".")] + domain)
        return isOwn ? userID : nil
    }
}
