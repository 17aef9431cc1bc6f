# SPDX-License-Identifier: Apache-2.0
"""What each way in does, beside Postfix alone: the tables of docs/ways-in.md.

Every case is a message and the rules that it meets. It goes through Postfix with the rules in its own header_checks and
body_checks, and through a Postfix with Weir in each way. What becomes of it is put into words, which are the cells. A
cell is "same" only if everything is the same as with Postfix alone: the reply to the client, the recipients, and every
byte but for trace headers. A difference that the words do not show fails the test.

    WEIR_WRITE_GENERATED=1 python3 -m unittest test_matrix      writes the page
"""
import os
import re
import subprocess
import unittest

from filtering import FilterService
from postfix import SMTP, SMTPSink, free_port
from ways_in import OPEN, normal, wait_settled
from weir import BINARY, ENVIRONMENT, ROOT

PAGE = ROOT / "docs" / "ways-in.md"
WAYS = {"milter": "milter", "filter": "filter after the queue", "proxy": "filter before the queue", "pipe": "`weir filter`"}
MAIN = {"message_size_limit": "400000", "undisclosed_recipients_header": "To: undisclosed-recipients:;"}
# What every message has.
HEADERS = "From: a@example.org\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-Id: <1@example.org>\n"
TO = "To: b@example.com\n"


class Case:
    """One row: its name, header and body of the message, its rules, and what becomes of it in words.

    `words` maps a text to what the delivered content must contain for it; the first that fits counts.
    """

    def __init__(self, row, head="", body="text\n", header=(), in_body=(), words=None, basis=HEADERS + TO, helo="client.example.org"):
        self.row, self.words, self.helo = row, words or {}, helo
        self.header, self.in_body = header, in_body
        self.message = f"{basis}{head}\n{body}"


def action(row, right, words=None, head="X-Do: {}\n", **options):
    """A row for an action of a header rule."""
    mark = re.sub(r"\W", "-", row.lower())
    return Case(row, head.format(mark), header=[rf"/^X-Do: ({mark})$/ {right}"], words=words, **options)


def seen(row, name, value="here", **options):
    """A row for whether rules see a header."""
    mark = re.sub(r"\W", "-", row.lower())
    return Case(row, f"{name}: {mark}.{value}\n", header=[rf"/^{name}: ({mark}\.)/ PREPEND X-Seen: yes"], words=SEEN, **options)


SEEN = {"seen": "X-Seen: yes\n", "not seen": ""}
LONG = "".join(f"\n {number:05} {'x' * 60}" for number in range(1040))
# By lines of 68 bytes.
CUT = {"cut to 102,400 bytes": "\n 01500 ", "cut to 60,000 bytes": "\n 00880 "}
VERY_LONG = "".join(f"\n {number:05} {'x' * 60}" for number in range(2300))
MIME = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b1\n"
PARTS = "--b1\nContent-Type: {}\n{}\n--b1--\n"


