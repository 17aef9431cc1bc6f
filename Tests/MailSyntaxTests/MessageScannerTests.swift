// SPDX-License-Identifier: Apache-2.0
import MailSyntax
import Testing

@Suite struct MessageScannerTests {
    @Test func x() {}
}
