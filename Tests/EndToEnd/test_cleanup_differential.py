# SPDX-License-Identifier: Apache-2.0
"""The content filter against Postfix's own cleanup: same bytes out, or the same refusal.

Each message goes to a Postfix with the tables in its cleanup, and, as weir changes it, to the
same Postfix without them. What arrives must be the same.

Environment: WEIR names the binary, WEIR_MESSAGES how many messages a round, WEIR_ROUNDS how
many sets of tables, WEIR_SEED where to start.
"""
import base64
import json
import os
import pathlib
import random
import re
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import unittest

from postfix import accepts, from_lines, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEIR = os.environ.get("WEIR_BINARY", str(ROOT / ".build/release/weir"))
MESSAGES = int(os.environ.get("WEIR_MESSAGES", "200"))
ROUNDS = int(os.environ.get("WEIR_ROUNDS", "5"))
SEED = int(os.environ.get("WEIR_SEED", "1"))
FIXTURES = ROOT / "Tests/Fixtures/mime"
LIMITS = {"header_size_limit": 3000, "body_checks_size_limit": 2000,
          "mime_boundary_length_limit": 20, "mime_nesting_limit": 5, "line_length_limit": 2048}
HOST = "mx.example.org"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Sink(socketserver.ThreadingTCPServer):
    """An SMTP server that keeps mail by sender."""
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self):
        self.lock = threading.Lock()
        self.mail = {}
        super().__init__(("127.0.0.1", 0), SinkSession)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]

    def keep(self, sender, recipients, data):
        with self.lock:
            known, _ = self.mail.get(sender, (set(), None))
            self.mail[sender] = known | set(recipients), data


class SinkSession(socketserver.StreamRequestHandler):
    timeout = 60

    def say(self, line):
        self.wfile.write(line + b"\r\n")

    def handle(self):
        self.say(b"220 sink ESMTP")
        sender, recipients = None, []
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                self.wfile.write(b"250-sink\r\n250 8BITMIME\r\n")
                continue
            if verb == b"MAIL":
                sender, recipients = re.search(rb"<(.*?)>", line)[1].decode(), []
            elif verb == b"RCPT":
                recipients.append(re.search(rb"<(.*?)>", line)[1].decode())
            elif verb == b"DATA":
                self.say(b"354 go on")
                data = []
                while (text := self.rfile.readline()) != b".\r\n":
                    data.append(text[1:] if text.startswith(b".") else text)
                self.server.keep(sender, recipients, b"".join(data))
            elif verb == b"QUIT":
                self.say(b"221 bye")
                return
            self.say(b"250 ok")


