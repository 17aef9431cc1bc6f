# SPDX-License-Identifier: Apache-2.0
"""weir top on a terminal and to a pipe: its output and its exit."""
import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unicodedata
import unittest

from postfix import DEFAULT_TIMEOUT
from weir import BINARY, ENVIRONMENT, WeirService, weir

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["3/1h"]}
OTHER = {"name": "per-client", "key": ["client_address"], "count": "recipients", "rates": ["100/1h"]}
EX_UNAVAILABLE, EX_IOERR = 69, 74
SCREEN_ON, SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?25h\x1b[?1049l"


class OnTerminal:
    """`weir top` on a terminal of `columns`."""

    def __init__(self, config, *arguments, columns=80):
        self.shown = b""
        self.status = None
        self.terminal, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.attributes = termios.tcgetattr(terminal)
        self.process = subprocess.Popen([BINARY, "top", "--config", config, *arguments], env=ENVIRONMENT, stdin=terminal, stdout=terminal,
                                        stderr=terminal, start_new_session=True)
        # Kept open, so that output can be read after the process has exited.
        self.other_end = terminal

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)
        os.close(self.other_end)

    def read(self, timeout):
        if select.select([self.terminal], [], [], timeout)[0]:
            self.shown += os.read(self.terminal, 65536)
            return True
        return False

    def read_until(self, wanted):
        """Reads until `wanted` appears, and drops the output before it."""
        deadline = time.monotonic() + DEFAULT_TIMEOUT
        while wanted not in self.shown:
            if time.monotonic() > deadline:
                raise AssertionError(f"not shown: {wanted!r} in {self.shown[-3000:]!r}")
            self.read(0.1)
        self.shown = self.shown[self.shown.index(wanted):]

    def screen(self):
        """The lines of the next complete screen."""
        self.shown = b""
        while not (match := re.search(rb"\x1b\[H(.*?)\x1b\[J", self.shown, re.S)):
            self.read(DEFAULT_TIMEOUT)
        # The terminal turns each newline into CR LF.
        return match[1].decode().replace("\x1b[K", "").replace("\r", "").split("\n")

    def keys(self, text):
        os.write(self.terminal, text)

    def end(self):
        """Waits for the exit and reads the remaining output; returns the exit status."""
        status = self.process.wait(DEFAULT_TIMEOUT)
        while self.read(0):
            pass
        return status


def rows(screen):
    """The lines that show keys."""
    return screen[4:screen.index("", 4)]


def cells(text):
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


class Screen(unittest.TestCase):
    def test_control_characters_from_clients(self):
        """Control and bidi characters from clients are replaced; s, / and Esc change the view, q quits."""
        with WeirService(limits=[LIMIT]) as service:
            for _ in range(5):
                for sender in ("evil\x1b[2J@example.org", "turned\u202e@example.org", "other@example.org"):
                    service.ask(sender=sender)
            with OnTerminal(service.config_file) as top:
                top.read_until(b"REFUSALS")
                shown = "\n".join(top.screen())
                self.assertIn("evil?[2J@example.org", shown)
                self.assertIn("turned?@example.org", shown)
                self.assertNotIn("\u202e", shown)
                top.keys(b"s")
                top.read_until(b"by used")
                top.keys(b"/other\n")
                top.read_until(b"filter /other)")
                self.assertEqual([row.split()[-1] for row in rows(top.screen())], ["other@example.org"])
                top.keys(b"\x1b")
                top.read_until(b"by used)")
                self.assertEqual(len(rows(top.screen())), 3)
                top.keys(b"q")
                top.read_until(SCREEN_OFF)
                self.assertEqual(top.end(), 0)

    def test_narrow_and_wide(self):
        """At 40 columns the key is visible, and no line is wider than the terminal."""
        wide = "\u6f22\u5b57" * 20 + "@example.org"
        with WeirService(limits=[LIMIT]) as service:
            for _ in range(4):
                service.ask(sender="somebody@example.org")
                service.ask(sender=wide)
            for columns in (20, 40, 60, 80):
                with self.subTest(columns), OnTerminal(service.config_file, columns=columns) as top:
                    lines = top.screen()
                    self.assertLessEqual(max(cells(line) for line in lines), columns, lines)
                    if columns >= 40:
                        self.assertTrue([row for row in rows(lines) if " somebody@example." in row], lines)

    def test_a_blocked_key_comes_first(self):
        with WeirService(limits=[LIMIT]) as service:
            service.ask(sender="used@example.org")
            service.limits("block", "blocked@example.org", "--limit", "per-sender")
            with OnTerminal(service.config_file) as top:
                keys = rows(top.screen())
                self.assertRegex(keys[0], r"blocked@example\.org  BLOCKED$")
                self.assertIn("used@example.org", keys[1])


