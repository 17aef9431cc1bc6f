# SPDX-License-Identifier: Apache-2.0
"""How Postfix splits a message into the records that it checks, and Weir too."""
import re
import unittest

from filtering import FilterService
from postfix import SMTP, SMTPSink, from_lines, wait_until
from ways_in import OPEN, normal

HEADERS = "From: a@example.org\nTo: b@example.com\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-Id: <1@example.org>\n"
# In records of 2,048 bytes the word is whole. If the leading dot counts twice, it is in two records.
LONG = "." + "x" * 2041 + "across" + "y" * 20 + "\n"


def bdat(client, content):
    """Sends a message by BDAT (RFC 3030)."""
    for command in ("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"):
        client.command(command, 250)
    data = content.replace("\n", "\r\n").encode()
    client.send(b"BDAT %d LAST\r\n" % len(data) + data)
    client.expect(250)


class LongLines(unittest.TestCase):
    def found(self, way):
        """How each message comes to Postfix, and whether a rule finds the word at the end of its first record."""
        with SMTPSink() as sink, OPEN[way](sink.port, "", "/across/ PREPEND found\n", {}) as (postfix, _):
            with SMTP(postfix.port) as client:
                client.mail("a@example.org", ["b@example.com"], f"{HEADERS}Subject: DATA\n\n{LONG}")
                bdat(client, f"{HEADERS}Subject: BDAT\n\n{LONG}")
            if way != "pipe":
                postfix.sendmail("a@example.org", ["b@example.com"], f"{HEADERS}Subject: sendmail\n\n{LONG}")
            count = 2 if way == "pipe" else 3
            wait_until(lambda: len(sink.messages()) == count, lambda: f"{way}\n{postfix.log()}")
            contents = [message["content"] for message in sink.messages()]
            return {re.search(rb"\nSubject: (\w+)\n", text)[1].decode(): b"\nfound\n" in text for text in contents}

    def test_a_leading_dot(self):
        """No way in shows that a message came by BDAT (docs/content-checks.md)."""
        self.assertEqual(self.found("postfix"), {"DATA": False, "BDAT": True, "sendmail": True})
        for way in ("milter", "filter"):
            with self.subTest(way=way):
                self.assertEqual(self.found(way), {"DATA": False, "BDAT": False, "sendmail": True})
        self.assertEqual(self.found("pipe"), {"DATA": False, "BDAT": False})


class FromLines(unittest.TestCase):
    """A client that is no Postfix gets from Weir what smtpd(8) makes of these lines."""

    RULES = "/^X-Mailbox-Line: / PREPEND X-Seen: here\n/^X-Old:/ IGNORE\n"
    STARTS = ["From x\n", "From x\nFrom y\n", ">From x\n>>From y\n", "From x\n folded\n", " From x\n", "From x\n\n", "Fromx\n",
              f"From {'x' * 3000}\n", f"From {'x' * 2043}From y\n", "X-First: 1\nFrom x\n"]

    def test_as_in_smtpd(self):
        messages = [f"{start}X-Number: {number}\nX-Old: 1\n{HEADERS}\nX-Number: {number}\n" for number, start in enumerate(self.STARTS)]
        with SMTPSink() as sink, OPEN["postfix"](sink.port, self.RULES, "", {"local_header_rewrite_clients": "", "smtp_line_length_limit": "0"}) as (postfix, _):
            expected = self.delivered(postfix.port, sink, messages)
        results = {}
        for setting in ("all", "first"):
            with SMTPSink() as sink, FilterService(sink.port, self.RULES, checks={"from_lines": setting}) as weir:
                results[setting] = self.delivered(weir.filter_port, sink, messages)
        self.assertEqual(results[from_lines()], expected)
        self.assertNotEqual(results["all"], results["first"])

    @staticmethod
    def delivered(port, sink, messages):
        with SMTP(port) as client:
            for content in messages:
                client.mail("a@example.org", ["b@example.com"], content)
        wait_until(lambda: len(sink.messages()) == len(messages), "delivered")
        contents = [normal(message["content"]).removeprefix(b"Received: of this Postfix").lstrip(b"\n") for message in sink.messages()]
        return sorted(contents, key=lambda content: int(re.search(rb"X-Number: (\d+)", content)[1]))


if __name__ == "__main__":
    unittest.main()
