# SPDX-License-Identifier: Apache-2.0
"""Rules for decoded headers: in each way in, in `weir check`, and the decoder beside Python's email."""
import base64
import email
import email.encoders
import email.header
import email.mime.base
import email.mime.message
import email.mime.multipart
import email.policy
import email.utils
import html.parser
import io
import json
import pathlib
import random
import subprocess
import tempfile
import unicodedata
import unittest
import zipfile

from filtering import FilterService, NextHop, dialogue, filtered_postfix
from milter import MilterService
from postfix import SMTPSink, wait_until
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
            '    part: Content-Disposition: attachment; filename="rät.exe"', "  decoded_body 1", "    x", "  attachment",
            '    1; text/plain; name="rät.exe"; declared="text/plain"; size=1; encrypted=no'])
        headers = json.loads(self.check(content, "--decoded", "--json"))["headers"]
        self.assertEqual(headers[0], {"offset": 0, "place": "message", "text": "Subject: casino ä"})
        self.assertEqual(headers[3]["offset"], content.index(b"Content-Disposition"))


PART_RULES = r"""
/^casino ä$/ REJECT no
/^link: https:\/\/example\.org\/hold/ HOLD
/^(beetle)/ PREPEND X-Found: $1
"""
ATTACHMENT_RULES = r"""
/; application\/x-dosexec; name="[^"]*\.exe"/ REJECT no programs
"""


class PartsInAllWays(unittest.TestCase):
    """Rules for decoded text and attachments."""

    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="weir-test-")))
        self.body, self.attachment = self.directory / "body", self.directory / "attachment"
        self.body.write_text(PART_RULES)
        self.attachment.write_text(ATTACHMENT_RULES)
        self.checks = {"decoded_body": [f"pcre:{self.body}"], "attachment": [f"pcre:{self.attachment}"]}
        self.config = self.directory / "weir.yaml"
        self.config.write_text(json.dumps({"checks": {**self.checks, "cache": f"{self.directory}/cache"}}))

    def message(self, text, kind="text/plain; charset=utf-8"):
        encoded = base64.encodebytes(text if isinstance(text, bytes) else text.encode()).decode().replace("\n", "\r\n")
        return ("Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
                f"--b\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}--b--\r\n").encode()

    def archive(self):
        inner, outer = io.BytesIO(), io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("ä.exe", b"MZ" + bytes(1000))
        with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("inner.zip", inner.getvalue())
        return outer.getvalue()

    def cases(self):
        """Each message, and what is done to it."""
        return [(self.message("x\ncasino ä\n"), "reject"), (self.message(self.archive(), "application/zip"), "reject"),
                (self.message("<p>x<a href='https://example.org/hold'>y", "text/html"), "hold"),
                (self.message("beetle"), "prepend"), (self.message("plain"), "pass")]

    def test_filter(self):
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port, checks=self.checks) as service:
            with Client(service.filter_port) as client:
                for content, done in self.cases():
                    with self.subTest(done=done):
                        self.assertEqual(client.deliver(content + b".\r\n")[-1][0], 550 if done == "reject" else 250)
            service.wait_logged(f"decoded_body 1 pcre:{self.body}:2: REJECT no: casino ä")
            service.wait_logged(f"attachment 1 pcre:{self.attachment}:2: REJECT no programs: 1/1/1; application/x-dosexec; name=\"ä.exe\"")
        (_, held), (_, prepended), (_, passed) = messages
        self.assertEqual(held, b"X-Weir-Verdict: HOLD\r\n" + self.cases()[2][0])
        self.assertEqual(prepended, b"X-Found: beetle\r\n" + self.cases()[3][0])
        self.assertEqual(passed, self.cases()[4][0])

    def test_milter(self):
        last = {"reject": ["y"], "hold": ["q", "c"], "prepend": ["i", "c"], "pass": ["c"]}
        with MilterService(checks=self.checks) as service, service.mta() as mta:
            mta.connect()
            for content, done in self.cases():
                with self.subTest(done=done):
                    headers, body = content.split(b"\r\n\r\n", 1)
                    mta.mail()
                    lines = [line.split(":", 1) for line in headers.decode().split("\r\n")]
                    self.assertEqual([command for command, _ in mta.content(lines, body)], last[done])

    def test_pipe(self):
        to = self.directory / "to"
        to.write_text("#!/bin/sh\nexec cat\n")
        to.chmod(0o755)
        for content, done in self.cases():
            if done == "hold":
                # pipe(8) can't hold.
                continue
            with self.subTest(done=done):
                content = content.replace(b"\r\n", b"\n")
                run = subprocess.run(
                    [BINARY, "filter", "--config", self.config, "--to", to, "-f", "a@example.org", "--", "b@example.org"],
                    env=ENVIRONMENT, timeout=120, input=content, capture_output=True)
                self.assertEqual(run.returncode, 69 if done == "reject" else 0)
                if done != "reject":
                    self.assertEqual(run.stdout, (b"X-Found: beetle\n" if done == "prepend" else b"") + content)

    def test_edits_are_refused_with_their_line(self):
        self.body.write_text("/a/ WARN\n/b/ STRIP\n")
        shown = weir("check-config", "--config", self.config, check=False)
        self.assertIn(f"{self.body}:2: checks: decoded_body can't carry out STRIP", shown.stdout + shown.stderr)

    def test_check_names_the_part(self):
        path = self.directory / "message"
        path.write_bytes(self.cases()[0][0])
        self.assertIn(f"  decoded_body 1 offset ", weir("check", "--config", self.config, path).stdout)
        match, = json.loads(weir("check", "--config", self.config, "--json", path).stdout)["matches"]
        self.assertEqual((match["class"], match["part"], match["content"]), ("decoded_body", "1", "casino ä"))
        shown = weir("check", "--config", self.config, "--decoded", path).stdout
        self.assertIn("  decoded_body 1\n    x\n    casino ä\n  attachment\n    1; text/plain; name=\"\"; ", shown)


