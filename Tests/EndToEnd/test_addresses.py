# SPDX-License-Identifier: Apache-2.0
"""How Weir's milter reads the arguments of MAIL and RCPT, against what a real smtpd tells the policy server.

smtpd gives the milter the argument as the client sent it, and the policy server the address that it has found there.

Environment: WEIR_ADDRESSES is how many arguments to generate, WEIR_SEED where to start.
"""
import contextlib
import os
import random
import re
import socket
import tempfile
import threading
import unittest

from milter import milter_postfix
from postfix import SMTP, PrivatePostfix, SMTPSink, end_listening, wait_until
from weir import ROOT

COUNT = int(os.environ.get("WEIR_ADDRESSES", "4000"))
SEED = int(os.environ.get("WEIR_SEED", "1"))
BATCH = 100

# Many errors, without delays.
LENIENT = {
    "smtpd_soft_error_limit": "1000000", "smtpd_hard_error_limit": "1000001", "smtpd_junk_command_limit": "1000000",
    "smtpd_error_sleep_time": "0", "in_flow_delay": "0",
}
# smtpd itself is to refuse nothing but what is no address to it.
GENEROUS = {
    **LENIENT,
    "strict_rfc821_envelopes": "no", "allow_untrusted_routing": "yes", "resolve_numeric_domain": "yes",
    "smtpd_reject_unlisted_recipient": "no", "smtpd_recipient_limit": "1000000",
    "smtpd_delay_reject": "yes",
}
LIMIT = {"name": "all", "key": ["client_address"], "rates": ["1000000/1h"]}


class Generator:
    """Generates arguments: addresses as clients write them, with mistakes, and heaps of tokens."""

    WORDS = ["bob", "u", "a.b", "U", "x+y", "42", '"q"', '"q r"', '"a\\"b"', '"a@b"', '"(c)"', "a\\@b", "\\", "\\ x", "é", '""',
             '"\t"', "a\x01b", "\x7f", '"x', "#", "=?utf-8?q?x?="]
    DOMAINS = ["example.org", "Example.COM", "example.org.", "a.b.example", "localhost", "[192.0.2.1]", "[IPv6:2001:db8::1]",
               "[x\\]y]", "[z", "example..org", ".example.org", "example", '"example".org', "exam ple.org", "x_y.example"]
    TOKENS = ["@", ".", "<", ">", "(", ")", "[", "]", '"', "\\", ",", ";", ":", "%", "!", "|", " ", "\t", "a", "b", "example.org",
              "(c)", '"q"', "@a:", "u@c", "<u@c>", "x:", ";", "[1]"]

    def __init__(self, seed):
        self.random = random.Random(f"addresses {seed}")

    def pick(self, *choices):
        return self.random.choice(choices)

    def chance(self, probability):
        return self.random.random() < probability

    def blank(self):
        return self.pick(" ", "  ", "\t") if self.chance(0.12) else ""

    def comment(self):
        text = self.pick("(1)", "(a (b) c)", "(\\))", "((", "(<x@y>)", '(")', "()") if self.chance(0.15) else ""
        return self.blank() + text + self.blank()

    def word(self):
        return self.pick("bob", "u", "a.b") if self.chance(0.5) else self.random.choice(self.WORDS)

    def mailbox(self):
        local = self.word() + (self.pick(".", "%", "!", "|", " ", "") + self.word() if self.chance(0.2) else "")
        if self.chance(0.08):
            return local
        domain = self.random.choice(self.DOMAINS[:4] if self.chance(0.6) else self.DOMAINS)
        at = self.pick("@", "@@", "%", "") if self.chance(0.03) else "@"
        return self.comment() + local + self.comment() + at + self.comment() + domain + self.comment()

    def route(self):
        return self.pick("@a:", "@a,@b:", "@a.example:", "@a:@b:", "@:", "@ a : ", ":", '@"x:y":') if self.chance(0.1) else ""

    def address(self):
        text = self.route() + self.mailbox()
        for _ in range(self.random.choice([0] * 12 + [1, 1, 2])):
            text = "<" + text + ">"
        if self.chance(0.1):
            text = self.pick("N ", '"N" ', "A. B. ", "(c) ", "N <x> ", "n, ", "g: ") + text
        if self.chance(0.05):
            text += self.pick(" N", ";", " (c)", ",", " <", ">", ", u@c")
        if self.chance(0.03):
            text = self.pick("g:", "g: x@y,", "") + text + ";"
        return text

    def argument(self):
        dice = self.random.random()
        if dice < 0.1:
            return "<" + "".join(self.random.choice(self.TOKENS) for _ in range(self.random.randint(0, 8))) + ">"
        if dice < 0.16:
            return self.address().replace(" ", "").replace("\t", "")
        if dice < 0.2:
            text = self.address()
            place = self.random.randint(0, len(text))
            return "<" + text[:place] + self.random.choice(self.TOKENS) + text[place:] + ">"
        return "<" + self.address() + ">"


class PolicyServer:
    """Answers DUNNO; `requests` has the sender and recipient of each request."""

    def __init__(self):
        self.requests = []
        self.directory = tempfile.TemporaryDirectory(prefix="weir-policy-")
        os.chmod(self.directory.name, 0o755)
        self.path = f"{self.directory.name}/policy"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        os.chmod(self.path, 0o777)
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end_listening(self.listener)
        self.directory.cleanup()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rwb") as stream:
            request = {}
            for line in stream:
                if line == b"\n":
                    self.requests.append((request[b"sender"], request[b"recipient"]))
                    request = {}
                    stream.write(b"action=DUNNO\n\n")
                    stream.flush()
                else:
                    name, _, value = line[:-1].partition(b"=")
                    request[name] = value


