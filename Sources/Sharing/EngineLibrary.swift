// SPDX-License-Identifier: Apache-2.0

/// The functions that hosts load into the engine (FUNCTION LOAD).
package enum EngineLibrary {
    /// With the version of its calls and data.
    package static let name = "weir_sharing_3"

    /// The hash tag of all keys.
    package static let group = "shared"

    /// The key of what is known of all hosts.
    package static func stateKey(group: String) -> String { "{weir:\(group)}:state" }

    package static var source: [UInt8] { PackageResources.library_lua }
}