class BeforeQueue(unittest.TestCase):
    """A real Postfix in front of Weir (smtpd_proxy_filter)."""

    def test_the_client_is_refused(self):
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="weir-test-")))
        inner, outer = io.BytesIO(), io.BytesIO()
        with zipfile.ZipFile(inner, "w") as file:
            file.writestr("a.exe", b"MZ")
        with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("inner.zip", inner.getvalue())
        program, text = base64.encodebytes(outer.getvalue()).decode(), base64.b64encode(b"the casino").decode()
        head = "MIME-Version: 1.0\nContent-Transfer-Encoding: base64\nContent-Type: "
        rules = {"decoded_header": "/^Subject: casino/ REJECT 5.7.1 subject", "decoded_body": "/casino/ REJECT 5.7.1 text",
                 "attachment": "/x-dosexec/ REJECT 5.7.1 program"}
        for name, table in rules.items():
            (directory / name).write_text(table + "\n")
        checks = {name: [f"pcre:{directory}/{name}"] for name in rules}
        with SMTPSink() as sink, filtered_postfix(
                sink.port, listener={"mode": "before_queue"}, before_queue=True, checks=checks) as (postfix, weir):
            for content, reply in ((f"Subject: {SUBJECT}\n\nbody\n", "550 5.7.1 subject"),
                                   (f"{head}text/plain\n\n{text}\n", "550 5.7.1 text"),
                                   (f"{head}application/zip\n\n{program}\n", "550 5.7.1 program"),
                                   ("Subject: ham\n\nbody\n", "250 2.0.0 Ok: queued as")):
                with self.subTest(reply=reply):
                    (directory / "content").write_text(content)
                    shown = postfix.swaks("--from", "a@example.org", "--to", "b@example.com", "--data", f"@{directory}/content")
                    self.assertIn(reply, shown.stdout)
            wait_until(sink.messages, lambda: f"arrived\n{postfix.log()}\n{weir.log()}")
            (message,) = sink.messages()
            self.assertIn(b"Subject: ham", message["content"])


class Query(unittest.TestCase):
    def test_decoded(self):
        with tempfile.TemporaryDirectory(prefix="weir-test-") as directory:
            table = pathlib.Path(directory) / "table"
            table.write_text("/^СУББОТА\\w$/ found\n/^.ß$/ one character\n")
            for key, plain, decoded in (("суббота!", "", ""), ("субботаж", "", "found\n"), ("äß", "", "one character\n")):
                for options, expected in ((), plain), (("--decoded",), decoded):
                    with self.subTest(key=key, options=options):
                        run = weir("query", *options, f"pcre:{table}", key, check=False)
                        self.assertEqual((run.stdout, run.returncode), (expected, 0 if expected else 1))
            self.assertNotEqual(weir("query", "--decoded", "--checks", f"pcre:{table}", "x", check=False).returncode, 0)


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


