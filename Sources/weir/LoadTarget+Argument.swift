// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import LoadGenerator
import Loop
import NIOCore

extension LoadTarget: ExpressibleByArgument {
    public init?(argument: String) {
        self.init(argument)
    }

    /// The address of this target, which must be on this machine.
    ///
    /// - Parameters:
    ///   - option: the option that gave the target.
    ///   - iOwn: the value of --i-own: this target is allowed on another machine, too. Only `weir load` has the option.
    /// - Throws: `ExitCode` 68 (EX_NOHOST) for a name that doesn't resolve, `ValidationError` for another machine.
    func localAddress(option: String, command: String, iOwn: LoadTarget? = nil) throws -> SocketAddress {
        let address: SocketAddress
        do {
            address = try resolve()
        } catch {
            StandardError.complain("can't resolve \(self): \(error.systemReason)", by: command)
            throw ExitCode(EX_NOHOST)
        }
        guard address.isLoopback || iOwn == self else {
            let permission = command == "load" ? "; if you are allowed to load it, add --i-own \(self)" : ""
            throw ValidationError("\(option) \(self) is not on this machine\(permission)")
        }
        return address
    }
}
