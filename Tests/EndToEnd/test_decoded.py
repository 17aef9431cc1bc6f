# SPDX-License-Identifier: Apache-2.0
"""Rules for decoded headers: in each way in, in `weir check`, and the decoder beside Python's email."""
import base64
import email
import email.header
import email.utils
import json
import pathlib
import random
import subprocess
import tempfile
import unicodedata
import unittest

from filtering import FilterService, NextHop, dialogue
from milter import MilterService
from test_filter_smtp import Client
from weir import BINARY, ENVIRONMENT, weir

RULES = r"""
/^Subject: casino ä/ REJECT no
/^Subject: ЖУК$/ REPLACE Subject: beetle
/^Content-Disposition: .*name="rät\.exe"/ HOLD
"""
SUBJECT = "=?utf-8?B?Y2FzaW5v?= =?utf-8?q?_=C3=A4?="
BEETLE = "=?koi8-r?b?1tXL?="
DISPOSITION = "attachment; filename*1=t.exe; filename*0*=utf-8''r%C3%A4"


class WaysIn(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="weir-test-")))
        self.table = self.directory / "decoded"
        self.table.write_text(RULES)
        self.checks = {"decoded_header": [f"pcre:{self.table}"]}
        self.config = self.directory / "weir.yaml"
        self.config.write_text(json.dumps({"checks": {**self.checks, "cache": f"{self.directory}/cache"}}))

    def message(self, subject=SUBJECT, disposition="inline"):
        return (f"Subject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
                f"--b\r\nContent-Disposition: {disposition}\r\n\r\nx\r\n--b--\r\n").encode()

    def test_filter(self):
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port, checks=self.checks) as service:
            with Client(service.filter_port) as client:
                self.assertEqual(client.deliver(self.message() + b".\r\n")[-1], (550, "5.7.1 no"))
                self.assertEqual(client.deliver(self.message(BEETLE) + b".\r\n")[-1][0], 250)
                self.assertEqual(client.deliver(self.message("x") + b".\r\n")[-1][0], 250)
            service.wait_logged(f"decoded_header pcre:{self.table}:2: REJECT no: Subject: casino ä")
        self.assertEqual([content for _, content in messages], [self.message("beetle"), self.message("x")])

    def test_milter(self):
        with MilterService(checks=self.checks) as service, service.mta() as mta:
            mta.connect()
            for subject, disposition, last in ((SUBJECT, "inline", ["y"]), (BEETLE, "inline", ["m", "c"]),
                                               ("x", DISPOSITION, ["q", "c"]), ("x", "inline", ["c"])):
                with self.subTest(subject=subject, disposition=disposition):
                    headers, body = self.message(subject, disposition).split(b"\r\n\r\n", 1)
                    mta.mail()
                    lines = [line.split(":", 1) for line in headers.decode().split("\r\n")]
                    self.assertEqual([command for command, _ in mta.content(lines, body)], last)

    def test_pipe(self):
        # Takes the arguments of sendmail(1).
        to = self.directory / "to"
        to.write_text("#!/bin/sh\nexec cat\n")
        to.chmod(0o755)

        def run(content):
            return subprocess.run(
                [BINARY, "filter", "--config", self.config, "--to", to, "-f", "a@example.org", "--", "b@example.org"],
                env=ENVIRONMENT, timeout=120, input=content, capture_output=True)
        self.assertEqual(run(self.message()).returncode, 69)
        done = run(self.message(BEETLE).replace(b"\r\n", b"\n"))
        self.assertEqual((done.returncode, done.stdout), (0, self.message("beetle").replace(b"\r\n", b"\n")))

    def check(self, content, *arguments):
        path = self.directory / "message"
        path.write_bytes(content)
        return weir("check", "--config", self.config, *arguments, path).stdout

    def test_check_shows_the_decoded_text(self):
        shown = self.check(self.message())
        self.assertIn(f"  decoded_header offset 0 pcre:{self.table}:2: REJECT no\n    Subject: casino ä\n", shown)
        match, = json.loads(self.check(self.message(), "--json"))["matches"]
        self.assertEqual((match["class"], match["content"]), ("decoded_header", "Subject: casino ä"))

    def test_check_prints_what_rules_see(self):
        content = self.message(SUBJECT, DISPOSITION)
        self.assertEqual(self.check(content, "--decoded").splitlines()[1:], [
            "  Subject: casino ä", "  MIME-Version: 1.0", "  Content-Type: multipart/mixed; boundary=b",
            '    part: Content-Disposition: attachment; filename="rät.exe"'])
        headers = json.loads(self.check(content, "--decoded", "--json"))["headers"]
        self.assertEqual(headers[0], {"offset": 0, "place": "message", "text": "Subject: casino ä"})
        self.assertEqual(headers[3]["offset"], content.index(b"Content-Disposition"))


# Character sets, and whether a character may be split over two words: those with state begin anew.
CHARSETS = {
    "utf-8": True, "iso-8859-2": True, "iso-8859-15": True, "koi8-r": True, "koi8-u": True, "windows-1251": True, "windows-1256": True,
    "gb18030": True, "euc-jp": True, "utf-16be": True, "iso-2022-jp": False, "utf-7": False, "utf-32le": True, "cp866": True}
TEXTS = ["Žluťoučký kůň", "Привет, мир", "你好，世界", "日本語のテスト", "مرحبا", "naïve café", "plain text", "1 + 1 = 2", "a_b=c?d", "€ 20", "한국어",
         "a\u0308", "ﬁx", "\u200bx\u00ady", "x\u00a0y", "😀", "e\u0301\u0323", "\t", "\u202eabc"]