class Postfix:
    """A private Postfix with its own configuration, queue and ports; `checked` is the service with the tables."""

    def __init__(self, directory, sink, tables):
        self.directory = pathlib.Path(directory)
        self.checked, self.plain = free_port(), free_port()
        for name in ("etc", "queue", "data"):
            (self.directory / name).mkdir()
        shutil.chown(self.directory / "data", "postfix", "postfix")
        self.log = self.directory / "log"
        settings = {
            "compatibility_level": "3.6", "queue_directory": self.directory / "queue",
            "data_directory": self.directory / "data", "myhostname": HOST,
            "mydestination": "", "mynetworks": "127.0.0.0/8", "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4", "default_transport": f"smtp:[127.0.0.1]:{sink.port}",
            "maillog_file": self.log, "maillog_file_prefixes": self.directory,
            "local_header_rewrite_clients": "", "smtputf8_enable": "no", "alias_maps": "",
            "alias_database": "", "smtpd_recipient_restrictions": "permit_mynetworks, reject",
            "smtpd_error_sleep_time": "0", "smtpd_hard_error_limit": "100000",
            "smtpd_soft_error_limit": "100000", "smtp_destination_concurrency_limit": "20",
            "smtpd_client_connection_count_limit": "0", "smtpd_banner": HOST,
            "smtpd_forbid_bare_newline": "no", "smtpd_forbid_unauth_pipelining": "no",
            "message_size_limit": "0", "smtp_dns_support_level": "disabled", **LIMITS,
        }
        (self.directory / "etc/main.cf").write_text(
            "".join(f"{key} = {value}\n" for key, value in settings.items()))
        checks = " ".join(f"-o {key}={value}" for key, value in tables.items())
        (self.directory / "etc/master.cf").write_text(f"""
127.0.0.1:{self.checked} inet n - n - 20 smtpd -o cleanup_service_name=checked
127.0.0.1:{self.plain} inet n - n - 20 smtpd
checked unix n - n - 0 cleanup {checks}
cleanup unix n - n - 0 cleanup -o disable_mime_input_processing=yes -o header_size_limit=1000000
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - 20 smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
showq unix n - n - - showq
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
""")
        self.control("start")

    def control(self, verb):
        subprocess.run(["postfix", "-c", self.directory / "etc", verb], check=True,
                       capture_output=True, timeout=120)

    def reload(self):
        """Returns when the master has reloaded, which may be later than the exit of postfix(1)."""
        before = self.log.read_text().count(": reload -- ")
        self.control("reload")
        wait_until(lambda: self.log.read_text().count(": reload -- ") > before, "Postfix has reloaded", interval=0.02)

    def queue(self):
        """Returns (held senders, number of messages still in the queue)."""
        listing = subprocess.run(["postqueue", "-c", self.directory / "etc", "-j"],
                                 capture_output=True, timeout=120).stdout
        entries = [json.loads(line) for line in listing.splitlines()]
        held = {entry["sender"] for entry in entries if entry["queue_name"] == "hold"}
        return held, sum(entry["queue_name"] != "hold" for entry in entries)


