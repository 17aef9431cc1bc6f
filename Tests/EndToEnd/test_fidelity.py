# SPDX-License-Identifier: Apache-2.0
"""Postfix's own header checks beside Weir as milter and as SMTP filter: the same tables and messages, the same result."""
import contextlib
import re
import struct
import unittest

from filtering import NextHop, dialogue, filtered_postfix
from milter import ForeignMilter, MilterService, milter_postfix
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


PLACES = (
    "/^X-First:/ PREPEND X-New: above\n/^X-Old: (.*)/ REPLACE X-Renamed: $1\n/^X-Gone:/ IGNORE\n"
    "/^Subject:/ PREPEND X-Subject: above\n/^X-Last:/ REPLACE X-End: y\n")
PLACED = [
    "X-First: 1\nX-Old: 2\nX-Gone: 3\nX-Old: 4\nSubject: x\nX-First: 5\nX-Last: 6\n\nbody\n",
    "Received: from there\n\tby elsewhere\nX-Old: 1\nX-Old: 2\nX-Gone: 3\nX-Gone: 4\nX-Last: 5\n\nbody\n",
    "X-Gone: 1\nX-Gone: 2\nX-Old: 3\nReceived: by elsewhere\nX-Last: 4\nX-Last: 5\n\nbody\n"]


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

    def test_a_redirected_message_keeps_parameters(self):
        """Notifications that the sender has asked for, or wants none of."""
        envelopes = [
            ["<b@example.com>"], ["<b@example.com> NOTIFY=NEVER"], ["<b@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;q+2Bx@example.com"],
            ["<c@example.com>", "<b@example.com> NOTIFY=NEVER"], ["<B@example.com> NOTIFY=FAILURE", "<a@example.com>", "<c@example.com> NOTIFY=NEVER"]]
        found = {}
        for way in WAYS:
            messages = []
            replies = {"EHLO": "250-hop.example.org\r\n250-8BITMIME\r\n250 DSN"}
            with NextHop(dialogue(replies, messages)) as hop, WAYS[way](hop.port, "/^Subject:/ REDIRECT r@example.net\n") as (postfix, _):
                for number, recipients in enumerate(envelopes):
                    with SMTP(postfix.port) as client:
                        client.command(f"MAIL FROM:<{number}@example.org> RET=HDRS ENVID=e", 250)
                        for recipient in recipients:
                            client.command(f"RCPT TO:{recipient}", 250)
                        client.command("DATA", 354)
                        client.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
                        client.expect(250)
                wait_until(lambda: len(messages) == len(envelopes), postfix.log)
            # Where the sender names no original recipient, the MTA that adds a recipient does.
            found[way] = sorted([re.sub(r"@.* RET", " RET", mail), re.sub(r" ORCPT=rfc822;[\w]+@\S+", "", recipient)] for (mail, recipient, _), _ in messages)
        self.assertEqual(found["postfix"][1][1], "RCPT TO:<r@example.net> NOTIFY=NEVER")
        self.assertEqual(found["milter"], found["postfix"])
        self.assertEqual(found["filter"], found["postfix"])

    def test_places(self):
        """Of PREPEND and of REPLACE with a new name."""
        self.compare(PLACES, PLACED, main={"local_header_rewrite_clients": ""})

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

    def test_after_a_milter_that_puts_a_header_above_received(self):
        table = "/^X-First:/ PREPEND X-New: above\n/^X-Old: (.*)/ REPLACE X-Renamed: $1\n/^X-Gone:/ IGNORE\n"
        message = "X-Number: 0\nX-First: 1\nX-Old: 2\nX-Gone: 3\nReceived: by elsewhere\nX-First: 4\nX-Old: 5\n\nbody\n"
        found = {}
        for way in ("postfix", "milter"):
            with EarlierMilter() as earlier, SMTPSink() as sink, WAYS[way](sink.port, table, main={"local_header_rewrite_clients": ""}) as (postfix, weir):
                milters = [earlier.address] + ([f"inet:127.0.0.1:{weir.milter_port}"] if way == "milter" else [])
                postfix.set(smtpd_milters=", ".join(milters))
                with SMTP(postfix.port) as client:
                    self.assertEqual(client.mail("a@example.org", ["b@example.com"], message)[-1][0], 250, postfix.log())
                wait_until(sink.messages, postfix.log)
                found[way] = headers(sink.messages()[0]["content"])
        self.assertEqual(found["postfix"][:2], ["X-Early: y", "Received: own"])
        self.assertEqual(found["milter"], found["postfix"])

    def test_rules_for_headers_above_received(self):
        """A policy server puts a header above Postfix's own Received:, and rules change headers above and below it.

        The milter protocol does not show that Received:. So a new header for one above it lands one place lower in the milter.
        """
        table = "/^X-Policy: (.*)/ PREPEND X-New: $1\n/^X-First:/ PREPEND X-New: first\n/^X-Old: (.*)/ REPLACE X-Renamed: $1\n"
        message = "X-First: 1\nX-Old: 2\nX-Last: 3\n\nbody\n"
        found = {}
        for way in WAYS:
            with SMTPSink() as sink, WAYS[way](sink.port, table, main={"local_header_rewrite_clients": ""}) as (postfix, _):
                postfix.set(smtpd_recipient_restrictions="check_client_access static:{PREPEND X-Policy: p}, permit_mynetworks, reject")
                with SMTP(postfix.port) as client:
                    self.assertEqual(client.mail("a@example.org", ["b@example.com"], message)[-1][0], 250, postfix.log())
                wait_until(sink.messages, postfix.log)
                found[way] = headers(sink.messages()[0]["content"])
        below = ["X-New: first", "X-First: 1", "X-Renamed: 2", "X-Last: 3"]
        self.assertEqual(found["postfix"], ["X-New: p", "X-Policy: p", "Received: own", *below])
        self.assertEqual(found["milter"], ["X-Policy: p", "X-New: p", "Received: own", *below])
        self.assertEqual(found["filter"], ["Received: own", "X-New: p", "X-Policy: p", *below])

    def test_refusals_with_utf8(self):
        for enabled in (True, False):
            main, checks = {"smtputf8_enable": "yes" if enabled else "no"}, {"smtputf8_enable": enabled}
            replies = {}
            for way in ("postfix", "milter"):
                options = {} if way == "postfix" else {"checks": checks}
                with SMTPSink() as sink, WAYS[way](sink.port, "/^Subject:/ REJECT caf\u00e9 \u20ac ferm\u00e9\n", main=main, **options) as (postfix, _):
                    with SMTP(postfix.port) as client:
                        replies[way] = client.mail("a@example.org", ["b@example.com"])[-1]
            with self.subTest(enabled=enabled):
                self.assertEqual(replies["milter"], replies["postfix"])
                self.assertEqual(replies["postfix"][0], 550)

    def test_log_lines_of_the_filter(self):
        """The queue ID and the client are Postfix's, and the end of a folded header is there."""
        table = "/^Content-Disposition:.*evil/ WARN a name\n"
        message = 'X-Number: 0\nContent-Disposition: attachment;\n\tfilename="evil.exe"\n\nbody\n'
        lines = {}
        for way in ("postfix", "filter"):
            with SMTPSink() as sink, WAYS[way](sink.port, table) as (postfix, weir):
                with SMTP(postfix.port) as client:
                    reply = client.mail("a@example.org", ["b@example.com"], message)[-1][1]
                wait_until(sink.messages, postfix.log)
                log = (postfix if way == "postfix" else weir).log()
                lines[way] = re.search(r"Content-Disposition: attachment;.*?exe\"", log)[0]
                if way == "filter":
                    queue_id = re.search(r"queued as (\S+)", reply)[1]
                    self.assertIn(f": filter: {queue_id}: from=<a@example.org> client=", log)
                    self.assertRegex(log, r" client=\S+\[127\.0\.0\.1\]: mime_header_checks ")
        self.assertEqual(lines["filter"], lines["postfix"])

    def test_reason_of_a_hold(self):
        """The rule's own text, of the first of several."""
        with MilterService("/^Subject:/ HOLD looks odd\n/^To:/ HOLD second\n/^X-K:/ HOLD\n") as weir, weir.mta() as mta:
            mta.connect()
            for headers, reason in (((("Subject", " x"), ("To", " b")), b"looks odd"), ((("X-K", " y"), ("To", " b")), b"header or body check")):
                mta.mail()
                self.assertEqual(mta.content(headers), [("q", reason + b"\0"), ("c", b"")])

    def test_a_body_without_an_empty_line_goes_on_as_it_came(self):
        """The Postfix behind the filter inserts the line, or says that there is none (non_empty_end_of_header_action)."""
        messages = ["Subject: x\nno header\nbody\n", "Subject: x\nno header: really: not\n\nbody\n"]
        for before_queue in (False, True):
            listener = {"mode": "before_queue" if before_queue else "after_queue"}
            bodies = {}
            for way in ("postfix", "filter"):
                options = {} if way == "postfix" else {"listener": listener, "before_queue": before_queue}
                with SMTPSink() as sink, WAYS[way](sink.port, "/^X-Old:/ IGNORE\n", **options) as (postfix, _):
                    for content in messages:
                        with SMTP(postfix.port) as client:
                            self.assertEqual(client.mail("a@example.org", ["b@example.com"], content)[-1][0], 250)
                    wait_until(lambda: len(sink.messages()) == len(messages), postfix.log)
                    postfix.wait_drained()
                    bodies[way] = sorted(message["content"].partition(b"\n\n")[2] for message in sink.messages())
            with self.subTest(before_queue=before_queue):
                self.assertEqual(bodies["filter"], bodies["postfix"])


class EarlierMilter(ForeignMilter):
    """A milter that puts a header above all others."""

    def answer(self, message, command, payload, send):
        if command == b"O":
            # SMFIF_ADDHDRS, and every SMFIP_NO* flag: only the end of a message comes.
            send(b"O", struct.pack(">III", 6, 1, 0x37F))
        elif command == b"E":
            send(b"i", struct.pack(">I", 0) + b"X-Early\0y\0")
            send(b"c")


if __name__ == "__main__":
    unittest.main()