class Faults(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def test_no_service_at_first(self):
        config = self.directory / "weir.yaml"
        config.write_text(f'{{"listen": {{"admin": "unix:{self.directory}/admin"}}, "limits": []}}')
        with OnTerminal(config) as top:
            self.assertEqual(top.end(), EX_UNAVAILABLE)
            self.assertNotIn(SCREEN_ON, top.shown)
            self.assertIn(f"weir top: unix:{self.directory}/admin is unreachable: No such file or directory\r\n".encode(), top.shown)
            self.assertEqual(termios.tcgetattr(top.terminal), top.attributes)

    def test_service_restarts(self):
        with WeirService(limits=[LIMIT]) as service, OnTerminal(service.config_file) as top:
            top.read_until(b"ledger ok")
            service.kill()
            top.read_until(b"NO FIGURES SINCE")
            self.assertIn(f"unix:{service.admin_socket}", "\n".join(top.screen()))
            service.start()
            top.read_until(b"ledger ok")
            self.assertIsNone(top.process.poll())

    def test_ledger_cannot_be_opened(self):
        with WeirService(limits=[LIMIT], ledger={"store": f"sqlite:{self.directory}/none/ledger.sqlite"}) as service:
            with OnTerminal(service.config_file) as top:
                top.read_until(b"LEDGER FAILURE")
                (self.directory / "none").mkdir()
                top.read_until(b"ledger ok")
                top.keys(b"q")
                self.assertEqual(top.end(), 0)

    def test_a_rejected_reload(self):
        with WeirService(limits=[LIMIT]) as service:
            config = self.directory / "weir.yaml"
            shutil.copy(service.config_file, config)
            with OnTerminal(config, columns=120) as top:
                top.read_until(b"ledger ok")
                service.configure(text="limits: [\n")
                service.reload()
                top.read_until(b"RELOAD REJECTED: ")
                top.keys(b"q")
                self.assertEqual(top.end(), 0)


class Endings(unittest.TestCase):
    def test_the_terminal_is_restored(self):
        """After q, Ctrl-C and each signal: at the start, later, and while the service doesn't answer."""
        with WeirService(limits=[LIMIT]) as service:
            endings = [("q", lambda top: top.keys(b"q"), 0), ("Ctrl-C", lambda top: top.keys(b"\x03"), 0)] + [
                (number.name, lambda top, number=number: top.process.send_signal(number), 128 + number)
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
            for shown, stops in ((SCREEN_ON, False), (b"ledger ok", False), (b"ledger ok", True)):
                for name, end, status in endings:
                    with self.subTest(name, shown=shown, stops=stops), OnTerminal(service.config_file) as top:
                        top.read_until(shown)
                        if stops:
                            service.process.send_signal(signal.SIGSTOP)
                        try:
                            end(top)
                            self.assertEqual(top.end(), status)
                        finally:
                            service.process.send_signal(signal.SIGCONT)
                        self.assertTrue(top.shown.endswith(SCREEN_OFF), top.shown[-100:])
                        self.assertEqual(termios.tcgetattr(top.terminal), top.attributes)

    def test_looks_are_counted(self):
        with WeirService(limits=[LIMIT]) as service, OnTerminal(service.config_file, "--count", "2") as top:
            self.assertEqual(top.end(), 0)


class Lines(unittest.TestCase):
    def test_each_look(self):
        with WeirService(limits=[LIMIT, OTHER]) as service:
            for _ in range(5):
                service.ask(sender="a@example.org")
            output = weir("top", "--config", service.config_file, "--count", "2", "--limit", "per-sender").stdout.splitlines()
            looks = [line for line in output if not line.startswith("  ")]
            self.assertEqual(len(looks), 2)
            for look in looks:
                self.assertRegex(look, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ dunno/s=\d+( \w+/s=\d+)* p50/1m=\S+ p99/1m=\S+ keys=2 ledger=ok$")
            self.assertEqual(output[0], looks[0])
            self.assertRegex(output[1], r"^  per-sender a@example\.org: recipients 3/3 per 1h, room in \S+( \S+)?; 2 refused requests$")
            refused = [line for line in output if line.startswith("  refused: ")]
            self.assertTrue(refused)
            self.assertRegex(refused[0], r"^  refused: per-sender a@example\.org: over, recipients 3/3 per 1h, room in ")
            self.assertNotIn("per-client", "\n".join(output))

    def test_closed_pipe(self):
        with WeirService(limits=[LIMIT]) as service:
            process = subprocess.Popen([BINARY, "top", "--config", service.config_file], env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            with contextlib.closing(process.stderr):
                try:
                    self.assertIn("dunno/s=", process.stdout.readline())
                    process.stdout.close()
                    self.assertEqual(process.wait(DEFAULT_TIMEOUT), -signal.SIGPIPE)
                finally:
                    process.kill()
                    process.wait()
                self.assertEqual(process.stderr.read(), "")

    def test_a_full_disk(self):
        with WeirService(limits=[LIMIT]) as service, open("/dev/full", "wb") as full:
            process = subprocess.run([BINARY, "top", "--config", service.config_file], env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=full,
                                     stderr=subprocess.PIPE, text=True, timeout=DEFAULT_TIMEOUT)
            self.assertEqual((process.returncode, process.stderr), (EX_IOERR, "weir: can't write to standard output: No space left on device\n"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