class Client:
    """An SMTP session that sends raw bytes."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.file = self.socket.makefile("rb")
        self.reply()
        self.command(b"EHLO client.example")

    def close(self):
        self.file.close()
        self.socket.close()

    def reply(self):
        while True:
            line = self.file.readline()
            if line[3:4] != b"-":
                return line.rstrip(b"\r\n")

    def command(self, line):
        self.socket.sendall(line + b"\r\n")
        return self.reply()

    def send(self, sender, recipient, message):
        self.command(b"MAIL FROM:<%s> BODY=8BITMIME" % sender.encode())
        self.command(b"RCPT TO:<%s>" % recipient.encode())
        self.command(b"DATA")
        if message and not message.endswith(b"\n"):
            message += b"\r\n"
        stuffed = re.sub(rb"(?m)^\.", b"..", message)
        self.socket.sendall(stuffed + b".\r\n")
        return self.reply()


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.boundaries = []

    def pick(self, *choices):
        return self.random.choice(choices)

    def chance(self, probability):
        return self.random.random() < probability

    # Tables

    def pattern(self, kind):
        part = lambda: self.pick(
            "spam", "foo", "bar", "X-[a-z]+", "^Subject:", "^Content-Type:", "boundary", "^--",
            "text", "rfc822", "^To:", "b+a", "o{2}", "[[:digit:]]{3}", "\\.", "z$", "^a", "aaa",
            "(f)(o)", "^>From", "viagra", "^X-A: (.*)", "x{30}", "end$", "q.r")
        perl = lambda: self.pick(
            "\\bham\\b", "\\d{4}", "(?!x)lorem", "(.)\\1\\1", "\\Aipsum", "dolor\\z", "sit\\s+amet",
            "^(?:a|b)c", "(?<=a)b", "\\x41\\x42", "foo\\Z", "a++b", "e{100}", "[^\\x00-\\x7f]", "\\R")
        text = part()
        while self.chance(0.35):
            text += self.pick(".*", "|", "", " ") + \
                (perl() if kind == "pcre" and self.chance(0.5) else part())
        return text

    def action(self, subject, port):
        header = subject != "body"
        new = self.pick("X-New: $0here", "no header", "X-New: a", "Subject: spam", "X-Two: b") \
            if header else self.pick("new line", ".", "..dots", "--b1", " x")
        return self.pick(
            "REJECT", "REJECT no thanks", "REJECT 4.7.0 later", "REJECT 5.1.2 go", "reject 2.0.0 odd",
            "DISCARD", "PASS", "HOLD", "WARN look", "INFO", "IGNORE", "IGNORE", "STRIP note",
            "DUNNO", "OK", "REDIRECT other@example.net", "REDIRECT nobody", "BCC copy@example.net",
            "BCC one@example.com", "BCC none", f"FILTER smtp:[127.0.0.1]:{port}", "FILTER none",
            "FILTER", f"PREPEND {new}", "PREPEND", f"REPLACE {new}", "REPLACE", "UNKNOWN x",
            "REPLACE X-Got: $1", "PREPEND X-Got: $1", "IGNORE", "DUNNO", f"REPLACE {new}",
            f"PREPEND {new}", "IGNORE").replace("$0", "")

    def table(self, kind, subject, port):
        # Ignore the header that smtpd adds.
        lines = [f"/^Received: from client\\.example.*by mx\\.example\\.org/{'m' if kind == 'regexp' else ''} DUNNO"]
        for _ in range(self.random.randint(2, 14)):
            pattern = self.pattern(kind)
            flags = self.pick("", "", "", "", "i", "m", "x" if kind == "pcre" else "", "s" if kind == "pcre" else "")
            dice = self.random.random()
            if dice < 0.08:
                lines.append(f"if {self.pick('', '', '!')}/{pattern}/")
            elif dice < 0.16:
                lines.append("endif")
            elif dice < 0.20:
                # Most lines match these, so their actions are harmless. Some reach the match limit on long lines, and don't apply.
                if kind == "pcre" and self.chance(0.2):
                    pattern = "(?:e+)+7"
                lines.append(f"!/{pattern}|^Received/ {self.pick('DUNNO', 'WARN all', 'INFO')}")
            else:
                action = self.action(subject, port)
                if "$1" in action:
                    pattern = f"({pattern})"
                lines.append(f"/{pattern}/{flags} {action}")
        if self.chance(0.05):
            lines.append("/x{30}/")
        return "\n".join(lines) + "\n"

    # Messages

    def text(self):
        words = ["spam", "foo", "bar", "baa", "lorem", "ipsum", "dolor", "sit  amet", "ham", "aaab", "1234",
                 "viagra", "ab", "ac", "z", "end", "x" * 30, "AB", "é", "q\rr", "--", ".", "..", ">From x",
                 "the", "quick", "brown", "fox", "over", "dog", "and", "other", "words", "of", "no", "note"]
        return " ".join(self.pick(*words) for _ in range(self.random.randint(0, 6)))

    def header(self):
        name = self.pick("Subject", "X-A", "X-Foo", "To", "From", "X-B", "Received", "Cc", "x-a", "Date",
                         "MIME-Version", "Content-Id", "Content-Length", "Content-Description", "X-Spam")
        value = self.text()
        for _ in range(self.random.randint(0, 2) if self.chance(0.3) else 0):
            value += self.pick("\r\n ", "\r\n\t", "\n ", "\r\n  \t") + self.text()
        if self.chance(0.03):
            value += self.pick("\0 after", "\r", "\r\n \r\n x", "y" * 2100, "\r\n " + "w" * 1500 + "\r\n " + "v" * 2500)
        return f"{name}{self.pick(':', ': ', ': ', ': ', ' : ', ':  ')}{value}\r\n"

    def content_type(self, depth):
        if depth < 7 and self.chance(0.5):
            boundary = self.pick("b1", "b2", "b1x", "long" * 8, "=_q", "sp ace", "")
            self.boundaries.append(boundary)
            quoted = self.pick(f'"{boundary}"', boundary or '""', f'"{boundary}"; boundary=b9', f'(c) "{boundary}"')
            kind = self.pick("mixed", "digest", "alternative", "MIXED", "(x)mixed", "related; a=b")
            return boundary, f"Content-Type: multipart/{kind};{self.pick(' ', chr(13) + chr(10) + chr(9))}boundary={quoted}\r\n"
        return None, "Content-Type: " + self.pick(
            "text/plain", "message/rfc822", "message/global", "message/partial", "message/rfc822; x=y", "text",
            "application/octet-stream", "", "message/delivery-status", "multipart/mixed", '"text"/plain',
            "MESSAGE/RFC822", "text/plain; charset=\"a;b\"", "; boundary=zz", "message (c) / rfc822") + "\r\n"

    def body(self):
        lines = []
        for _ in range(self.random.randint(0, 8)):
            line = self.text()
            if self.chance(0.04):
                line = self.pick("." + "e" * 2046, "." + "e" * 2047, "e" * 2046, "e" * 2047, "e" * 2048,
                                 "e" * 2049, "d" * 5000 + "spam", "f" * 2040 + " viagra", "\0foo", "foo\0bar", "z\r\r",
                                 "." * 3000, "a" * 2047 + "\r", "spam" * 1100)
            if self.chance(0.1):
                line = "--" + self.pick(*(self.boundaries or ["b1"])) + self.pick("", "", "--", "--x", "tail", " ")
            lines.append(line + self.pick("\r\n", "\r\n", "\r\n", "\n" if self.chance(0.2) else "\r\n"))
        return "".join(lines)

    def part(self, depth):
        text = "".join(self.header() for _ in range(self.random.randint(0, 4)))
        boundary = None
        if self.chance(0.7):
            boundary, header = self.content_type(depth)
            text += header
            text += "".join(self.header() for _ in range(self.random.randint(0, 2)))
        if self.chance(0.08):
            text += self.pick("no header here\r\n", "--b1\r\n", " indented\r\n", "\0x: y\r\n", "bad name: x\r\n", ":\r\n")
        if not self.chance(0.03):
            text += "\r\n"
        text += self.body()
        if boundary is not None:
            for _ in range(self.random.randint(0, 3)):
                text += f"--{boundary}{self.pick('', '', '', ' junk')}\r\n" + self.part(depth + 1)
            if self.chance(0.8):
                text += f"--{boundary}--\r\n"
            text += self.body()
        elif depth < 7 and self.chance(0.3):
            text += self.part(depth + 1)
        return text

    def message(self):
        self.boundaries = []
        dice = self.random.random()
        if dice < 0.02:
            return self.pick(b"", b"\r\n", b"X-A: only\r\n", b"spam\r\n", b"\n", b" foo\r\nX-A: x\r\n")
        start = self.pick("From a@example.com now\r\n", ">From x\r\n>>From y\r\n", " folded\r\n", "\rstray\r\n folded\r\n",
                          "From x\r\n\rspam\r\n", "From " + "x" * 2043 + self.pick("foo", " spam", ">From spam", "\rfoo") + "\r\n") if dice < 0.06 else ""
        # weir gets the messages in mbox files, where this line would start another message.
        return re.sub(rb"(?<=\n)(\r?\n)From ", rb"\1from ", (start + self.part(0)).encode())


def cut(text):
    """Cuts a header like cleanup_out_header: after the last line that fits, or at the limit if that would lose more than a tenth of it."""
    limit = LIMITS["header_size_limit"]
    if len(text) <= limit:
        return text
    start = text.rfind(b"\n", 0, limit + 1) + 1
    return text[:start - 1] if start * 10 > limit * 9 else text[:limit]


def cut_header(message, offset):
    """The length of the header at `offset`, and Postfix's version of it."""
    raw = re.compile(rb".*(?:\n[ \t].*)*\n?").match(message, offset)[0]
    lines = [re.sub(rb"\r+$", b"", line).replace(b"\r", b" ") for line in raw.removesuffix(b"\n").split(b"\n")]
    lines[0] = re.sub(rb"^([^:\s]+)[ \t]+:", rb"\1:", lines[0])
    return len(raw), cut(b"\n".join(lines)) + b"\n"


