// SPDX-License-Identifier: Apache-2.0
import Filter
import Testing

@Suite struct MessageFilterTests {
    @Test func x() {}
}
