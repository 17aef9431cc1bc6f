// SPDX-License-Identifier: Apache-2.0
internal import CHiredis
internal import Sharing

/// Why the engine can't be used, in words for the operator.
package struct EngineFault: Error, Equatable, Sendable {
    /// A fault of the same kind is not reported again.
    package enum Kind: String, Sendable {
        case unreachable, silent, password, rights, loading, replica, cluster, memory, busy, disk, library, version
        case protocolError, other
    }

    package let kind: Kind
    /// What has happened, and what to do.
    package let message: String

    /// The engine does not answer.
    package init(silent message: String) { self.init(.silent, message) }

    init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    /// An error of libhiredis, or the end of the connection.
    init(error context: UnsafePointer<redisContext>) {
        switch context.pointee.err {
        case REDIS_OK, REDIS_ERR_EOF: self.init(.unreachable, "it closed the connection (is it running?)")
        case REDIS_ERR_PROTOCOL: self = .strange
        // Also for an array of more than `EngineConnection.mostElements`.
        case REDIS_ERR_OOM: self = .tooLong
        default:
            let reason = Self.printable(String(cString: weir_error(context)))
            self.init(.unreachable, "\(reason): is it running, and may Weir connect to it?")
        }
    }

    /// What has happened to a server of Sentinel.
    init(ofSentinel server: EngineAddress.Server, _ fault: EngineFault) {
        let reason =
            switch fault.kind {
            case .password: "it requires a password, or rejects it: check shared.sentinel_password_file"
            case .version, .protocolError: "it is no Sentinel, whose usual port is 26379"
            case .rights: "its user lacks the right +sentinel|get-master-addr-by-name"
            default: fault.message
            }
        self.init(fault.kind, "Sentinel at \(server): \(reason)")
    }

    /// An error reply.
    ///
    /// - Parameter command: what it answers. The reply to AUTH is not quoted: a server may repeat the password in it.
    init(reply: String, to command: String? = nil) {
        let word = reply.split(separator: " ").first.map(String.init) ?? ""
        let quoted = command == "AUTH" ? "it refuses the login" : "it answers '\(Self.printable(reply))'"
        (kind, message) =
            switch word {
            case "NOAUTH": (.password, "it requires a password: set shared.password_file (and shared.user)")
            case "WRONGPASS": (.password, "it rejects the password: check shared.user and shared.password_file")
            case "NOPERM":
                (.rights, "\(quoted): give the user \(Self.rights)")
            case "LOADING": (.loading, "it is still loading its data: Weir tries again until it is done")
            case "READONLY":
                (.replica, "it is a read-only replica: set shared.engine to the primary, or promote this server")
            case "MASTERDOWN":
                (.replica, "it is a replica without its primary: set shared.engine to the primary")
            case "MOVED", "ASK", "CLUSTERDOWN", "CROSSSLOT":
                (.cluster, "\(quoted): shared.engine must be the node of the cluster that has Weir's hash slot")
            case "OOM": (.memory, "its memory is full: raise maxmemory")
            case "BUSY": (.busy, "a script of another client keeps it busy: SCRIPT KILL or FUNCTION KILL ends that")
            case "MISCONF": (.disk, "it can't save its data, and so takes no writes: look at its log and its disk")
            case "NOSCRIPT": (.library, "it has lost Weir's functions: Weir loads them again")
            case "NOREPLICAS": (.replica, "it takes no writes without replicas (min-replicas-to-write)")
            default: Self.other(reply, quoted)
            }
    }

    private static func other(_ reply: String, _ quoted: String) -> (Kind, String) {
        if reply.contains("invalid password") || reply.contains("without any password configured") {
            return (.password, "it rejects the password: check shared.user and shared.password_file")
        }
        // Redis 7.0, and Redis from 7.2 and Valkey.
        if reply.contains("user executing the script can't") || reply.contains("ACL failure in script") {
            return (.rights, "\(quoted): give the user \(rights)")
        }
        if reply.contains("Function not found") {
            return (.library, "it has lost Weir's functions: Weir loads them again")
        }
        if reply.contains("unknown command") {
            return (.version, "\(quoted): it is not Valkey or Redis 7.0 or newer, or has renamed commands")
        }
        if reply.contains("max number of clients") {
            return (.busy, "it has no room for another client: raise maxclients")
        }
        return (.other, quoted)
    }

    /// What the user needs, for ACL SETUSER. The server checks the commands of the library as those of its caller.
    package static let rights =
        "~{weir:* +fcall +function|load +info +select +set +publish +subscribe +@hash +@sortedset +del +exists +time "
        + "&{weir:*"

    /// The beginning of what the server has sent, without control characters and without characters that change the
    /// direction of text.
    static func printable(_ text: String) -> String {
        String(
            String.UnicodeScalarView(
                text.unicodeScalars.prefix(200).map { scalar in
                    switch scalar.properties.generalCategory {
                    case .control, .format, .lineSeparator, .paragraphSeparator: " "
                    default: scalar
                    }
                }))
    }

    static let tooLong = EngineFault(
        .protocolError, "its answer is longer than any of Weir's library: is it Redis?")
    static let strange = EngineFault(.protocolError, "its answers are not those of Weir's library: is it Redis?")
}
