# SPDX-License-Identifier: Apache-2.0
"""weir setup: what it writes passes check-config, and with the printed commands weir doctor has no findings."""
import os
import pathlib
import pty
import select
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
import unittest

from postfix import PrivatePostfix, SMTP, SMTPSink, free_port, run
from test_doctor import words_of
from test_replay import message
from weir import BINARY, ENVIRONMENT, USER, WeirService, weir

EX_USAGE, EX_NOINPUT, EX_UNAVAILABLE, EX_CANTCREAT = 64, 66, 69, 73
# A proxy may pass logins on, so limits by login can apply.
LOGINS = {"smtpd_authorized_xclient_hosts": "127.0.0.0/8", "smtpd_forbid_bare_newline": "yes"}


class Dialogue:
    """`weir setup` on a terminal."""

    def __init__(self, *arguments):
        self.terminal, terminal = pty.openpty()
        self.process = subprocess.Popen([BINARY, "setup", *arguments], stdin=terminal, stdout=terminal, stderr=terminal, env=ENVIRONMENT)
        os.close(terminal)
        self.text = ""

    def answer(self, question, text):
        """Waits for the next prompt, which must contain the question."""
        start = len(self.text)
        while not self.text[start:].endswith("] "):
            if not select.select([self.terminal], [], [], 120)[0]:
                raise AssertionError(f"no question about {question}:\n{self.text}")
            self.text += os.read(self.terminal, 4096).decode()
        if question not in self.text[start:]:
            raise AssertionError(self.text)
        os.write(self.terminal, text.encode())

    def end(self):
        """Reads the rest; returns the exit status."""
        try:
            while part := os.read(self.terminal, 4096):
                self.text += part.decode()
        except OSError:
            pass  # The other end is closed.
        os.close(self.terminal)
        return self.process.wait(120)


def commands(text):
    return [line.strip() for line in text.splitlines() if line.startswith("    postconf ")]


