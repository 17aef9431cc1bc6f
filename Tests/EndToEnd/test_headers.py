# SPDX-License-Identifier: Apache-2.0
"""Headers that Postfix adds, and addresses in headers: Postfix alone beside Weir in each way in."""
import os
import re
import unittest

from postfix import SMTP, SMTPSink
from ways_in import OPEN, wait_settled
from weir import ROOT, UnixConnection, get, samples

WAYS = ["milter", "filter", "proxy", "pipe"]

# A new header as cleanup(8) writes it, by what the tests make of it.
ADDED = {
    rb"(?:\d{14}\.[0-9A-F]+|\w{12,})@mx\.example\.org": b"added",
    # Only the first cleanup(8) knows the name of the user of sendmail(1).
    rb"^From: .* <a@example\.org>": b"From: a@example.org",
    rb"\w{3}, [ \d]\d \w{3} 20[2-9]\d \d\d:\d\d:\d\d [+-]\d{4} \(\w+\)": b"added",
}
OWN = "Message-Id: <own@example.org>\nDate: Mon, 1 Jan 2001 00:00:00 +0000\nFrom: c@example.org\nTo: b@example.com\n"


def headers(content):
    """The logical headers of a message without Received:."""
    found = []
    for header in re.split(rb"\n(?![ \t])", content.replace(b"\r\n", b"\n").partition(b"\n\n")[0]):
        if not header.startswith(b"Received:"):
            for pattern, word in ADDED.items():
                header = re.sub(pattern, word, header)
            found.append(header.decode())
    return found


def send(postfix, text, client):
    """Sends a message: as sendmail(1), as a client on this machine, or as one whose address is not one of Postfix's."""
    if client == "sendmail":
        postfix.sendmail("a@example.org", ["b@example.com"], text)
        return
    with SMTP(postfix.port, source="127.0.0.2" if client == "remote" else None) as smtp:
        smtp.mail("a@example.org", ["b@example.com"], text)


class Removed(unittest.TestCase):
    """A rule takes away a header that cleanup adds where it is missing. Postfix adds it again for local clients."""
    maxDiff = None
    TABLE = (
        "/^Message-Id: <own@/ IGNORE\n/^Date: Mon, 1 Jan 2001/ STRIP\n/^From: c@/ REPLACE X-From: gone\n/^To: none/ IGNORE\n"
        "/^Resent-Date:/ IGNORE\n/^X-New: (.*)/ REPLACE From: $1\n/^Subject: two$/ PREPEND Date: x\n")
    MESSAGES = [
        OWN + "Subject: one\n\nbody\n",
        "Message-Id: <own@example.org>\nDate: y\nFrom: d@example.org\nSubject: two\n\nbody\n",
        "Message-Id: <other@example.org>\nFrom: c@example.org\nX-New: e@example.org\nDate: z\nSubject: three\n\nbody\n",
        OWN + "Resent-From: c@example.org\nResent-Date: Tue, 2 Jan 2001 00:00:00 +0000\nSubject: four\n\nbody\n",
        "Date: Mon, 1 Jan 2001 00:00:00 +0000\nSubject: five\n\nbody\n",
        "From: c@example.org\nSubject: six\nDate: Mon, 1 Jan 2001 00:00:00 +0000\n",
    ]

    def deliveries(self, way, client, main):
        with SMTPSink() as sink, OPEN[way](sink.port, self.TABLE, "", main) as (postfix, weir):
            for number, text in enumerate(self.MESSAGES):
                send(postfix, f"X-Number: {number}\n{text}", client)
            wait_settled(postfix, weir)
            found = {}
            for message in sink.messages():
                number = re.search(rb"(?m)^X-Number: (\d+)$", message["content"])[1]
                found[int(number)] = headers(message["content"])
            self.assertEqual(len(found), len(self.MESSAGES), postfix.log())
            return [found[number] for number in sorted(found)]

    def compare(self, client, ways, main=None):
        expected = self.deliveries("postfix", client, main or {})
        for way in ways:
            found = self.deliveries(way, client, main or {})
            for number, content in enumerate(self.MESSAGES):
                with self.subTest(way=way, client=client, content=content):
                    # A new Date comes after a From that cleanup had added before.
                    self.assertEqual(sorted(found[number]), sorted(expected[number]))
        return expected

    def test_client_on_this_machine(self):
        expected = self.compare("local", WAYS)
        self.assertEqual(expected[0][-3:], ["Message-Id: <added>", "Date: added", "From: a@example.org"])

    def test_client_on_this_machine_with_long_queue_ids(self):
        self.compare("local", ["milter", "pipe"], {"enable_long_queue_ids": "yes"})

    def test_other_client(self):
        expected = self.compare("remote", ["milter", "pipe"])
        self.assertEqual(expected[0], ["X-Number: 0", "X-From: gone", "To: b@example.com", "Subject: one"])

    def test_two_messages_of_a_connection_with_limits(self):
        """The macros of the connection still hold for the recipient of the second message."""
        limit = {"name": "server", "key": ["server_address"], "rates": ["1/1h"]}
        with SMTPSink() as sink, OPEN["milter"](sink.port, self.TABLE, "", {}, limits=[limit]) as (postfix, weir):
            with SMTP(postfix.port) as smtp:
                codes = [[code for code, _ in smtp.mail("a@example.org", ["b@example.com"], self.MESSAGES[0])] for _ in range(2)]
            self.assertEqual(codes, [[250, 354, 250], [450]])
            wait_settled(postfix, weir)
            (message,) = sink.messages()
            self.assertEqual(headers(message["content"])[-3:], ["Message-Id: <added>", "Date: added", "From: a@example.org"])

    def test_sendmail(self):
        self.compare("sendmail", ["milter", "filter"])


