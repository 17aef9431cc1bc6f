// SPDX-License-Identifier: Apache-2.0

/// Something about the way in which Postfix and Weir are hooked up.
package struct Finding: Codable, Sendable, Equatable {
    package enum Severity: String, Codable, Sendable, CaseIterable {
        /// Mail is lost or stopped, goes in circles, or is not counted or checked at all.
        case fault
        /// Works, but not as most would want it.
        case warning
        /// Worth knowing.
        case note
    }

    package let severity: Severity
    /// What kind it is, such as `policy-behind-permit`; docs/doctor.md has them all.
    package let kind: String
    /// `submission/inet`, or main.cf.
    package let place: String
    package let text: String
    /// Commands that mend it.
    package let commands: [String]
    /// Lines of weir.yaml that mend it.
    package let configuration: [String]

    package init(
        severity: Severity, kind: String, place: String, text: String, commands: [String], configuration: [String]
    ) {
        self.severity = severity
        self.kind = kind
        self.place = place
        self.text = text
        self.commands = commands
        self.configuration = configuration
    }
}
