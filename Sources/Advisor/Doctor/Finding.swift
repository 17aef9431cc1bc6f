// SPDX-License-Identifier: Apache-2.0

/// A finding about the connection of Postfix and Weir.
package struct Finding: Codable, Sendable, Equatable {
    package enum Severity: String, Codable, Sendable, CaseIterable {
        /// Mail is lost, stopped or looped, or not counted or checked.
        case fault
        /// It works, but probably not as intended.
        case warning
        /// Information.
        case note
    }

    package let severity: Severity
    /// A stable identifier such as `policy-behind-permit`; docs/doctor.md lists all.
    package let kind: String
    /// `submission/inet`, or main.cf.
    package let place: String
    package let text: String
    /// Commands that fix it.
    package internal(set) var commands: [String]
    /// Lines of weir.yaml that fix it.
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