def logged(address):
    """An address as Weir's log has it."""
    escape = {"\t": "\\t"}
    return re.sub(r"[\x00-\x1f\x7f]", lambda match: escape.get(match[0], f"\\u{{{ord(match[0]):02X}}}"), address.decode())


class Reading(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.policy = stack.enter_context(PolicyServer())
        restrictions = f"check_policy_service unix:{self.policy.path}, permit_mynetworks, reject"
        self.postfix, self.weir = stack.enter_context(milter_postfix(
            None, over_tcp=False, main={**GENEROUS, "smtpd_recipient_restrictions": restrictions}, limits=[LIMIT], log={"decisions": True}))
        self.smtp = stack.enter_context(SMTP(self.postfix.port))

    def pipeline(self, commands):
        """Sends commands; returns the codes of their replies."""
        self.smtp.send(b"".join(command.encode() + b"\r\n" for command in commands))
        return [self.smtp.reply()[0] for _ in commands]

    def compare(self, pattern, index):
        """Compares values of the policy server's requests with those of Weir's log, in order."""
        expected = [logged(request[index]) for request in self.policy.requests]
        pass_line = re.compile(rf"pass: RCPT from .*?, instance=milter\.\S+{pattern}$", re.M)
        def found():
            return [match[1] or "" for match in pass_line.finditer(self.weir.log())]
        wait_until(lambda: len(found()) >= len(expected), lambda: f"{len(found())} of {len(expected)} lines: {self.weir.log()[-2000:]}")
        self.assertEqual(found(), expected)
        return expected

    def test_recipients(self):
        generator = Generator(SEED)
        self.pipeline(["MAIL FROM:<a@example.org>"])
        codes = []
        for _ in range(COUNT // BATCH):
            codes += self.pipeline([f"RCPT TO:{generator.argument()}" for _ in range(BATCH)])
        read = self.compare(r", sender=a@example\.org, recipient=(.*)", 1)
        self.assertEqual(len(read), codes.count(250))
        self.assertGreater(len(read), COUNT // 3)

    def test_senders(self):
        generator = Generator(SEED + 1)
        codes = []
        for _ in range(COUNT // 4 // BATCH):
            commands = [(f"MAIL FROM:{generator.argument()}", "RCPT TO:<b@example.com>", "RSET") for _ in range(BATCH)]
            codes += self.pipeline([command for commands in commands for command in commands])[1::3]
        read = self.compare(r"(?:, sender=(.*))?, recipient=b@example\.com", 0)
        self.assertEqual(len(read), codes.count(250))
        self.assertGreater(len(read), COUNT // 12)


class Table(unittest.TestCase):
    """The table of docs/milter.md: which recipient gets a message whose RCPT has the argument in the first column."""

    REPAIRS = ["envelope", "local_domain", "percent_route", "bang_route"]

    def rows(self):
        manual = (ROOT / "docs" / "milter.md").read_text()
        lines = re.search(r"<!-- addresses: begin -->\n(.*?)<!-- addresses: end -->", manual, re.S)[1].splitlines()[2:]
        return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]

    def compare(self, postfix, sink, column):
        rows, found = self.rows(), {}
        with SMTP(postfix.port) as client:
            for number, row in enumerate(rows):
                client.command("MAIL FROM:<a@example.org>", 250)
                if client.command(f"RCPT TO:{row[0]}")[0] == 250:
                    client.command("DATA", 354)
                    client.send(f"Subject: {number}\r\n\r\nbody\r\n.\r\n".encode())
                    client.expect(250)
                else:
                    found[number] = "refused"
                    client.command("RSET", 250)
        wait_until(lambda: len(sink.messages()) + len(found) == len(rows), lambda: f"{postfix.queue()}\n{postfix.log()}")
        for message in sink.messages():
            subject = re.search(rb"^Subject: (\d+)$", message["content"], re.M)
            self.assertIsNotNone(subject, f"not a message of this test: {message}\n{postfix.log()}")
            (found[int(subject[1])],) = message["recipients"]
        self.assertEqual([(row[0], found[number]) for number, row in enumerate(rows)], [(row[0], row[column]) for row in rows])

    def test_postfix(self):
        for column, strict in ((2, "no"), (3, "yes")):
            with self.subTest(strict=strict), SMTPSink() as sink, \
                    PrivatePostfix(main={**LENIENT, "strict_rfc821_envelopes": strict}, relay=sink.port) as postfix:
                self.compare(postfix, sink, column)

    def test_weir(self):
        with SMTPSink() as sink, milter_postfix(sink.port, main=LENIENT, canonicalise=self.REPAIRS) as (postfix, weir):
            self.compare(postfix, sink, 4)
            weir.wait_logged(r"<bob@c.example (1)> becomes <bob@c.example>: comment")
            self.assertIn(
                "refused: RCPT <a@b@c.example>: 553 5.1.3 bad recipient address syntax: more than one @", weir.log())


if __name__ == "__main__":
    unittest.main()
