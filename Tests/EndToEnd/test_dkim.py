# SPDX-License-Identifier: Apache-2.0
"""What Weir does not edit still verifies: DKIM signatures with canonicalization simple/simple, by every way in."""
import re
import struct
import unittest

from milter import ForeignMilter
from postfix import SMTP, SMTPSink, wait_until
from signing import Key
from ways_in import OPEN

RULES = "/^Subject: edit (.*)/ REPLACE Subject: edited $1\n/^X-Mark:/ PREPEND X-Above: put in\n/^X-Gone:/ IGNORE\n"
BODY_RULES = "/^edit this/ REPLACE edited\n"
MAIN = {"local_header_rewrite_clients": ""}
BASIS = "From:  A <a@example.org>\nTo: b@example.com,\n\tc@example.com\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-Id: <1@example.org>\n"

# Header lines after BASIS, and the body, of messages that no rule edits, or only in a header that is not signed.
UNTOUCHED = {
    "plain": ("Subject: plain\n", "body\n"),
    "blanks": ("Subject:   many \t blanks \n \t folded\t\n", "  blanks  \n\t\nand at the end \t\n\n\n"),
    "no body": ("Subject: no body\n", ""),
    "dots": ("Subject: dots\n", ".\n..\n.text\n"),
    "long": (f"Subject: long {'x' * 900}\n folded {'y' * 900}\n", "z" * 990 + "\n"),
    "8 bits": ("Subject: gr\u00fcn\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n", "s\u00fc\u00df\n"),
    "MIME": (
        'Subject: MIME\nMIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary="b1"\n',
        "preamble\n--b1\nContent-Type: text/plain\n\nbody\n--b1\nContent-Type: message/rfc822\n\nSubject: in\n\nbody\n--b1--\nend\n"),
    "header above": ("X-Mark: x\nSubject: header above\n", "body\n"),
    "header gone": ("X-Gone: x\nSubject: header gone\n", "body\n"),
    "large": ("Subject: large\n", "".join(f"line {number} {'x' * 60}\n" for number in range(4000))),
}
EDITED = {
    "subject": ("Subject: edit subject\n", "body\n"),
    "in the body": ("Subject: in the body\n", "first\nedit this\n"),
}


def messages(texts):
    return {name: f"{BASIS}{head}X-Name: {name}\n\n{body}" for name, (head, body) in texts.items()}


def received(sink):
    """What has arrived, by X-Name."""
    found = (message["content"] for message in sink.messages())
    return {re.search(rb"^X-Name: (.*)$", content, re.M)[1].decode(): content for content in found}


def deliver(postfix, sink, contents):
    count = len(sink.messages()) + len(contents)
    with SMTP(postfix.port) as client:
        for content in contents:
            replies = client.mail("a@example.org", ["b@example.com"], content)
            if replies[-1][0] != 250:
                raise AssertionError(f"{replies}\n{postfix.log()}")
    wait_until(lambda: len(sink.messages()) == count, postfix.log)
    return received(sink)


class SignedBefore(unittest.TestCase):
    def test_every_way_in(self):
        key, texts = Key(), messages({**UNTOUCHED, **EDITED})
        signatures = key.signatures([text.encode() for text in texts.values()])
        signed = [signature.replace("\r\n", "\n") + text for signature, text in zip(signatures, texts.values(), strict=True)]
        self.assertEqual(key.verify([text.encode() for text in signed]), [True] * len(signed))
        for way in ("milter", "filter", "proxy", "pipe"):
            with self.subTest(way=way), SMTPSink() as sink, OPEN[way](sink.port, RULES, BODY_RULES, MAIN) as (postfix, _):
                arrived = deliver(postfix, sink, signed)
                verified = dict(zip(arrived, key.verify(list(arrived.values())), strict=True))
                self.assertEqual(verified, {**dict.fromkeys(UNTOUCHED, True), **dict.fromkeys(EDITED, False)})
                self.assertIn(b"\nX-Above: put in\nX-Mark: x\n", arrived["header above"])
                self.assertNotIn(b"X-Gone", arrived["header gone"])


class SigningMilter(ForeignMilter):
    """Puts a DKIM-Signature above the message."""

    def __init__(self, key):
        self.key = key

    def answer(self, message, command, payload, send):
        if command == b"O":
            # SMFIF_ADDHDRS. Headers with leading space and body without replies, and the end of the message.
            send(b"O", struct.pack(">III", 6, 0x1, 0x1803CF))
        elif command == b"L":
            name, value = payload.split(b"\0")[:2]
            message.append((command, name + b":" + value + b"\n"))
        elif command == b"B":
            message.append((command, payload))
        elif command == b"E":
            head, body = (b"".join(part for kind, part in message if kind == one) for one in (b"L", b"B"))
            (signature,) = self.key.signatures([head + b"\n" + body])
            name, _, value = signature.rstrip("\r\n").replace("\r\n", "\n").partition(":")
            send(b"i", struct.pack(">I", 1) + name.encode() + b"\0" + value.encode() + b"\0")
            send(b"c")
            message.clear()
        elif command == b"A":
            message.clear()


class SignedHere(unittest.TestCase):
    """A milter signs behind Weir or in front of it (docs/milter.md, DKIM)."""

    def test_milter(self):
        def sign(behind_weir, postfix, weir, signer):
            milters = [f"inet:127.0.0.1:{weir.milter_port}", signer.address]
            postfix.set(smtpd_milters=", ".join(milters if behind_weir else reversed(milters)))
        self.check("milter", sign)

    def test_filter(self):
        """Behind the filter, the service for returning mail signs."""
        def sign(behind_weir, postfix, weir, signer):
            if behind_weir:
                postfix.services = [line.replace(",no_milters", f" -o smtpd_milters={signer.address}") for line in postfix.services]
                postfix.write()
                postfix.reload()
            else:
                postfix.set(smtpd_milters=signer.address)
        self.check("filter", sign)

    def check(self, way, sign):
        key = Key()
        with SigningMilter(key) as signer, SMTPSink() as sink, OPEN[way](sink.port, RULES, BODY_RULES, MAIN) as (postfix, weir):
            for behind_weir in (False, True):
                sign(behind_weir, postfix, weir, signer)
                texts = messages({f"{name} {behind_weir}": text for name, text in {"plain": UNTOUCHED["plain"], **EDITED}.items()})
                before = received(sink)
                arrived = {name: text for name, text in deliver(postfix, sink, list(texts.values())).items() if name not in before}
                self.assertIn(b"\nSubject: edited subject\n", arrived[f"subject {behind_weir}"])
                self.assertIn(b"\nfirst\nedited\n", arrived[f"in the body {behind_weir}"])
                verified = dict(zip(arrived, key.verify(list(arrived.values())), strict=True))
                self.assertEqual(verified, {name: behind_weir or name.startswith("plain") for name in texts})
                # The service in front no longer signs.
                if way == "filter":
                    postfix.parameters["smtpd_milters"] = ""


if __name__ == "__main__":
    unittest.main()