class Setup(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.directory.chmod(0o755)
        self.file = self.directory / "weir.yaml"

    def postfix(self, **main):
        """main.cf and master.cf of a Postfix that does not run."""
        postfix = PrivatePostfix(main=main)
        self.addCleanup(shutil.rmtree, postfix.directory)
        postfix.etc.mkdir()
        postfix.write()
        return postfix

    def setup_fails(self, status, *arguments, **options):
        result = weir("setup", *arguments, check=False, stdin=subprocess.DEVNULL, **options)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result.stderr

    def test_defaults(self):
        postfix = self.postfix(**LOGINS)
        result = weir("setup", "--yes", "--output", self.file, "--postfix", postfix.etc, "--log", os.devnull)
        self.assertRegex(result.stdout, (
            rf"(?m)^wrote {self.file}\n  each login may send to 100/1m, 1000/1h, 5000/1d recipients\. In shadow mode, it only logs; on \d+-\d+-\d+, write mode: enforce$"))
        self.assertIn(f"weir doctor --postfix {postfix.etc} --config {self.file} --try", result.stdout)
        # Postfix must not ask before Weir answers.
        order = ["weir serve --config", "weir check-health --config", f"cp -p {postfix.etc}/main.cf ", "    postconf ", f"postfix -c {postfix.etc} reload", "weir doctor "]
        places = [result.stdout.index(f"{command}") for command in order]
        self.assertEqual(places, sorted(places), result.stdout)
        checked = weir("check-config", "--config", self.file)
        self.assertEqual(checked.stderr, "")
        self.assertIn("valid: 1 limit (per-user), policy on inet:127.0.0.1:10040, ", checked.stdout)
        self.assertIn("0 warnings", checked.stdout)
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode) & 0o137, 0)
        text = self.file.read_text()
        day = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 7 * 86400))
        for line in (f"On {day}, ", "mode: shadow", "rates: [100/1m, 1000/1h, 5000/1d]", 'mail: ["postmaster@mx.example.org"]'):
            self.assertIn(line, text)

    def test_a_hostname_that_is_no_domain(self):
        """It makes no address for alerts, which check-config would refuse."""
        postfix = self.postfix(myhostname="$undefined", **LOGINS)
        result = weir("setup", "--yes", "--output", self.file, "--postfix", postfix.etc, "--log", os.devnull)
        self.assertIn("note: myhostname of this Postfix, '', is no domain, so alerts have no address yet", result.stdout)
        self.assertIn("    postconf ", result.stdout)
        self.assertIn("key: sasl_username", self.file.read_text())
        weir("check-config", "--config", self.file)

    def test_without_logins_it_counts_clients(self):
        postfix = self.postfix(smtpd_sasl_auth_enable="no")
        weir("setup", "--yes", "--output", self.file, "--postfix", postfix.etc, "--log", os.devnull)
        self.assertIn("key: client_address", self.file.read_text())

    def test_other_mail_servers_are_clients_too(self):
        """Whoever refuses at once is told so."""
        for days, said in (("7", False), ("0", True)):
            self.file.unlink(missing_ok=True)
            dialogue = Dialogue("--output", self.file, "--postfix", self.postfix(**LOGINS).etc, "--log", os.devnull)
            for question, text in (("Count mail by", "client\n"), ("How many", "\n"), ("Check the content", "\n"), ("Which mail address", "alice\n"),
                                   ("For how many days", f"{days}\n")):
                dialogue.answer(question, text)
            self.assertEqual(dialogue.end(), 0, dialogue.text)
            self.assertIn("note: alice has no @, so a user or an alias here gets the alerts", dialogue.text)
            self.assertEqual("note: this refuses other mail servers, too." in dialogue.text, said, dialogue.text)

    def test_fixes_are_printed_once(self):
        postfix = self.postfix(**LOGINS)
        with (postfix.etc / "master.cf").open("a") as master:
            master.write("2587 inet n - n - - smtpd\n")
        result = weir("setup", "--yes", "--output", self.file, "--postfix", postfix.etc, "--log", os.devnull)
        self.assertRegex(result.stdout, r"(?m)^    # 2587/inet: this service never asks Weir: .* \(the commands above fix this, too\)$")
        for command in commands(result.stdout):
            run(shlex.split(command))
        for name in ("main.cf", "master.cf"):
            os.utime(postfix.etc / name, (1_700_000_000, 1_700_000_000))
        self.file.unlink()
        with (postfix.etc / "main.cf").open("a") as main:
            main.write("odd_parameter = 1\n")
        result = weir("setup", "--yes", "--output", self.file, "--postfix", postfix.etc, "--log", os.devnull)
        self.assertIn(f"\n2. Postfix ({postfix.etc}) is connected already. To look at:\n", result.stdout)
        self.assertEqual(commands(result.stdout), [])

    def test_rates_from_a_log(self):
        now = int(time.time()) - 86400
        log = self.directory / "mail.log"
        log.write_text("".join(message(now + 1000 * number, number, login=f"user{number % 9}", count=40) for number in range(60)))
        weir("setup", "--yes", "--output", self.file, "--postfix", self.postfix(**LOGINS).etc, "--log", log)
        # 40 recipients at once, and 7 such messages a day: half as much again, and never less than a tenth of the usual rates.
        self.assertIn("rates: [61/1m, 100/1h, 500/1d]", self.file.read_text())
        self.assertEqual(weir("check-config", "--config", self.file).stderr, "")

    def test_it_never_overwrites(self):
        self.file.write_text("# mine\n")
        errors = self.setup_fails(EX_CANTCREAT, "--yes", "--output", self.file)
        self.assertIn(f"weir setup: {self.file} exists and is not overwritten.", errors)
        self.assertIn(f"    weir setup --output {self.file}.new\n", errors)
        self.assertEqual(self.file.read_text(), "# mine\n")
        self.file.unlink()
        self.file.symlink_to(self.directory / "nowhere")
        self.setup_fails(EX_CANTCREAT, "--yes", "--output", self.file, "--postfix", self.postfix(**LOGINS).etc, "--log", os.devnull)
        self.assertFalse((self.directory / "nowhere").exists())
        self.assertIn("can't write", self.setup_fails(EX_CANTCREAT, "--yes", "--output", self.directory / "none/weir.yaml", "--log", os.devnull))

    def test_a_file_with_a_blank_in_its_name(self):
        """It is one word of each printed command."""
        file = self.directory / "my weir.yaml"
        arguments = "--output", file, "--postfix", self.postfix(**LOGINS).etc, "--log", os.devnull
        printed = weir("setup", "--yes", *arguments).stdout + self.setup_fails(EX_CANTCREAT, "--yes", *arguments)
        naming = [line for line in printed.splitlines() if line.startswith("    ") and "my weir.yaml" in line]
        self.assertGreaterEqual(len(naming), 3, printed)
        for line in naming:
            self.assertTrue({str(file), f"{file}.new"} & set(shlex.split(line)), line)

    def test_without_a_terminal(self):
        errors = self.setup_fails(EX_USAGE, "--output", self.file)
        self.assertEqual(errors, "weir setup: standard input is not a terminal; --yes takes every default\n")
        self.assertFalse(self.file.exists())

    def test_without_postfix(self):
        errors = self.setup_fails(EX_UNAVAILABLE, "--yes", "--output", self.file, "--postfix", self.directory / "none", "--log", os.devnull)
        self.assertIn("When Postfix is there, weir doctor prints the lines for it.", errors)
        self.assertEqual(weir("check-config", "--config", self.file).stderr, "")

    def test_a_log_that_is_not_there(self):
        errors = self.setup_fails(EX_NOINPUT, "--yes", "--output", self.file, "--log", self.directory / "none")
        self.assertIn(str(self.directory / "none"), errors)
        self.assertFalse(self.file.exists())

    def test_questions(self):
        """A bad answer is asked again, with what is allowed; an empty one takes the default."""
        dialogue = Dialogue("--output", self.file, "--postfix", self.postfix(**LOGINS).etc, "--log", os.devnull)
        for question, text in (
                ("Count mail by", "account\n"), ("write one of login, client, domain", "Domain\n"),
                ("How many recipients", "lots\n"), ("'lots' is not a rate; write N/window", "10/1h, 10/1d\n"),
                ("is never reached", "20/1h 100/1d\n"),
                ("Check the content", "yes\n"), ("write one of milter, filter, none", " milter \n"),
                ("Which mail address", "some one\n"), ("expected", "\n"),
                ("For how many days", "-1\n"), ("from 0 to 365", "0\n")):
            dialogue.answer(question, text)
        self.assertEqual(dialogue.end(), 0, dialogue.text)
        text = self.file.read_text()
        for line in ("key: sender_domain", "rates: [20/1h, 100/1d]", "mode: enforce", 'milter: ["inet:127.0.0.1:10041"]', "postmaster@mx.example.org"):
            self.assertIn(line, text)
        self.assertEqual(weir("check-config", "--config", self.file).stderr, "")

    def test_end_of_input(self):
        dialogue = Dialogue("--output", self.file, "--postfix", self.postfix(**LOGINS).etc, "--log", os.devnull)
        dialogue.answer("Count mail by", "\x04")
        self.assertEqual(dialogue.end(), EX_USAGE)
        self.assertIn("nothing is written", dialogue.text)
        self.assertFalse(self.file.exists())


