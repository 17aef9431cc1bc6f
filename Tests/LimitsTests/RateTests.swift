// SPDX-License-Identifier: Apache-2.0
import Limits
import Testing

@Suite struct RateTests {
    @Test(arguments: [
        ("100/1m", 100, 60_000, "100/1m"), ("1/1s", 1, 1000, "1/1s"), ("0/1h", 0, 3_600_000, "0/1h"),
        ("5k/1d", 5000, 86_400_000, "5000/1d"), ("5K/24h", 5000, 86_400_000, "5000/1d"),
        ("2M/7d", 2_000_000, 604_800_000, "2000000/1w"),
        ("3G/366d", 3_000_000_000, 31_622_400_000, "3000000000/366d"), ("7/90s", 7, 90_000, "7/90s"),
        ("007/1m", 7, 60_000, "7/1m"),
        ("1099511627775/1m", 1_099_511_627_775, 60_000, "1099511627775/1m"),
    ])
    func isRead(text: String, count: UInt64, milliseconds: Int64, description: String) throws {
        let rate = try #require(Rate(text))
        #expect(rate == Rate(count: count, window: Window(milliseconds: milliseconds)))
        #expect(rate.description == description)
        #expect(Rate(rate.description) == rate)
    }

    @Test(arguments: [
        "", "/", "100", "100/", "/1m", "100/1", "100/m", "100/1x", "100/1M", "100/1m/1h", "100/0s", "100/367d",
        "100/53w", "100/500ms",
        "-1/1m", "+1/1m", "1/+1m", "1/-1m", "1.5k/1m", "100 /1m", "100/1m ", "0x10/1m", "1_000/1m", "1e3/1m",
        "1099511627776/1m",
        "1100G/1m", "18446744073709551616/1m", "99999999999G/1m", "1/99999999999999999999d", "1/9223372036854775807w",
        "1m/100", "k/1m",
        "\u{661}/1m",
    ])
    func isNoRate(text: String) {
        #expect(Rate(text) == nil)
    }

    @Test(arguments: [
        (1000, "1s"), (59_000, "59s"), (60_000, "1m"), (90_000, "90s"), (3_600_000, "1h"), (5_400_000, "90m"),
        (86_400_000, "1d"),
        (604_800_000, "1w"), (691_200_000, "8d"),
    ])
    func durationAsText(milliseconds: Int64, expected: String) {
        #expect(Rate.text(ofDuration: milliseconds) == expected)
        #expect(Rate.duration(expected) == milliseconds)
    }
}