def word(raw, name, choose):
    """An encoded word."""
    if choose([True, False]):
        return f"=?{name}?{choose('bB')}?{base64.b64encode(raw).decode()}?="
    shown = "".join(chr(byte) if chr(byte).isalnum() and byte < 0x80 else "_" if byte == 0x20 else f"={byte:{choose(['02X', '02x'])}}" for byte in raw)
    return f"=?{name}?{choose('qQ')}?{shown}?="


def encoded(text, charset, choose, cut):
    raw = text.encode(charset)
    pieces = [raw[start:start + cut] for start in range(0, len(raw), cut)] if CHARSETS[charset] else [raw]
    # Python does not join characters over words with different languages, or none.
    language = choose(["", "*en"])
    names = [choose([charset, charset.upper()]) + language for _ in pieces]
    return choose([" ", "\n ", "\n\t", "  "]).join(word(piece, name, choose) for piece, name in zip(pieces, names))


def visible(text):
    """docs/content-checks.md"""
    ignorable = lambda c: c == "\u00ad" or "\u200b" <= c <= "\u200f" or "\u202a" <= c <= "\u202e" or "\u2060" <= c <= "\u206f" or c == "\ufeff"
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Zs", "Zl", "Zp") else c for c in text if not ignorable(c))
    return unicodedata.normalize("NFC", text)


def of_python(value):
    """The value of an unfolded header, as Python's email decodes it."""
    parts = email.header.decode_header(value)
    return visible("".join(
        part if isinstance(part, str) else part.decode((charset or "ascii").split("*")[0], "replace") for part, charset in parts))


# Headers that Python's email decodes in another way: what it makes of them, what Weir does, and why.
DIFFERENCES = [
    ("=?iso-8859-1?q?=80?=", " ", "€", "mail programs read iso-8859-1 as windows-1252 (WHATWG)"),
    ("=?utf-8?b?YWI=Y2Q=?=", "ab", "abcd", "Python stops at the padding; some programs go on, and a rule must see what they show"),
    ("=?x-nobody?q?casino?=", None, "casino", "Python raises LookupError; ASCII stays visible"),
    ("=?utf-8?b?A?=", None, "", "Python raises HeaderParseError for a single character of base64"),
    ("=?iso-2022-jp?b?GyRCRnw=?= =?iso-2022-jp?q?abc?=", "日痰\ufffd", "日abc", "Python keeps the state over words; RFC 2047 3 lets each begin in ASCII"),
]


class BesidePython(unittest.TestCase):
    def decoded(self, headers):
        """The decoded values of headers, in order."""
        with tempfile.TemporaryDirectory(prefix="weir-test-") as directory:
            path = pathlib.Path(directory) / "message"
            path.write_bytes(b"".join(header + b"\n" for header in headers) + b"\nbody\n")
            config = pathlib.Path(directory) / "weir.yaml"
            config.write_text("{}")
            found = json.loads(weir("check", "--config", config, "--decoded", "--json", path).stdout)["headers"]
        self.assertEqual(len(found), len(headers))
        return [header["text"].split(": ", 1)[1] for header in found]

    def test_words(self):
        values = []
        for seed in range(2_000):
            source = random.Random(seed)
            choose, parts = source.choice, []
            for _ in range(source.randint(1, 5)):
                text, charset = choose(TEXTS), choose(list(CHARSETS))
                try:
                    parts.append(encoded(text, charset, choose, source.randint(1, 40)))
                except UnicodeEncodeError:
                    parts.append(choose(["plain", "(comment)", '"quoted"', "<a@example.org>"]))
            values.append(choose([" ", "\n ", "x"]).join(parts))
        for value, found in zip(values, self.decoded([f"Subject: {value}".encode() for value in values])):
            self.assertEqual(found, of_python(value.replace("\n", "")), value)

    def test_parameters(self):
        values = []
        for seed in range(1_000):
            source = random.Random(seed)
            text, charset = source.choice(TEXTS).replace("\t", "x"), source.choice(["utf-8", "koi8-r", "iso-8859-2", "gb18030"])
            try:
                raw = text.encode(charset)
            except UnicodeEncodeError:
                raw, charset = text.encode(), "utf-8"
            cut = source.randint(1, 30)
            percents = [f"%{byte:02X}" if byte >= 0x80 or source.random() < 0.2 or not chr(byte).isalnum() else chr(byte) for byte in raw]
            pieces = ["".join(percents[start:start + cut]) for start in range(0, len(percents), cut)]
            if len(pieces) == 1 and source.random() < 0.5:
                sections = [f"filename*={charset}'en'{pieces[0]}"]
            else:
                sections = [f"filename*{number}*=" + (f"{charset}''" if number == 0 else "") + piece for number, piece in enumerate(pieces)]
                source.shuffle(sections)
            values.append("attachment;\n " + ";\n ".join(sections))
        for value, found in zip(values, self.decoded([f"Content-Disposition: {value}".encode() for value in values])):
            name = email.message_from_string(f"Content-Disposition: {value}\n\n").get_filename()
            quoted = visible(name).replace("\\", "\\\\").replace('"', '\\"')
            self.assertEqual(found, f'attachment; filename="{quoted}"', value)

    def test_differences(self):
        for (value, python, expected, why), found in zip(DIFFERENCES, self.decoded([f"Subject: {value}".encode() for value, *_ in DIFFERENCES])):
            with self.subTest(value=value, why=why):
                self.assertEqual(found, expected)
                if python is not None:
                    self.assertEqual(of_python(value), python)


if __name__ == "__main__":
    unittest.main()