class Repaired(unittest.TestCase):
    """Addresses in headers: the table of docs/milter.md.

        WEIR_WRITE_GENERATED=1 python3 -m unittest test_headers.Repaired.test_table     writes it

    except for the column of Sendmail, which Tests/sendmail compares.
    """
    maxDiff = None
    PAGE = ROOT / "docs" / "milter.md"
    VALUES = [
        "bob@c.example", "Bob <bob@c.example> (work)", "Bob <@a.example,@b.example:bob@c.example>", "Bob <<bob@c.example>>", "bob @ c.example (Bob)",
        "Bob < bob@c.example >", '"bob"@c.example', '"B. B." <"b o"@c.example>', "Bob <bob@c.example.>", "Bob@C.EXAMPLE (Bob)",
        "(Bob) <Bob@C.EXAMPLE.>, u@c.example", "Friends: Bob <bob@C.EXAMPLE>, u@c.example;", "Bob bob@C.EXAMPLE", "a@b@C.EXAMPLE", "bob@", "<bob@C.EXAMPLE",
        "bob", "bob%c.example", "bob@localhost",
    ]

    def delivered(self, postfix, weir, sink, client, values, extra=""):
        """The From: of each message as it arrives."""
        for number, value in enumerate(values):
            send(postfix, f"X-Number: {number}\nFrom: {value}\nTo: b@example.com\n{extra}\nbody\n", client)
        wait_settled(postfix, weir)
        found = {}
        for message in sink.messages():
            number = re.search(rb"(?m)^X-Number: (\d+)$", message["content"])[1]
            (found[int(number)],) = [header.removeprefix("From: ") for header in headers(message["content"]) if header.startswith("From:")]
        return [found[number] for number in range(len(values))]

    def test_table(self):
        columns = []
        for client in ("local", "remote"):
            with SMTPSink() as sink, OPEN["postfix"](sink.port, "", "", {}) as (postfix, weir):
                columns.append(self.delivered(postfix, weir, sink, client, self.VALUES))
        repaired = {}
        for way in WAYS:
            with SMTPSink() as sink, OPEN[way](sink.port, "", "", {}, canonicalise="headers") as (postfix, weir):
                repaired[way] = self.delivered(postfix, weir, sink, "remote", self.VALUES)
                if way != "pipe":
                    log = weir.log()
                    self.assertIn(': From: "bob"@c.example becomes bob@c.example: header_quotes', log)
                    self.assertIn(": From: <Bob@C.EXAMPLE.> becomes <Bob@c.example>: header_trailing_dot, header_domain_case", log)
                    counts = samples(get(UnixConnection(weir.admin_socket), "/metrics")[1])
                    self.assertEqual(counts['weir_addresses_total{repair="header_source_route"}'], 1)
        for way in WAYS[1:]:
            self.assertEqual(repaired[way], repaired["milter"], way)
        columns.append(repaired["milter"])
        self.check(columns)

    def check(self, columns):
        page = self.PAGE.read_text()
        head, _, rest = page.partition("<!-- headers: begin -->\n")
        title, lines = "".join(rest.splitlines(True)[:2]), rest.splitlines()[2:]
        rows = ""
        for number, row in enumerate(zip(self.VALUES, *columns)):
            first, *others = [f"`{cell}`" for cell in row]
            cells = lines[number].split(" | ")
            sendmail = cells[1] if cells[0] == "| " + first else "?"
            rows += f"| {' | '.join([first, sendmail, *others])} |\n"
        expected = f"{head}<!-- headers: begin -->\n{title}{rows}<!-- headers: end -->\n" + rest.partition("<!-- headers: end -->\n")[2]
        if os.environ.get("WEIR_WRITE_GENERATED") == "1":
            self.PAGE.write_text(expected)
        self.assertEqual(self.PAGE.read_text(), expected, "docs/milter.md is out of date: run this test with WEIR_WRITE_GENERATED=1")

    def test_signed_mail(self):
        """A signature keeps all headers, unless signed_headers is set."""
        values, signature = ["Bob <bob@C.EXAMPLE>"], "DKIM-Signature: v=1; d=c.example; h=from; b=x\n"
        for words, expected in (("headers", values), (["headers", "signed_headers"], ["Bob <bob@c.example>"])):
            for way in ("milter", "filter"):
                with self.subTest(words=words, way=way), SMTPSink() as sink, \
                        OPEN[way](sink.port, "", "", {}, canonicalise=words) as (postfix, weir):
                    self.assertEqual(self.delivered(postfix, weir, sink, "remote", values, signature), expected)
                    if words == "headers":
                        weir.wait_logged("addresses in headers not repaired (1): the message has a DKIM-Signature")


if __name__ == "__main__":
    unittest.main()