def cases(other_sink):
    """The rows, by the titles of their tables."""
    return {
        "Actions": [
            action("REJECT", "REJECT 5.7.1 no"),
            action("REJECT with a 4.x.x code", "REJECT 4.7.1 later"),
            action("DISCARD", "DISCARD"),
            action("HOLD", "HOLD"),
            action("FILTER", f"FILTER smtp:[127.0.0.1]:{other_sink}"),
            action("FILTER with blanks in its target", "FILTER error:5.7.1 go away"),
            action("REDIRECT", "REDIRECT r@example.com"),
            action("REDIRECT with a comma", "REDIRECT r@example.com, s@example.net"),
            action("BCC", "BCC c@example.com"),
            action("BCC with quotes", 'BCC "c d"@example.com'),
            action("PREPEND", "PREPEND X-New: y", {"added": "X-New: y\nX-Do: prepend\n"}),
            action("REPLACE", "REPLACE X-Done: $1", {"replaced": "X-Done: replace\n"}),
            action("IGNORE", "IGNORE", {"kept": "X-Do: ignore\n", "removed": ""}),
            action("STRIP", "STRIP", {"kept": "X-Do: strip\n", "removed": ""}),
            action("WARN", "WARN look", {"unchanged": "X-Do: warn\n"}),
            action("INFO", "INFO look", {"unchanged": "X-Do: info\n"}),
            action("DUNNO", "DUNNO", {"unchanged": "X-Do: dunno\n"}),
            action("PASS, before a header that would be rejected", "PASS", {"delivered": ""}, head="X-Do: {}\nX-Do: reject\n"),
            Case("REJECT of a body line", body="reject this line\n", in_body=["/^reject this/ REJECT 5.7.1 no"]),
            Case("IGNORE, REPLACE, PREPEND of body lines", body="keep\ndrop\nchange\nabove\n.\n..dots\n\nlast\n",
                 in_body=["/^drop$/ IGNORE", "/^(chang)e$/ REPLACE ${1}ed", "/^above$/ PREPEND put in"],
                 words={"changed": "keep\nchanged\nput in\nabove\n.\n..dots\n\nlast\n"}),
            Case("a rule for a header of a MIME part", MIME, PARTS.format("text/plain\nContent-Disposition: attachment; filename=evil", "\nx\n"),
                 ["/^(Content-Disposition: .*)evil/ REPLACE ${1}good"], words={"replaced": "filename=good\n"}),
            Case("a rule for a header of a nested message", MIME,
                 PARTS.format("message/rfc822", "\nFrom: c@example.org\nX-Nested: x\nSubject: nested\n\nx\n"),
                 ["/^X-Nested: x$/ IGNORE"], words={"kept": "X-Nested", "removed": ""}),
        ],
        "Headers": [
            Case("Received: of this Postfix", header=[r"/^Received: from own\.example\.org/ IGNORE"], helo="own.example.org",
                 words={"not seen": "Received: of this Postfix\n", "seen": ""}),
            Case("Received: of another server", "Received: from old.example.org by x.example.org; Mon, 1 Jan 2024 00:00:00 +0000\n",
                 header=[r"/^Received: from old\.example\.org/ IGNORE"], words={"not seen": "old.example.org", "seen": ""}),
            seen("Bcc:", "Bcc", "@example.org"), seen("Resent-Bcc:", "Resent-Bcc", "@example.org"),
            seen("Return-Path:", "Return-Path", "@example.org"), seen("Content-Length:", "Content-Length"),
            Case("Message-Id: that Postfix adds", basis="From: a@example.org\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n" + TO,
                 header=[r"/^Message-Id: .*@mx\.example\.org/ PREPEND X-Seen: yes"], words=SEEN),
            Case("Message-Id: of a local client that a rule removes", basis=HEADERS.replace("<1@", "<gone@") + TO,
                 header=[r"/^Message-Id: <gone@/ IGNORE"], words={"added anew": "\nMessage-Id: added\n", "missing": ""}),
            Case("Reply-To: root of a local client", "Reply-To: root\n", header=["/^Reply-To: root$/ REPLACE Reply-To: r@example.net"],
                 words={"seen as sent": "Reply-To: r@example.net\n", "seen completed": "Reply-To: root@mx.example.org\n"}),
            Case("To: undisclosed-recipients:; that Postfix adds", basis=HEADERS, words={"there": "undisclosed", "not there": ""}),
            Case("To: undisclosed-recipients:; of the client", "To: undisclosed-recipients:;\n", basis=HEADERS,
                 words={"there": "undisclosed", "not there": ""}),
            Case("a folded header", "X-Folded: one\n\ttwo\n", header=[r"/^X-Folded: one\s+two$/ REPLACE X-Folded: three"],
                 words={"replaced": "X-Folded: three\n"}),
            Case("a blank before the colon", "X-Blank : x\n", header=["/^X-Blank: x$/ PREPEND X-Seen: yes"], words=SEEN),
            Case("PREPEND with a blank before the colon", "X-Do: blank\n", header=["/^X-Do: blank$/ PREPEND X-A : z"],
                 words={"as written": "\nX-A : z\n", "without the blank": "\nX-A: z\n"}),
            Case("PREPEND of Content-Length:", "X-Do: length\n", header=["/^X-Do: length$/ PREPEND Content-Length: 1"],
                 words={"delivered": "Content-Length: 1\n", "dropped behind Weir": ""}),
            Case("X-Weir-Verdict: of the client", "X-Weir-Verdict: HOLD\n", words={"delivered": "X-Weir-Verdict", "removed": ""}),
            Case("a header of 70,000 bytes", f"X-Long: begin{LONG}\n end\n", words={"whole": f"{LONG}\n end\n", **CUT}),
            Case("a rule for its end", f"X-Long: first{LONG}\n finally\n", header=["/^X-Long: first(?s:.*)finally$/ PREPEND X-Seen: yes"], words=SEEN),
            Case("a header of 150,000 bytes", f"X-Long: begin{VERY_LONG}\n end\n", words={"whole": f"{VERY_LONG}\n end\n", **CUT}),
        ],
        "Limits": [
            Case("body_checks_size_limit: a line behind 51,200 bytes", body="x\n" * 26_000 + "drop\n", in_body=["/^drop$/ IGNORE"],
                 words={"not checked": "\ndrop\n"}),
            Case("line_length_limit: text across 2,048 bytes", body="y" * 2_045 + "across\n", in_body=["/^y.*across/ REPLACE found"],
                 words={"not found": "yacross\n", "found, and the line cut": "\nfound\n"}),
            Case("mime_nesting_limit", MIME + "", "".join(
                f"--b{n}\nContent-Type: multipart/mixed; boundary=b{n + 1}\n\n" for n in range(1, 103)) + "--b103\nX-Deep: x\n\nx\n",
                ["/^X-Deep: x$/ IGNORE"], words={"not checked": "X-Deep", "checked": ""}),
            Case("message_size_limit", body=("x" * 70 + "\n") * 6_000),
            Case("8-bit text in headers and body", "X-Text: grün\n", "süß\n", words={"unchanged": "X-Text: grün\n\nsüß\n"}),
        ],
    }


