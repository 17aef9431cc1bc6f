# SPDX-License-Identifier: Apache-2.0
"""Postfix's own header checks beside Weir as milter and as SMTP filter: the same tables and messages, the same result."""
import contextlib
import re
import unittest

from filtering import filtered_postfix
from milter import milter_postfix
from postfix import SMTP, PrivatePostfix, SMTPSink, wait_until
from weir import WeirService


@contextlib.contextmanager
def plain_postfix(sink_port, header="", body="", main=None):
    """Yields a Postfix that does the checks itself, and what stands in the place of Weir."""
    tables = WeirService()
    for name, lines in (("header", header), ("body", body)):
        (tables.directory / f"{name}.pcre").write_text(lines)
    tables.directory.chmod(0o755)
    own = {f"{name}_checks": f"pcre:{tables.directory}/{name}.pcre" for name, lines in (("header", header), ("body", body)) if lines}
    with tables, PrivatePostfix(main={**own, **(main or {})}, relay=sink_port) as postfix:
        yield postfix, tables


WAYS = {"postfix": plain_postfix, "milter": milter_postfix, "filter": filtered_postfix}


def headers(content):
    """The logical headers of a message, without the sink's Received:. Those of the Postfix under test become `Received: own`, once."""
    found = []
    for header in re.split(rb"\n(?![ \t])", content.replace(b"\r\n", b"\n").partition(b"\n\n")[0]):
        if re.match(rb"Received: .*by smtp-sink", header, re.S):
            continue
        if re.match(rb"Received: .*by (mx.example.org|localhost)", header, re.S):
            header = b"Received: own"
            if "Received: own" in found:
                continue
        found.append(header.decode())
    return found


