# SPDX-License-Identifier: Apache-2.0
"""Sendmail: its columns in the tables of docs/milter.md, and Weir as its milter. Tests/sendmail runs these tests.

    WEIR_WRITE_GENERATED=1 Tests/sendmail DIRECTORY     writes the columns

Environment: WEIR_SENDMAIL is a folder with the unpacked packages sendmail-bin, sendmail-cf and libwrap0. Nothing of it
is installed; Sendmail runs in a UTS namespace of its own, because it looks for its full host name for a minute.
"""
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import test_fidelity
import test_headers
from milter import MilterService
from postfix import SMTP, SMTPSink, as_root, wait_until

UNPACKED = pathlib.Path(os.environ.get("WEIR_SENDMAIL", "/nonexistent"))
PAGE, VALUES = test_headers.Repaired.PAGE, test_headers.Repaired.VALUES
HOST = "mx.example.org"
# A client that sends to any domain; all mail goes to a sink.
MC = """\
include(`{macros}/m4/cf.m4')
VERSIONID(`weir')
OSTYPE(`linux')
define(`confDOMAIN_NAME', `{host}')
define(`QUEUE_DIR', `{directory}/queue')
define(`ALIAS_FILE', `')
define(`STATUS_FILE', `')
define(`confPID_FILE', `{directory}/pid')
define(`confSERVICE_SWITCH_FILE', `{directory}/switch')
define(`confCW_FILE', `-o {directory}/none')
define(`confTO_IDENT', `0')
FEATURE(`nocanonify')
FEATURE(`accept_unresolvable_domains')
FEATURE(`promiscuous_relay')
define(`RELAY_MAILER_ARGS', `TCP $h {port}')
define(`SMART_HOST', `relay:[127.0.0.1]')
{milters}MAILER(`local')
MAILER(`smtp')
"""


