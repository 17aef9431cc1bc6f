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

from postfix import as_root, run
from weir import BINARY, ENVIRONMENT, WeirService, weir

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["3/1h"]}
EX_USAGE, EX_NOINPUT, EX_IOERR, EX_TEMPFAIL = 64, 66, 74, 75


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

        self.assertFails(EX_USAGE, "unknown command 'lst'; commands are list, ", "help", "limits", "lst")

    def test_without_proc(self):
        """Swift reads the arguments from /proc. Without them, `weir filter` must not end with 0: pipe(8) would drop the mail."""
        for words in (["filter", "--config", self.config, "-f", "", "--", "a@example.org"], ["serve", "--config", self.config], ["--version"]):
            result = run(as_root(["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", BINARY, *words]),
                         check=False, input="Subject: x\n\n")
            self.assertEqual((result.returncode, result.stdout), (EX_TEMPFAIL, ""))
            self.assertEqual(result.stderr, "weir: can't read the command line from /proc/self/cmdline: /proc must be mounted\n")

    def test_numbers_have_bounds(self):
        for words, bounds in ((["limits", "list", "--most", "x"], "from 1 to 1000"), (["limits", "list", "--over", "90%"], "from 1 to 1000"),
                              (["top", "--interval", "0"], "from 1 to 3600"), (["top", "--count", "0"], "1 or more"),
                              (["check-health", "--slow", "1s"], "from 1 to 10000")):
            self.assertFails(EX_USAGE, f"The value '{words[-1]}' is invalid", *words)
            self.assertFails(EX_USAGE, f"expected a whole number, {bounds}\n", *words)

    def test_a_key_that_looks_like_options(self):
        """-dash has an h, which asks for the help."""
        for verb in ("show", "block", "unblock", "raise", "unraise", "reset"):
            self.assertFails(EX_USAGE, "unknown option '-dash'; write a key that begins with '-' after all options: -- '-dash'\n",
                             "limits", verb, "-dash", "--config", self.config)
        self.assertIn("OVERVIEW", weir("limits", "show", "-h").stdout)

    def test_one_key_or_all(self):
        self.assertFails(EX_USAGE, "expected a key, --all, or --match with a pattern\n", "limits", "reset")
        self.assertFails(EX_USAGE, "expected a key, --all, or --match with a pattern, and only one of them\n", "limits", "reset", "a", "--all")

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
                                   (["limits", "block"], "--for <time>"), (["limits", "raise"], "--for <time>"), (["check-config"], "WEIR_CONFIG"),
                                   (["limits", "list"], "--match <pattern>"), (["limits", "list"], "--most <number>")):
            text = weir(*words, "--help").stdout
            self.assertIn(placeholder, text)
            self.assertNotRegex(text, r"-(f|test|interval|for|match|most|limit|reason) <\1>")
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
            for duration in "2x", "5", "0.5d", "20y", "0s", "4000d":
                refused = service.limits("block", "a@example.org", "--for", duration, check=False)
                self.assertEqual(refused.returncode, 64, refused.stderr)
                self.assertIn("a whole number and a unit (s, m, h, d or w), such as 12h, from 1s to ten years", refused.stderr)


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
