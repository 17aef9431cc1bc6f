# SPDX-License-Identifier: Apache-2.0
"""Behaviour that all commands share: error messages and exit statuses."""
import json
import os
import pathlib
import pty
import re
import shutil
import subprocess
import tempfile
import unittest

from weir import BINARY, ENVIRONMENT, WeirService, weir

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["3/1h"]}
EX_USAGE, EX_NOINPUT, EX_IOERR = 64, 66, 74


class Commands(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.config = self.directory / "weir.yaml"
        self.log = self.directory / "log"
        (self.directory / "header.pcre").write_text("/^Subject: (\\S+)/ REDIRECT $1\n/^X-Warn:/ WARN look here\n")
        self.config.write_text(json.dumps({
            "limits": [LIMIT], "log": {"to": f"file:{self.log}"},
            "checks": {"header": [f"pcre:{self.directory}/header.pcre"], "cache": f"{self.directory}/cache"}}))


class CommandLines(Commands):
    def assertFails(self, status, message, *arguments):
        result = weir(*arguments, check=False)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        self.assertIn(message, result.stderr)
        return result.stderr

    def test_unknown_command(self):
        """The error names it, whatever options follow, and lists the commands."""
        self.assertIn("Usage: weir <subcommand>", self.assertFails(EX_USAGE, "unknown command 'foo'; commands are serve, ", "foo", "--config", self.config))
        self.assertIn("Usage: weir limits <subcommand>",
                      self.assertFails(EX_USAGE, "unknown command 'lst'; commands are list, ", "limits", "lst", "--config", self.config))

    def test_usage_is_that_of_the_command(self):
        text = self.assertFails(EX_USAGE, "'0s'", "limits", "block", "a@example.org", "--for", "0s", "--config", self.config)
        self.assertIn("Usage: weir limits block ", text)
        # An error that is found only when the command runs.
        text = self.assertFails(EX_USAGE, "--i-own inet:192.0.2.1:10040", "load", "policy", "--target", "inet:192.0.2.1:10040")
        self.assertIn("Usage: weir load policy ", text)

    def test_help(self):
        self.assertIn("weir limits block", weir("help", "limits", "block").stdout)
        self.assertIn("SUBCOMMANDS", weir("--help").stdout)

    def test_help_says_what_to_write(self):
        """No placeholder repeats the name of its option; each command of weir limits has exit statuses."""
        for words, placeholder in ((["filter"], "-f <sender>"), (["alert"], "--test <channel>"), (["top"], "--interval <seconds>"),
                                   (["limits", "block"], "--for <time>"), (["limits", "raise"], "--for <time>"), (["check-config"], "WEIR_CONFIG")):
            text = weir(*words, "--help").stdout
            self.assertIn(placeholder, text)
            self.assertNotRegex(text, r"-(f|test|interval|for) <\1>")
        for name in ("list", "show", "reset", "raise", "unraise", "block", "unblock", "audit"):
            self.assertIn("Exit status: 0 success, 1 ", weir("limits", name, "--help").stdout)

    def test_a_file_that_is_no_option(self):
        self.assertIn("unexpected argument '/etc/weir.yaml'; did you mean --config /etc/weir.yaml?",
                      self.assertFails(EX_USAGE, "did you mean", "check-config", "/etc/weir.yaml"))
        self.assertNotIn("<words>", weir("check-config", "--help").stdout)
        self.assertFails(1, "/nonexistent/weir.yaml: does not exist; weir setup writes one\n/nonexistent/weir.yaml: rejected: 1 error, 0 warnings\n",
                         "check-config", "--config", "/nonexistent/weir.yaml")

    def test_missing_file(self):
        self.assertFails(EX_NOINPUT, "weir check: /nonexistent: No such file or directory\n", "check", "--config", self.config, "/nonexistent")


class Output(Commands):
    def test_unwritable_output(self):
        message = self.directory / "message.eml"
        message.write_text("X-Warn: 1\n\nbody\n")
        table = f"pcre:{self.directory}/header.pcre"
        with WeirService(limits=[LIMIT]) as service, open("/dev/full", "wb") as full:
            service.ask(sender="a@example.org")
            running = ["--config", service.config_file]
            for arguments in (["limits", "list", *running], ["limits", "list", "--json", *running], ["limits", "show", "a@example.org", *running],
                              ["limits", "audit", *running], ["check", "--config", self.config, message], ["check-config", "--json", *running],
                              ["query", table, "X-Warn: 1"]):
                with self.subTest(arguments=arguments):
                    result = subprocess.run([BINARY, *arguments], env=ENVIRONMENT, timeout=120, stdin=subprocess.DEVNULL, stdout=full,
                                            stderr=subprocess.PIPE, text=True)
                    self.assertEqual((result.returncode, result.stderr), (EX_IOERR, "weir: can't write to standard output: No space left on device\n"))

    def test_colour(self):
        """Only on a terminal, and not with NO_COLOR or TERM=dumb."""
        message = self.directory / "message.eml"
        message.write_text("Subject: b@example.org\nTo: undisclosed-recipients:;\n\nbody\n")
        for environment, is_coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
            ours, theirs = pty.openpty()
            try:
                variables = {name: value for name, value in ENVIRONMENT.items() if name != "NO_COLOR"}
                subprocess.run([BINARY, "check", "--config", self.config, message], env={**variables, "TERM": "xterm", **environment},
                               stdin=subprocess.DEVNULL, stdout=theirs, timeout=120, check=True)
                shown = os.read(ours, 65536).decode()
            finally:
                os.close(ours)
                os.close(theirs)
            self.assertIn("undisclosed-recipients", shown)
            self.assertEqual("\x1b[" in shown, is_coloured, shown)

    def test_durations(self):
        with WeirService(limits=[LIMIT]) as service:
            self.assertIn("; blocked until unblocked", service.limits("block", "a@example.org", "--limit", "per-sender").stdout)
            self.assertRegex(service.limits("block", "a@example.org", "--for", "2d").stdout, r"; blocked for 2d\n")


class FilterLog(Commands):
    def test_log_lines(self):
        """Logs the matched line, why an action failed, and other changes."""
        result = subprocess.run(
            [BINARY, "filter", "--config", self.config, "--to", "/bin/cat", "-f", "a@example.org", "--", "b@example.org"], env=ENVIRONMENT, timeout=120,
            input="Subject: nobody\nX-Warn: 1\nTo: undisclosed-recipients:;\n\nbody\n", capture_output=True, text=True)
        self.assertNotEqual(result.returncode, EX_USAGE, result.stderr)
        lines = [re.sub(r"^.*?weir\[\d+\]: ", "", line) for line in self.log.read_text().splitlines()]
        origin, table = "filter: from=<a@example.org>: ", f"pcre:{self.directory}/header.pcre"
        self.assertEqual(lines, [
            f'warning: {origin}header_checks {table}:1: REDIRECT nobody: Subject: nobody: bad REDIRECT target "nobody" -- need user@domain',
            f"{origin}header_checks {table}:2: WARN look here: X-Warn: 1",
            f"{origin}undisclosed-recipients header at offset 26 stripped"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
