// SPDX-License-Identifier: Apache-2.0
import Filter
import Foundation
import MailSyntax
import Yams

/// The `checks:` section of the configuration file at `path`.
func loadContentChecks(configPath path: String) throws -> ContentChecks {
    struct File: Decodable {
        struct Checks: Decodable {
            var header: [String]?
            var mime_header: [String]?
            var nested_header: [String]?
            var body: [String]?
            var undisclosed_recipients: String?
            var fast_pass: Bool?
            var cache: String?
            var header_size_limit: Int?
            var line_length_limit: Int?
            var body_checks_size_limit: Int?
            var mime_boundary_length_limit: Int?
            var mime_nesting_limit: Int?
        }
        var checks: Checks?
    }

    let text = try String(contentsOfFile: path, encoding: .utf8)
    let section = try YAMLDecoder().decode(File.self, from: text).checks
    var checks = ContentChecks()
    checks.header = section?.header ?? []
    checks.mimeHeader = section?.mime_header
    checks.nestedHeader = section?.nested_header
    checks.body = section?.body ?? []
    checks.undisclosedRecipients =
        section?.undisclosed_recipients.flatMap { .init(rawValue: $0) } ?? .strip
    checks.fastPass = section?.fast_pass ?? true
    checks.cacheDirectory = section?.cache
    var limits = ScannerLimits()
    limits.headerSize = section?.header_size_limit ?? limits.headerSize
    limits.lineLength = section?.line_length_limit ?? limits.lineLength
    limits.bodyChecksSize = section?.body_checks_size_limit ?? limits.bodyChecksSize
    limits.mimeBoundaryLength = section?.mime_boundary_length_limit ?? limits.mimeBoundaryLength
    limits.mimeNesting = section?.mime_nesting_limit ?? limits.mimeNesting
    checks.scannerLimits = limits
    return checks
}