class Sendmail:
    """The commands of an unpacked Sendmail that gives all mail to a port of 127.0.0.1."""

    def __init__(self, port, milter=None):
        # Sendmail trusts no folder below one that others can write to, such as /tmp.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-sendmail-", dir="/run"))
        (self.directory / "queue").mkdir(mode=0o700)
        (self.directory / "switch").write_text("hosts files\naliases files\n")
        # Without the group of the package, which would also make the loader ignore LD_LIBRARY_PATH.
        (self.binary,) = UNPACKED.glob("usr/libexec/sendmail/sendmail")
        self.binary.chmod(0o755)
        macros = UNPACKED / "usr/share/sendmail/cf"
        milters = f"INPUT_MAIL_FILTER(`weir', `S=inet:{milter}@127.0.0.1, F=T')\n" if milter else ""
        text = MC.format(milters=milters, macros=macros, host=HOST, directory=self.directory, port=port)
        done = subprocess.run(["m4", f"-D_CF_DIR_={macros}/"], input=text, capture_output=True, text=True, check=True)
        (self.directory / "sendmail.cf").write_text(done.stdout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory)

    def command(self, *arguments):
        (library,) = UNPACKED.glob("**/libwrap.so.0")
        return as_root([
            "unshare", "--uts", "sh", "-c", f'hostname {HOST}; exec "$@"', "sh", "env", f"LD_LIBRARY_PATH={library.parent}",
            str(self.binary), "-C", str(self.directory / "sendmail.cf"), *arguments])

    def run(self, *arguments, text=""):
        """What Sendmail prints. Its exit status is an error where it refuses an address."""
        return subprocess.run(self.command(*arguments), input=text, capture_output=True, text=True, timeout=120).stdout

    @contextlib.contextmanager
    def smtp(self):
        """A dialogue with the SMTP server: a function that sends a line and returns the first digit of the reply."""
        with subprocess.Popen(self.command("-bs"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            def ask(command):
                process.stdin.write(command + "\r\n")
                return reply()

            def reply():
                while (line := process.stdout.readline())[3:4] == "-":
                    pass
                return line[:1]
            reply()
            ask("EHLO client.example.org")
            yield ask
            ask("QUIT")


def column(name, title):
    """The cells of a column of a table in docs/milter.md, with the cells of the first one."""
    lines = re.search(rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", PAGE.read_text(), re.S)[1].splitlines()
    rows = [[cell.strip(" ") for cell in line.strip("|").split(" | ")] for line in lines]
    place = rows[0].index(title)
    return [(row[0].strip("`"), row[place].strip("`")) for row in rows[2:]]


class Tables(unittest.TestCase):
    maxDiff = None

    def check(self, name, found):
        if os.environ.get("WEIR_WRITE_GENERATED") == "1":
            page = PAGE.read_text()
            head, table, rest = re.split(rf"(?<=<!-- {name}: begin -->\n)(.*?)(?=<!-- {name}: end -->)", page, maxsplit=1, flags=re.S)
            lines = table.splitlines(True)
            place = lines[0].split(" | ").index("Sendmail")
            for number, (_, value) in enumerate(found, 2):
                cells = lines[number].split(" | ")
                cells[place] = value if value in ("refused", "empty") else f"`{value}`"
                lines[number] = " | ".join(cells)
            PAGE.write_text(head + "".join(lines) + rest)
        self.assertEqual(column(name, "Sendmail"), found)

    def test_addresses(self):
        """The user that Sendmail would give to a mailer, unless it refuses RCPT."""
        arguments, found = [argument for argument, _ in column("addresses", "Sendmail")], []
        with Sendmail(1) as sendmail:
            with sendmail.smtp() as ask:
                ask("MAIL FROM:<a@example.org>")
                accepted = [argument for argument in arguments if ask(f"RCPT TO:{argument}") == "2"]
            for argument in arguments:
                match = re.search(r"\.\.\. deliverable: mailer \w+, (?:host \S+, )?user (.*)$", sendmail.run("-bv", "--", argument), re.M)
                found.append((argument, match[1] if argument in accepted else "refused"))
        self.check("addresses", found)

    def test_headers(self):
        with SMTPSink() as sink, Sendmail(sink.port) as sendmail:
            for number, value in enumerate(VALUES):
                sendmail.run("-i", "-f", "a@example.org", "b@example.com", text=f"X-Number: {number}\nFrom: {value}\nTo: b@example.com\n\nbody\n")
            wait_until(lambda: len(sink.messages()) == len(VALUES), lambda: f"{len(sink.messages())} messages")
            found = {}
            for message in sink.messages():
                number = re.search(rb"(?m)^X-Number: (\d+)$", message["content"])[1]
                (found[int(number)],) = [header.removeprefix("From: ") for header in test_headers.headers(message["content"]) if header.startswith("From:")]
        self.check("headers", [(value, found[number] or "empty") for number, value in enumerate(VALUES)])


class Milter(unittest.TestCase):
    maxDiff = None

    def test_places(self):
        """Of PREPEND and of REPLACE with a new name: as in Postfix alone with the same table."""
        found = {}
        with SMTPSink() as sink, test_fidelity.plain_postfix(sink.port, test_fidelity.PLACES) as (postfix, _):
            with SMTP(postfix.port) as client:
                for message in self.messages():
                    client.mail("a@example.org", ["b@example.com"], message)
            found["Postfix"] = self.delivered(sink)
        with SMTPSink() as sink, MilterService(test_fidelity.PLACES) as weir, Sendmail(sink.port, weir.milter_port) as sendmail:
            with sendmail.smtp() as ask:
                for message in self.messages():
                    self.assertEqual([ask("MAIL FROM:<a@example.org>"), ask("RCPT TO:<b@example.com>"), ask("DATA")], ["2", "2", "3"])
                    self.assertEqual(ask(message.replace("\n", "\r\n") + "."), "2")
            found["Sendmail"] = self.delivered(sink)
            self.assertNotIn("closed the milter connection", weir.log())
        self.assertEqual(found["Sendmail"], found["Postfix"])
        self.assertIn("X-New: above", found["Sendmail"][0])

    @staticmethod
    def messages():
        """With all headers that the two would add."""
        own = "Message-Id: <own@example.org>\nDate: Mon, 1 Jan 2001 00:00:00 +0000\nFrom: c@example.org\nTo: b@example.com\n"
        return [f"X-Number: {number}\n{own}{message}" for number, message in enumerate(test_fidelity.PLACED)]

    @staticmethod
    def delivered(sink):
        wait_until(lambda: len(sink.messages()) == len(test_fidelity.PLACED), "delivered")
        own = [test_fidelity.headers(message["content"]) for message in sink.messages()]
        return sorted(([header for header in headers if header != "Received: own"] for headers in own), key=lambda headers: max(header for header in headers if header.startswith("X-Number: ")))


if __name__ == "__main__":
    unittest.main()
