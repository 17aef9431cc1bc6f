# SPDX-License-Identifier: Apache-2.0
"""The columns of Sendmail in the tables of docs/milter.md, against a real Sendmail. Tests/sendmail runs these tests.

    WEIR_WRITE_GENERATED=1 Tests/sendmail DIRECTORY     writes the columns

Environment: WEIR_SENDMAIL is a folder with the unpacked packages sendmail-bin, sendmail-cf and libwrap0. Nothing of it
is installed; Sendmail runs in a UTS namespace of its own, because it looks for its full host name for a minute.
"""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import test_headers
from postfix import SMTPSink, as_root, wait_until

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
MAILER(`local')
MAILER(`smtp')
"""


class Sendmail:
    """The commands of an unpacked Sendmail that gives all mail to a port of 127.0.0.1."""

    def __init__(self, port):
        # Sendmail trusts no folder below one that others can write to, such as /tmp.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-sendmail-", dir="/run"))
        (self.directory / "queue").mkdir(mode=0o700)
        (self.directory / "switch").write_text("hosts files\naliases files\n")
        # Without the group of the package, which would also make the loader ignore LD_LIBRARY_PATH.
        (self.binary,) = UNPACKED.glob("usr/libexec/sendmail/sendmail")
        self.binary.chmod(0o755)
        macros = UNPACKED / "usr/share/sendmail/cf"
        text = MC.format(macros=macros, host=HOST, directory=self.directory, port=port)
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

    def accepted(self, arguments):
        """Which arguments of RCPT the SMTP server accepts."""
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
            ask("MAIL FROM:<a@example.org>")
            found = [argument for argument in arguments if ask(f"RCPT TO:{argument}") == "2"]
            ask("QUIT")
            return found


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
            accepted = sendmail.accepted(arguments)
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


if __name__ == "__main__":
    unittest.main()