def without_received(data):
    """Removes the header that the private smtpd added."""
    return re.sub(rb"\AReceived: from client\.example .*\r\n(?:[ \t].*\r\n)*", b"", data)


class CleanupDifferential(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="weir-cleanup-")
        os.chmod(cls.directory, 0o755)
        cls.addClassCleanup(shutil.rmtree, cls.directory, True)
        cls.sink, cls.filtered = Sink(), Sink()
        cls.tables = {
            f"{subject}_checks": f"{kind}:{cls.directory}/{subject}.{kind}"
            for subject, kind in (("header", "pcre"), ("mime_header", "regexp"),
                                  ("nested_header", "pcre"), ("body", "pcre"))}
        cls.write_tables({name: "/^$/ DUNNO\n" for name in cls.tables})
        cls.postfix = Postfix(cls.directory, cls.sink, cls.tables)
        cls.addClassCleanup(cls.postfix.control, "stop")
        for port in (cls.postfix.checked, cls.postfix.plain):
            wait_until(lambda port=port: accepts(port), "Postfix listens")

    @classmethod
    def write_tables(cls, contents):
        for name, spec in cls.tables.items():
            pathlib.Path(spec.partition(":")[2]).write_text(contents[name])

    def weir(self, messages, **more):
        """The verdicts of `weir check --json`, by message name."""
        folder = pathlib.Path(self.directory) / "messages"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, message in messages.items():
            # An mbox file has many messages; separators are not part of them.
            (folder / name).write_bytes(b"From differential\n" + message)
        config = pathlib.Path(self.directory) / "weir.yaml"
        checks = {name.removesuffix("_checks"): [spec] for name, spec in self.tables.items()}
        config.write_text(json.dumps(
            {"checks": {**checks, "undisclosed_recipients": "keep", "smtputf8_enable": False, "message_budget": "1h",
                        "from_lines": from_lines(), **LIMITS, **more}}))
        done = subprocess.run(
            [WEIR, "check", "--json", "--config", config, folder], capture_output=True, timeout=120,
            env={**os.environ, "SWIFT_BACKTRACE": "enable=no"})
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        verdicts = {}
        for line in done.stdout.splitlines():
            verdict = json.loads(line)
            verdicts[pathlib.Path(verdict["name"]).name.partition(":")[0]] = verdict
        return verdicts

    @staticmethod
    def apply(message, verdict):
        """The edited message, with long headers cut like the Postfix behind Weir does. Weir passes them on whole."""
        edits = [(edit["offset"], edit["length"], base64.b64decode(edit["replacement"])) for edit in verdict["edits"]]
        # Only the text of a header can be longer.
        edits = [(offset, length, cut(text.removesuffix(b"\n")) + b"\n" if len(text) > LIMITS["header_size_limit"] + 1 else text)
                 for offset, length, text in edits]
        edited = {offset for offset, length, _ in edits if length}
        for note in verdict["notes"]:
            if match := re.match(r"headers longer than header_size_limit \(\d+\), at offset ([\d, ]+):", note):
                for offset in map(int, match[1].split(", ")):
                    if offset not in edited:
                        edits.append((offset, *cut_header(message, offset)))
        result, position = b"", 0
        # What is inserted before a header comes first.
        for offset, length, text in sorted(edits, key=lambda edit: edit[:1] + (edit[1] > 0,)):
            result += message[position:offset] + text.replace(b"\n", b"\r\n")
            position = offset + length
        return result + message[position:]

    def round(self, messages):
        """Sends all messages both ways; returns the numbers of changed and refused messages."""
        self.postfix.reload()
        for sink in (self.sink, self.filtered):
            sink.mail.clear()
        verdicts = self.weir(messages)
        checked, plain = Client(self.postfix.checked), Client(self.postfix.plain)
        changed = refused = 0
        for name, message in messages.items():
            verdict = verdicts[name]
            context = f"{name}\n{message!r}\n{json.dumps(verdict)}\n" + "\n".join(
                f"== {key}\n" + pathlib.Path(spec.partition(':')[2]).read_text()
                for key, spec in self.tables.items())
            reply = checked.send(f"a-{name}@example.org", f"r-{name}@example.org", message).decode()
            if verdict["disposition"] == "refuse":
                refused += 1
                if verdict["text"].startswith("4.3.0"):
                    self.assertEqual(reply[:9], "451 4.3.0", context)
                else:
                    self.assertEqual(reply, f"{verdict['code']} {verdict['text']}", context)
                continue
            self.assertEqual(reply[:3], "250", reply + "\n" + context)
            if verdict["disposition"] == "accept":
                result = self.apply(message, verdict)
                changed += result != message
                reply = plain.send(f"b-{name}@example.org", f"r-{name}@example.org", result).decode()
                self.assertEqual(reply[:3], "250", reply + "\n" + context)
        checked.close()
        plain.close()
        self.drain()
        self.compare(messages, verdicts)
        return changed, refused

    def drain(self):
        wait_until(
            lambda: not self.postfix.queue()[1], lambda: f"the queue drained\n{self.postfix.log.read_text()[-3000:]}",
            interval=0.2)

    def compare(self, messages, verdicts):
        held, _ = self.postfix.queue()
        for name, message in messages.items():
            verdict = verdicts[name]
            context = f"{name}\n{message!r}\n{json.dumps(verdict)}\n" + "\n".join(
                f"== {key}\n" + pathlib.Path(spec.partition(':')[2]).read_text()
                for key, spec in self.tables.items())
            accepted = verdict["disposition"] == "accept"
            self.assertEqual(f"a-{name}@example.org" in held, accepted and verdict["held"], context)
            if f"a-{name}@example.org" in held:
                continue
            sink = self.filtered if verdict.get("filter") and accepted else self.sink
            other = self.sink if sink is self.filtered else self.filtered
            self.assertNotIn(f"a-{name}@example.org", other.mail, context)
            recipients, data = sink.mail.get(f"a-{name}@example.org", (set(), None))
            if not accepted:
                self.assertIsNone(data, context)
                continue
            expected = {verdict["redirect"]} if verdict.get("redirect") else \
                {f"r-{name}@example.org", *verdict["bcc"]}
            self.assertEqual(recipients, expected, context)
            _, other_data = self.sink.mail.get(f"b-{name}@example.org", (set(), None))
            self.assertIsNotNone(other_data, context)
            self.assertEqual(without_received(data), without_received(other_data), context)
        subprocess.run(["postsuper", "-c", self.directory + "/etc", "-d", "ALL", "hold"],
                       capture_output=True, timeout=120)

    def test_generated_messages(self):
        changed = refused = 0
        for number in range(ROUNDS):
            generator = Generator(SEED + number)
            with self.subTest(seed=SEED + number):
                self.write_tables({
                    name: generator.table(spec.partition(":")[0], name.removesuffix("_checks"), self.filtered.port)
                    for name, spec in self.tables.items()})
                messages = {f"{number}-{index}": generator.message() for index in range(MESSAGES)}
                these = self.round(messages)
                changed, refused = changed + these[0], refused + these[1]
                fast = self.weir(messages)
                slow = self.weir(messages, fast_pass=False)
                self.assertEqual(fast, slow)
                fast = self.weir(messages, match_limit=1000)
                slow = self.weir(messages, match_limit=1000, fast_pass=False)
                for verdict in (*fast.values(), *slow.values()):
                    # The fast pass skips rules that can't match, so they reach no limit.
                    verdict["notes"] = [note for note in verdict["notes"] if "limit exceeded" not in note]
                self.assertEqual(fast, slow)
        # Some rules must act, or the comparison would be void.
        self.assertGreater(changed, ROUNDS * MESSAGES // 20)
        self.assertGreater(refused, 0)

    def test_fixtures(self):
        for folder in sorted(path for path in FIXTURES.iterdir() if path.is_dir()):
            with self.subTest(fixture=folder.name):
                self.write_tables({
                    name: (folder / name).read_text().replace("@FILTERED@", str(self.filtered.port))
                    if (folder / name).exists() else "/^$/ DUNNO\n" for name in self.tables})
                self.round({path.stem: path.read_bytes() for path in sorted(folder.glob("*.eml"))})


if __name__ == "__main__":
    unittest.main()