class OnARunningPostfix(unittest.TestCase):
    """With the printed commands, weir doctor is silent, and its probe passes every stage."""

    def test_each_interface(self):
        for interface in ("none", "milter", "filter"):
            with self.subTest(interface):
                self.connect(interface)

    def connect(self, interface):
        ports = {name: str(free_port()) for name in ("10040", "10041", "10025", "10026")}

        def on_free_ports(text):
            for name, port in ports.items():
                text = text.replace(f":{name}", f":{port}")
            return text

        service = WeirService(port=int(ports["10040"]))
        sink = self.enterContext(SMTPSink())
        postfix = self.enterContext(PrivatePostfix(relay=sink.port, main=LOGINS))
        written = service.directory / "written.yaml"
        dialogue = Dialogue("--output", written, "--postfix", postfix.etc, "--log", os.devnull)
        for question, text in (("Count mail", "login\n"), ("How many", "3/1h\n"), ("Check the content", f"{interface}\n"),
                               ("Which mail", "none\n"), ("For how many days", "0\n")):
            dialogue.answer(question, text)
        self.assertEqual(dialogue.end(), 0, dialogue.text)
        # Files and ports of this test in place of the system's.
        text = on_free_ports(written.read_text()).replace("listen:\n", f"listen:\n  admin: unix:{service.admin_socket}\n")
        service.configure(f"{text}ledger: {{ store: 'sqlite:{service.ledger}' }}\nuser: {USER}\n"
                          f"filter: {{ spool: {service.directory} }}\nchecks: {{ cache: {service.directory}/rules }}\n")
        self.enterContext(service)
        printed = commands(dialogue.text.replace("\r", ""))
        self.assertTrue(printed, dialogue.text)
        for words in filter(None, map(words_of, map(on_free_ports, printed))):
            run(words)
        postfix.reload()
        at = ("doctor", "--postfix", postfix.etc, "--config", service.config_file)
        result = weir(*at, check=False)
        self.assertIn(f"{postfix.etc}: no findings\n", result.stdout)
        self.assertEqual(result.returncode, 0, result.stdout)
        tried = weir(*at, "--try", "--smtp", f"inet:127.0.0.1:{postfix.port}", "--to", "postmaster@example.com", check=False)
        self.assertIn("every stage saw the probe; it was not delivered", tried.stdout, tried.stderr)
        # The limit holds for a login.
        with SMTP(postfix.port) as smtp:
            smtp.command("XCLIENT ADDR=127.0.0.1 LOGIN=alice", 220)
            smtp.command("EHLO client.example.org", 250)
            smtp.command("MAIL FROM:<alice@example.org>", 250)
            codes = [smtp.command(f"RCPT TO:<r{number}@example.com>")[0] for number in range(4)]
        self.assertEqual([code // 100 for code in codes], [2, 2, 2, 4], postfix.log())
