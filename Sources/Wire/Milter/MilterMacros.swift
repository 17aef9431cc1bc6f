// SPDX-License-Identifier: Apache-2.0
internal import Glibc
package import NIOCore

/// The requested macros that an MTA has sent (SMFIC_MACRO), by name without braces.
package struct MilterMacros: Sendable {
    private struct Macro {
        let name: [UInt8]
        let value: [UInt8]
        let scope: Scope
    }

    /// How long a macro holds.
    package enum Scope: Sendable {
        /// For all messages: sent with CONNECT or HELO.
        case connection
        /// Until the end of the message: sent with MAIL and later commands.
        case message
    }

    private var macros: [Macro] = []
    /// Counts the changes: as long as it is the same, so are the values.
    package private(set) var version = 0

    /// Bytes of a value. Addresses and certificate subjects are far shorter; a longer value is ignored.
    private static let longestValue = 4_096

    package init() {}

    /// The value of a macro, named without braces.
    package subscript(name: StaticString) -> [UInt8]? {
        let name = UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        return macros.last { macro in
            macro.name.count == name.count && memcmp(macro.name, name.baseAddress!, name.count) == 0
        }?.value
    }

    package mutating func set(_ name: [UInt8], to value: ByteBuffer, for scope: Scope) {
        if let known = macros.last(where: { $0.name == name }), known.scope == scope,
            known.value.elementsEqual(value.readableBytesView)
        {
            return
        }
        version += 1
        macros.removeAll { $0.name == name }
        guard value.readableBytes <= Self.longestValue else { return }
        macros.append(Macro(name: name, value: Array(value.readableBytesView), scope: scope))
    }

    package mutating func endMessage() {
        version += 1
        macros.removeAll { $0.scope == .message }
    }
}