class SameResult(unittest.TestCase):
    def deliveries(self, way, header, messages, main=None, local=False, **config):
        """The deliveries of each message as (sorted recipients, headers), sorted."""
        with SMTPSink() as sink, WAYS[way](sink.port, header, main=main, **(config if way != "postfix" else {})) as (postfix, weir):
            for content in messages:
                before = len(sink.messages())
                if local:
                    postfix.sendmail("a@example.org", ["b@example.com"], content)
                else:
                    with SMTP(postfix.port) as client:
                        reply = client.mail("a@example.org", ["b@example.com"], content)[-1]
                        self.assertEqual(reply[0], 250, (way, content, reply))
                wait_until(lambda: len(sink.messages()) > before, lambda: f"{way}\n{content}\n{postfix.log()}")
                postfix.wait_drained()
            deliveries = {}
            for message in sink.messages():
                number = re.search(rb"(?m)^X-Number: (\d+)$", message["content"])[1]
                deliveries.setdefault(int(number), []).append((sorted(message["recipients"]), headers(message["content"])))
            return [sorted(deliveries[number]) for number in sorted(deliveries)]

    def compare(self, header, messages, ways=("milter", "filter"), **options):
        messages = [f"X-Number: {number}\n{text}" for number, text in enumerate(messages)]
        expected = self.deliveries("postfix", header, messages, **options)
        self.assertEqual(len(expected), len(messages))
        for way in ways:
            found = self.deliveries(way, header, messages, **options)
            for number, content in enumerate(messages):
                with self.subTest(way=way, content=content):
                    self.assertEqual(found[number], expected[number])
        return expected

    def test_new_headers_are_delivered_as_written(self):
        """Also those that cleanup would drop, or would take a blank from, if a message brought them."""
        table = (
            "/^X-K: 1$/ PREPEND Bcc: archive@example.com\n/^X-K: 2$/ PREPEND Return-Path: <x@example.org>\n"
            "/^X-K: 3$/ PREPEND Content-Length: 7\n/^X-K: 4$/ PREPEND X-A : z\n/^X-K: 5$/ REPLACE X-A \t: z\n"
            "/^X-K: 6$/ REPLACE bcc : gone@example.com\n/^X-K: 7$/ PREPEND Resent-Bcc: q\n/^X-F: (.*)/ PREPEND BCC: $1\n"
            "/^X-K: 8$/ PREPEND X-Plain: y\n")
        messages = [f"Subject: x\nX-K: {number}\nTo: b@example.com\n\nbody\n" for number in range(1, 9)]
        messages += ["X-F: a\n\tb\n c\n\nbody\n"]
        expected = self.compare(table, messages, main={"local_header_rewrite_clients": ""})
        self.assertIn("Bcc: archive@example.com", expected[0][0][1])
        self.assertIn("X-A \t: z", expected[4][0][1])

    def test_addresses_of_actions(self):
        """One address, whatever is in its local part."""
        addresses = [
            "r@example.com, s@example.net", '"quoted"@example.com', "a b@example.com", "a,b@example.com", "a@b@example.com",
            "Real Name r@example.com", "<r@example.net", ".dot@example.com", "a..b@example.com", "back\\slash@example.com", "plus+x@example.com",
            "(c)r@example.com", "r@Example.COM"]
        for action in ("REDIRECT", "BCC"):
            table = "".join(f"/^X-K: {number}$/ {action} {address}\n" for number, address in enumerate(addresses))
            self.compare(table, [f"X-K: {number}\nTo: b@example.com\n\nbody\n" for number in range(len(addresses))],
                main={"local_header_rewrite_clients": ""})

    def test_places(self):
        """Of PREPEND and of REPLACE with a new name."""
        table = (
            "/^X-First:/ PREPEND X-New: above\n/^X-Old: (.*)/ REPLACE X-Renamed: $1\n/^X-Gone:/ IGNORE\n"
            "/^Subject:/ PREPEND X-Subject: above\n/^X-Last:/ REPLACE X-End: y\n")
        messages = [
            "X-First: 1\nX-Old: 2\nX-Gone: 3\nX-Old: 4\nSubject: x\nX-First: 5\nX-Last: 6\n\nbody\n",
            "Received: from there\n\tby elsewhere\nX-Old: 1\nX-Old: 2\nX-Gone: 3\nX-Gone: 4\nX-Last: 5\n\nbody\n",
            "X-Gone: 1\nX-Gone: 2\nX-Old: 3\nReceived: by elsewhere\nX-Last: 4\nX-Last: 5\n\nbody\n"]
        self.compare(table, messages, main={"local_header_rewrite_clients": ""})

    def test_headers_that_cleanup_adds_are_not_judged(self):
        table = "/^Message-I/ PREPEND X-Saw-Id: y\n/^Date:/ PREPEND X-Saw-Date: y\n/^From:/ PREPEND X-Saw-From: y\n/^To:/ PREPEND X-Saw-To: y\n"

        def saw(deliveries):
            return [[line for line in headers if line.startswith("X-Saw")] for ((_, headers),) in deliveries]
        messages = [
            "X-Number: 0\nSubject: x\n\nbody\n", "X-Number: 1\nFrom: c@example.org\nSubject: x\n\nbody\n",
            "X-Number: 2\nDate: x\nSubject: x\n\nbody\n", "X-Number: 3\nMessage-Id: <1@example.org>\nDate: x\nFrom: c@example.org\nTo: b@example.com\n\nbody\n",
            "X-Number: 4\nResent-From: c@example.org\nSubject: x\n\nbody\n"]
        for local in (False, True):
            for long in ("no", "yes"):
                main = {"enable_long_queue_ids": long, "undisclosed_recipients_header": "To: undisclosed-recipients:;"}
                found = {way: saw(self.deliveries(way, table, messages, main=main, local=local)) for way in WAYS}
                with self.subTest(local=local, long=long):
                    self.assertEqual(found["postfix"][0], [])
                    self.assertEqual(found["milter"], found["postfix"])
                    self.assertEqual(found["filter"], found["postfix"])


if __name__ == "__main__":
    unittest.main()
