# SPDX-License-Identifier: Apache-2.0
"""Messages in the forms that public archives of mail consist of, written anew from a seed.

Newsletters, list mail and digests, bounces, invitations, forwarded and signed mail, attachments, mail of old clients in
old charsets, and mail of careless programs. Nothing in them is taken from a real message.
"""
import base64
import quopri
import random
import textwrap

WORDS = (
    "meeting report offer invoice release patch list weekly update thanks please attached draft review plan budget team "
    "server upgrade window notice account order shipping confirm reply question answer build failed passed free winner"
).split()
# The last one lacks a quote.
NAMES = ["Ann Lee", "Bob Ray", "Carla Diaz", "Jürgen Groß", "Σοφία", "山田太郎", "O'Neil", '"Doe, Jane"', '"Doe']


class Forms:
    def __init__(self, seed):
        self.chance = random.Random(seed)

    def message(self, number):
        """A message as bytes with LF; `X-Number` tells which one it is."""
        form = self.chance.choice([
            self.plain, self.newsletter, self.list_mail, self.digest, self.bounce, self.invitation, self.forwarded, self.signed,
            self.attachments, self.old_charset, self.careless])
        head, body = form()
        lines = [f"X-Number: {number}", *self.trace(), *head]
        return "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n\n" + body

    # Parts

    def words(self, least=1, most=9):
        return " ".join(self.chance.choice(WORDS) for _ in range(self.chance.randint(least, most)))

    def text(self, lines=12):
        return "\n".join(self.words(0, 11) for _ in range(self.chance.randint(1, lines))) + "\n"

    def address(self):
        return f"{self.chance.choice(WORDS)}.{self.chance.randint(1, 99)}@{self.chance.choice(['example.org', 'example.com', 'Lists.Example.ORG'])}"

    def mailbox(self):
        name = self.chance.choice(NAMES)
        if not name.isascii():
            name = self.encoded(name)
        return self.chance.choice([self.address(), f"<{self.address()}>", f"{name} <{self.address()}>", f"{self.address()} ({self.words(1, 2)})"])

    def encoded(self, text):
        if self.chance.random() < 0.5:
            return f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="
        return "=?utf-8?Q?" + "".join(f"={octet:02X}" for octet in text.encode()) + "?="

    def subject(self):
        subject = self.chance.choice(["", "Re: ", "Fwd: ", "[list] ", "AW: "]) + self.words(0, 14)
        if self.chance.random() < 0.2:
            subject = self.encoded(subject + " é")
        if self.chance.random() < 0.2:
            subject = subject.replace(" ", self.chance.choice(["\n ", "\n\t", "  "]), 1)
        return f"Subject: {subject}"

    def trace(self):
        for hop in range(self.chance.randint(0, 4)):
            yield (f"Received: from host{hop}.example.org (host{hop}.example.org [192.0.2.{hop + 1}])\n\tby mx{hop}.example.com"
                   f" (Postfix) with ESMTPS id {self.chance.getrandbits(40):X}\n\tfor <b@example.com>; Mon,  1 Jan 2024 00:0{hop}:00 +0000 (UTC)")

    def usual(self):
        head = [
            f"From: {self.mailbox()}", "To: " + ",\n\t".join(self.mailbox() for _ in range(self.chance.randint(1, 5))), self.subject(),
            f"Date: {self.chance.choice(['Mon, 1 Jan 2024 00:00:00 +0000', 'Mon,  1 Jan 24 00:00 GMT (odd)'])}",
            f"Message-ID: <{self.chance.getrandbits(60):x}@example.org>"]
        if self.chance.random() < 0.3:
            head.append("References: " + "\n ".join(f"<{self.chance.getrandbits(60):x}@example.org>" for _ in range(self.chance.randint(1, 30))))
        if self.chance.random() < 0.3:
            head.append(f"X-Mailer: {self.words(1, 3)} [v{self.chance.randint(1, 20)}]")
        if self.chance.random() < 0.2:
            head.append("X-Spam-Status: No, score=-1.2 required=5.0 tests=BAYES_00,\n\tHTML_MESSAGE autolearn=ham")
        self.chance.shuffle(head)
        return head

    def boundary(self):
        return self.chance.choice([
            f"----=_Part_{self.chance.randint(1, 999)}_{self.chance.randint(1, 999)}", f"{self.chance.getrandbits(80):x}", "=_b1", "b", "Apple-Mail=_x'()+,./:?"])

    def multipart(self, kind, parts, more=""):
        boundary = self.boundary()
        quoted = f'"{boundary}"' if self.chance.random() < 0.8 or not boundary.isalnum() else boundary
        head = ["MIME-Version: 1.0", f"Content-Type: multipart/{kind};{self.chance.choice([' ', chr(10) + ' ', chr(10) + chr(9)])}boundary={quoted}{more}"]
        preamble = self.chance.choice([b"", b"This is a multi-part message in MIME format.\n"])
        body = preamble + b"".join(b"--" + boundary.encode() + b"\n" + part + b"\n" for part in parts)
        return head, body + b"--" + boundary.encode() + b"--\n" + self.chance.choice([b"", b"\n", b"epilogue\n"])

    def part(self, kind, content, *head):
        return "".join(f"{line}\n" for line in [f"Content-Type: {kind}", *head]).encode() + b"\n" + content

    def encoded_part(self, name):
        content = base64.encodebytes(self.chance.randbytes(self.chance.randint(10, 9_000)))
        return self.part(
            f'application/octet-stream; name="{name}"', content, "Content-Transfer-Encoding: base64",
            f'Content-Disposition: attachment;\n\tfilename="{name}"')

    # Forms

    def plain(self):
        return self.usual(), (self.text(30) + self.chance.choice(["", "-- \nAnn\n", "\n\n\n", ">From a quoted line\n", ".\n..\n"])).encode()

    def newsletter(self):
        html = f"<html><body><p>{self.text(40)}</p><a href=\"https://www.example.com/?q={'x' * 90}\">é</a></body></html>\n"
        head, body = self.multipart("alternative", [
            self.part("text/plain; charset=utf-8", self.text().encode(), "Content-Transfer-Encoding: 7bit"),
            self.part("text/html; charset=utf-8", quopri.encodestring(html.encode()), "Content-Transfer-Encoding: quoted-printable")])
        return self.usual() + ["Precedence: bulk", "List-Unsubscribe: <https://www.example.com/u>,\n <mailto:u@example.com>"] + head, body

    def list_mail(self):
        quoted = "".join(f"> {line}\n" for line in self.text(20).splitlines())
        return self.usual() + [
            "List-Id: <list.example.org>", "List-Post: <mailto:list@example.org>", "Sender: list-bounces@example.org", "Errors-To: list-bounces@example.org",
        ], (f"On Monday, {self.words(2, 3)} wrote:\n{quoted}\n{self.text()}_______________________\nlist mailing list\n").encode()

    def digest(self):
        inner = [self.part("message/rfc822", self.inner()) if self.chance.random() < 0.5 else b"\n" + self.inner() for _ in range(3)]
        head, body = self.multipart("digest", inner)
        return self.usual() + head, body

    def inner(self):
        return "\n".join(self.usual()).encode() + b"\n\n" + self.text().encode()

    def bounce(self):
        status = (
            f"Reporting-MTA: dns; mx.example.com\nArrival-Date: Mon, 1 Jan 2024 00:00:00 +0000\n\nFinal-Recipient: rfc822; {self.address()}\n"
            "Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 unknown\n").encode()
        head, body = self.multipart("report", [
            self.part("text/plain", self.text().encode(), "Content-Description: Notification"),
            self.part("message/delivery-status", status, "Content-Description: Delivery report"),
            self.part(self.chance.choice(["message/rfc822", "text/rfc822-headers"]), self.inner(), "Content-Description: Undelivered Message")],
            "; report-type=delivery-status")
        return self.usual() + ["Auto-Submitted: auto-replied"] + head, body

    def invitation(self):
        event = "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nUID:1@example.org\nSUMMARY:" + self.words() + "\nEND:VEVENT\nEND:VCALENDAR\n"
        head, body = self.multipart("alternative", [
            self.part("text/plain", self.text().encode()), self.part("text/calendar; method=REQUEST; charset=UTF-8", event.encode())])
        return self.usual() + head, body

    def forwarded(self):
        head, body = self.multipart("mixed", [self.part("text/plain", self.text().encode()), self.part("message/rfc822", self.inner(), "Content-Disposition: inline")])
        return self.usual() + head, body

    def signed(self):
        hashes = base64.b64encode(self.chance.randbytes(256)).decode()
        signature = "\n\t".join(textwrap.wrap(hashes, 70))
        head, body = self.multipart(
            "signed", [self.part("text/plain", self.text().encode()), self.encoded_part("smime.p7s")], "; micalg=sha-256")
        return [
            "DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=example.org; s=k1;\n\th=from:to:subject; bh=" + hashes[:44] + ";\n\tb=" + signature,
        ] + self.usual() + head, body

    def attachments(self):
        names = ["report.pdf", "photo.jpg", "setup.exe", "archive.zip", "evil.scr"]
        head, body = self.multipart("mixed", [
            self.part("text/plain", self.text().encode()), *(self.encoded_part(name) for name in self.chance.sample(names, self.chance.randint(1, 3)))])
        return self.usual() + head, body

    def old_charset(self):
        charset, text = self.chance.choice([
            ("iso-8859-1", "Grüße aus Köln, à bientôt\n"), ("koi8-r", "Привет\n"), ("iso-2022-jp", "こんにちは\n"), ("windows-1252", "“quotes” – 5 €\n"),
            ("utf-8", "naïve café ☕\n")])
        return self.usual() + ["MIME-Version: 1.0", f"Content-Type: text/plain; charset={charset}", "Content-Transfer-Encoding: 8bit"], text.encode(charset) * 3

    def careless(self):
        """No MIME header where one belongs, an open multipart, blanks before the colon, lines of 900 bytes, no last line end."""
        head = self.usual()
        extra = self.chance.choice([
            ["Content-Type: multipart/mixed; boundary=open"], ["X-Blank : x"], ["X-Empty:"], ["Content-Type: text/html", "Content-Type: text/plain"],
            ["MIME-Version: 1.0", "Content-Type: message/rfc822"], ["X-Long: " + self.words(60, 100)]])
        body = self.chance.choice([
            b"--open\nContent-Type: text/plain\n\nx\n", b"", b"x" * 900 + b"\n", b"no line end", b"Subject: looks like a header\n\nx\n", "é\n".encode()])
        return head + extra, body