class Shown(html.parser.HTMLParser):
    """The words of simple HTML."""

    def __init__(self, text):
        super().__init__()
        self.parts = []
        self.feed(text)
        self.close()

    def handle_data(self, data):
        self.parts.append(data)

    def handle_starttag(self, tag, attributes):
        if tag in ("p", "br", "div", "td"):
            self.parts.append(" ")


class PartsBesidePython(unittest.TestCase):
    """Random messages: the text and the files that Python's email finds in them, in its order."""

    def leaf(self, source):
        choose = source.choice
        charset, kind = choose([name for name in CHARSETS if name != "utf-7"]), choose(["plain", "html", "octet-stream"])
        words = [text for text in TEXTS if "\t" not in text and self.fits(text, charset)]
        text = "\n".join(" ".join(choose(words) for _ in range(source.randint(1, 30))) for _ in range(source.randint(1, 20)))
        if kind == "html":
            text = "".join(choose(["<p>", "<b>", "</b>", "<br>", "<!-- x -->", " "]) + line.replace("<", "&lt;") for line in text.split("\n"))
        part = email.mime.base.MIMEBase("application" if kind == "octet-stream" else "text", kind)
        # A file of text has LF as its line end.
        raw = bytes(source.randrange(256) for _ in range(source.randint(1, 3000))) if kind == "octet-stream" else text.encode(charset)
        part.set_payload(raw)
        if kind != "octet-stream":
            part.set_param("charset", charset)
        binary = kind == "octet-stream" or charset.startswith("utf-16") or charset.startswith("utf-32")
        choose([email.encoders.encode_base64] if binary else [email.encoders.encode_base64, email.encoders.encode_quopri])(part)
        if source.random() < 0.5:
            part.add_header("Content-Disposition", "attachment", filename=("utf-8", "", choose(["rät.exe", "a b.zip", "x\"y"])))
        return part

    def fits(self, text, charset):
        try:
            return text.encode(charset).decode(charset) == text
        except UnicodeError:
            return False

    def tree(self, source, depth=0):
        if depth == 3 or source.random() < 0.4 and depth > 0:
            return self.leaf(source)
        if depth > 0 and source.random() < 0.2:
            return email.mime.message.MIMEMessage(self.tree(source, depth + 1))
        return email.mime.multipart.MIMEMultipart(
            source.choice(["mixed", "alternative"]), _subparts=[self.tree(source, depth + 1) for _ in range(source.randint(1, 4))])

    def test_parts(self):
        with tempfile.TemporaryDirectory(prefix="weir-test-") as directory:
            config = pathlib.Path(directory) / "weir.yaml"
            config.write_text("{}")
            files = []
            for seed in range(100):
                files.append(pathlib.Path(directory) / f"{seed:03}")
                files[-1].write_bytes(self.tree(random.Random(seed)).as_bytes())
            found = weir("check", "--config", config, "--decoded", "--json", *files).stdout.splitlines()
            for path, line in zip(files, found, strict=True):
                with self.subTest(seed=path.name):
                    self.compare(email.message_from_bytes(path.read_bytes()), json.loads(line))

    def compare(self, message, found):
        leaves = [part for part in message.walk() if not part.is_multipart()]
        self.assertEqual(len(found["attachments"]), len(leaves))
        for part, line in zip(leaves, found["attachments"]):
            raw, path = part.get_payload(decode=True), line["part"]
            size = len(raw) if part["Content-Transfer-Encoding"] == "base64" else len(raw.replace(b"\r\n", b"\n"))
            self.assertIn(f"; size={size};", line["text"])
            self.assertIn(f'; declared="{part.get_content_type()}";', line["text"])
            name = (part.get_filename() or "").replace('"', '\\"')
            self.assertIn(f'; name="{name}";', line["text"])
            shown = [each["text"] for each in found["body"] if each["part"] == path]
            if part.get_content_maintype() == "text":
                text = raw.decode(part.get_content_charset())
                if part.get_content_subtype() == "html":
                    text = "".join(Shown(text).parts)
                    self.assertEqual(" ".join(shown).split(), visible(text).split())
                else:
                    self.assertEqual(shown, [visible(each) for each in text.split("\n") if visible(each)])
            else:
                self.assertEqual(shown, [])


if __name__ == "__main__":
    unittest.main()