class Outcome:
    """What became of one message: the reply to its end, where it is in the queue, and what arrived."""

    def __init__(self, case, reply, queues, delivered):
        self.case, self.reply, self.queues, self.delivered = case, reply, sorted(queues), sorted(delivered)

    @property
    def all(self):
        code, text = self.reply
        return code, "" if code == 250 else text, self.queues, self.delivered

    def words(self):
        code, text = self.reply
        if code != 250:
            return f"refused: {code} {text}"
        words = {"hold": ["held"], "deferred": ["waits"]}.get(self.queues[0], self.queues) if self.queues else []
        for sink, sender, recipients, content in self.delivered:
            if sender == "":
                words.append("bounces")
                continue
            found = [text for text, part in self.case.words.items() if part.encode() in content]
            where = "" if recipients == "b@example.com" else f"to {recipients}"
            words.append(" ".join(filter(None, [found[0] if found else "delivered", where, sink])))
        return ", ".join(words) or "accepted, not delivered"


def run_way(way, rows, sink, other):
    """Sends every case through one way in; returns the outcomes in the same order."""
    header = "".join(f"{rule}\n" for case in rows for rule in case.header if way != "milter" or " FILTER " not in rule)
    body = "".join(f"{rule}\n" for case in rows for rule in case.in_body)
    with OPEN[way](sink.port, header, body, MAIN) as (postfix, weir):
        replies = []
        for number, case in enumerate(rows):
            with SMTP(postfix.port, helo=case.helo) as client:
                replies.append(client.mail(f"{number}@example.org", ["b@example.com"], case.message)[-1])
        wait_settled(postfix, weir)
        queues, delivered = [[] for _ in rows], [[] for _ in rows]
        for message in postfix.queue():
            queues[int(message["sender"].split("@")[0])].append(message["queue_name"])
        for place, name in ((sink, ""), (other, "by the transport named")):
            for message in place.messages():
                senders = [message["sender"]] if message["sender"] else message["recipients"]
                content = normal(message["content"]) if message["sender"] else b""
                delivered[int(senders[0].split("@")[0])].append((name, message["sender"], " and ".join(sorted(message["recipients"])), content))
        return [Outcome(*found) for found in zip(rows, replies, queues, delivered)]


class Matrix(unittest.TestCase):
    maxDiff = None

    def test_page(self):
        results = {}
        for way in OPEN:
            with SMTPSink() as sink, SMTPSink() as other:
                titles = cases(other.port)
                rows = [case for group in titles.values() for case in group]
                results[way] = run_way(way, rows, sink, other)
        lines, number = [], 0
        for title, group in titles.items():
            lines += ["", f"## {title}", "", "| | Postfix alone | " + " | ".join(WAYS.values()) + " |", "| --- " * 6 + "|"]
            for case in group:
                lines.append(self.line(case, {way: outcomes[number] for way, outcomes in results.items()}))
                number += 1
        self.check("\n".join(lines[1:]) + "\n")

    def line(self, case, outcomes):
        alone = outcomes.pop("postfix")
        cells = [case.row, alone.words()]
        for way, outcome in outcomes.items():
            if way == "milter" and any(" FILTER " in rule for rule in case.header):
                cells.append(self.refused_configuration(case))
            elif outcome.all == alone.all:
                cells.append("same")
            else:
                cells.append(outcome.words())
                with self.subTest(row=case.row, way=way):
                    self.assertNotEqual(outcome.words(), alone.words(), f"not the same, but in words\n{outcome.all}\n{alone.all}")
        return "| " + " | ".join(cells) + " |"

    def refused_configuration(self, case):
        weir = FilterService(free_port(), "".join(f"{rule}\n" for rule in case.header))
        self.addCleanup(weir.__exit__)
        weir.config["listen"]["milter"] = [f"inet:127.0.0.1:{free_port()}"]
        weir.configure()
        done = subprocess.run([BINARY, "check-config", "--config", weir.config_file], env=ENVIRONMENT, capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("a milter (listen.milter) can't carry out FILTER", done.stdout + done.stderr)
        return "check-config refuses it"

    def check(self, generated):
        begin, end = "<!-- Generated by Tests/EndToEnd/test_matrix.py -->\n", "<!-- End -->\n"
        before, _, rest = PAGE.read_text().partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{generated}\n{end}{after}"
        if os.environ.get("WEIR_WRITE_GENERATED") == "1":
            PAGE.write_text(page)
        self.assertEqual(PAGE.read_text(), page, "docs/ways-in.md is out of date: run this test with WEIR_WRITE_GENERATED=1")


if __name__ == "__main__":
    unittest.main()
