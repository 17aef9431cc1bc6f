# SPDX-License-Identifier: Apache-2.0
"""weir top on a terminal and to a pipe: its output and its exit."""
import contextlib
import fcntl
import json
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

from postfix import DEFAULT_TIMEOUT, free_port, wait_until
from weir import BINARY, ENVIRONMENT, UnixConnection, WeirService, get, weir

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["3/1h"]}
OTHER = {"name": "per-client", "key": ["client_address"], "count": "recipients", "rates": ["100/1h"]}
EX_UNAVAILABLE, EX_IOERR = 69, 74
SCREEN_ON, SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?25h\x1b[?1049l"


class OnTerminal:
    """`weir top` on a terminal of `columns` and 24 rows."""

    def __init__(self, config, *arguments, columns=80, **environment):
        self.shown = b""
        self.status = None
        self.terminal, terminal = pty.openpty()
        self.resize(columns)
        self.attributes = termios.tcgetattr(terminal)
        self.process = subprocess.Popen(
            [BINARY, "top", "--config", config, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
            env={**ENVIRONMENT, "TERM": "xterm", "NO_COLOR": "", **environment})
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

    def resize(self, columns):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def coloured_screen(self):
        """The lines of the next complete screen, with their colours."""
        self.shown = b""
        while not (match := re.search(rb"\x1b\[H(.*?)\x1b\[J", self.shown, re.S)):
            self.read(DEFAULT_TIMEOUT)
        # The terminal turns each newline into CR LF.
        return match[1].decode().replace("\x1b[K", "").replace("\r", "").split("\n")

    def screen(self):
        return [re.sub("\x1b\\[[0-9;]*m", "", line) for line in self.coloured_screen()]

    def selected(self):
        """The selected row, without the spaces at its end."""
        return next((re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in self.coloured_screen() if line.startswith("\x1b[7")), "")

    def wait_status(self, text):
        """Waits until the line above the legend contains the text."""
        wait_until(lambda: text in self.screen()[-2], lambda: f"{text}: {self.screen()}", interval=0)

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
        """Control and bidi characters from clients are escaped, as in the log; s, / and Esc change the view, q quits."""
        with WeirService(limits=[LIMIT]) as service:
            for _ in range(5):
                for sender in ("evil\x1b[2J@example.org", "turned\u202e@example.org", "other@example.org"):
                    service.ask(sender=sender)
            with OnTerminal(service.config_file) as top:
                top.read_until(b"REFUSALS")
                shown = "\n".join(top.screen())
                self.assertIn("evil\\u{1B}[2J@example.org", shown)
                self.assertIn("turned\\u{202E}@example.org", shown)
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

    def test_the_filter_finds_keys_that_are_not_among_the_fullest(self):
        limit = {**LIMIT, "rates": ["100/1h"]}
        with WeirService(limits=[limit]) as service, service.client() as client:
            for number in range(1001):
                for recipient in range(2):
                    client.send(client.request(sender=f"fuller{number}@example.org", recipient=f"{recipient}@example.com"))
            client.send(client.request(sender="needle[1]@example.org"))
            for _ in range(2003):
                self.assertEqual(client.reply(), "DUNNO")
            with OnTerminal(service.config_file) as top:
                top.keys(b"/Needle[\n")
                top.read_until(b"needle[1]@example.org")
                self.assertEqual([row.split()[-1] for row in rows(top.screen())], ["needle[1]@example.org"])
                top.keys(b"jb\n")
                top.wait_status("blocked")
                top.read_until(b"filter /Needle[)")
                self.assertTrue(service.used("needle[1]@example.org", "per-sender"))
                self.assertNotEqual(service.ask(sender="needle[1]@example.org"), "DUNNO")
                top.keys(b"\x1b")
                wait_until(lambda: len(rows(top.screen())) > 5, "all keys again", interval=0)

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


    def test_numbers_are_never_cut(self):
        """A column without enough room is left out; numbers have units."""
        limit = {**LIMIT, "rates": ["1000000000000/12h"], "count": "bytes", "mode": "shadow"}
        with WeirService(limits=[limit]) as service:
            service.ask(sender="a@example.org", protocol_state="END-OF-MESSAGE", size="123456789012", queue_id="4abc")
            for columns in (40, 60, 80, 120):
                with self.subTest(columns), OnTerminal(service.config_file, columns=columns) as top:
                    lines = top.screen()
                    row = rows(lines)[0]
                    self.assertIn("a@example.org  shadow", row)
                    self.assertEqual("123 GB/1 TB per 12h" in row, columns >= 60, row)
                    self.assertEqual("/" in row, columns >= 60, row)
                    # The numbers above the table, too.
                    self.assertRegex(lines[1], r"^DUNNO \d+/s(  last minute: p50 \S+ p99 \S+)?  1 key$")

    def test_refusals_are_grouped(self):
        """By limit and key, with count, first, last and answer, as the page has them. Shadow limits are marked."""
        with WeirService(limits=[LIMIT, {**OTHER, "rates": ["2/1h"], "mode": "shadow"}]) as service:
            for _ in range(7):
                service.ask(sender="a@example.org")
            groups = json.loads(get(UnixConnection(service.admin_socket), "/overview")[1])["refusals"]
            with OnTerminal(service.config_file) as top:
                lines = top.screen()
                found = lines[lines.index("REFUSALS") + 1:][:3]
                self.assertEqual(found[0].split(), ["COUNT", "FIRST", "LAST", "LIMIT", "KEY", "ANSWER"])
                self.assertEqual(len(groups), 2)
                for group, line in zip(groups, found[1:]):
                    shadow = ["shadow"] if group["newest"]["mode"] == "shadow" else []
                    times = [time.strftime("%H:%M:%SZ", time.gmtime(at)) for at in (group["first"], group["newest"]["time"])]
                    start = [str(group["count"]), *times, group["newest"]["limit"], group["newest"]["key"], *shadow]
                    self.assertEqual(line.split()[:len(start)], start)
                    answer = " ".join(line.split()[len(start):])
                    self.assertTrue(group["newest"]["action"].startswith(answer.rstrip("…")) and answer, line)

    def test_colour(self):
        """Red what is over, yellow what is near; none with NO_COLOR. TERM=dumb gets lines."""
        with WeirService(limits=[{**LIMIT, "rates": ["10/1h"]}]) as service:
            for sender, times in (("over@example.org", 10), ("near@example.org", 8), ("far@example.org", 1)):
                for _ in range(times):
                    service.ask(sender=sender)
            with OnTerminal(service.config_file) as top:
                self.assertEqual([row[:5] for row in rows(top.coloured_screen())], ["\x1b[31m", "\x1b[33m", " 10  "])
            with OnTerminal(service.config_file, NO_COLOR="1") as top:
                self.assertEqual([line for line in top.coloured_screen() if "\x1b" in line], [])
                top.keys(b"j")
                wait_until(lambda: "over@example.org" in top.selected(), "the selection is visible without colour", interval=0)
            with OnTerminal(service.config_file, "--count", "1", TERM="dumb") as top:
                self.assertEqual(top.end(), 0)
                self.assertNotIn(b"\x1b", top.shown)
                self.assertIn(b"over@example.org: recipients 10/10 per 1h", top.shown)

    def test_resize(self):
        with WeirService(limits=[LIMIT]) as service:
            service.ask(sender="a" * 60 + "@example.org")
            with OnTerminal(service.config_file, columns=120) as top:
                self.assertGreater(max(map(cells, top.screen())), 100)
                top.resize(50)
                wait_until(lambda: max(map(cells, top.screen())) <= 50, "the screen is narrow", interval=0)
                top.resize(120)
                wait_until(lambda: max(map(cells, top.screen())) > 100, "the screen is wide", interval=0)

    def test_help(self):
        with WeirService(limits=[LIMIT]) as service, OnTerminal(service.config_file) as top:
            top.keys(b"?")
            wait_until(lambda: "any key: back" in top.screen()[-1], "the help is shown", interval=0)
            shown = top.screen()
            for key in ("arrows j k", "b  ", "u  ", "r  ", "x  ", "z  ", "s  ", "/  ", "q Ctrl-C"):
                self.assertTrue([line for line in shown if line.startswith(key)], (key, shown))
            self.assertEqual([line for line in shown if "…" in line or cells(line) > 80], [])
            # Any key ends the help, and nothing else.
            top.keys(b"q")
            wait_until(lambda: "q:quit" in top.screen()[-1], "the help is gone", interval=0)


class Changes(unittest.TestCase):
    """Each change asks first, says what it did and how to undo it. The selection follows its key."""

    def setUp(self):
        self.service = WeirService(limits=[LIMIT])
        self.enterContext(self.service)
        for sender, times in (("most@example.org", 3), ("some@example.org", 2), ("few@example.org", 1)):
            for _ in range(times):
                self.service.ask(sender=sender)
        self.top = self.enterContext(OnTerminal(self.service.config_file, columns=120))

    def select(self, keys, name):
        self.top.keys(keys)
        wait_until(lambda: name in self.top.selected(), name, interval=0)

    def audit(self):
        return [
            (entry["action"], entry["key"], entry["reason"])
            for entry in reversed(json.loads(self.service.limits("audit", "--json").stdout))]

    def test_selection(self):
        self.top.keys(b"b")
        self.top.wait_status("Select a key first")
        for keys, name in ((b"j", "most"), (b"\x1b[B", "some"), (b"\x1bOB", "few"), (b"j", "few"), (b"k", "some"), (b"\x1b[A", "most"),
                           (b"G", "few"), (b"g", "most"), (b"\x1b[6~", "few"), (b"\x1b[H", "most"), (b"j", "some")):
            self.select(keys, f"{name}@example.org")
        for _ in range(3):
            self.service.ask(sender="few@example.org")
        wait_until(lambda: "few@" in rows(self.top.screen())[0], "the order changes", interval=0)
        self.assertIn("some@example.org", self.top.selected())
        self.top.keys(b"\x1b")
        wait_until(lambda: not self.top.selected(), "nothing is selected", interval=0)

    def test_block_and_unblock(self):
        self.select(b"jj", "some@example.org")
        self.top.keys(b"b")
        self.top.wait_status("block some@example.org of per-sender for (empty: no end): 1d_")
        self.top.keys(b"\x1b")
        self.top.wait_status("Nothing was changed.")
        self.top.keys(b"b\x7f\x7fsoon\r")
        self.top.wait_status("'soon' is not a duration: write one such as 12h.")
        self.top.keys(b"\x7f\x7f\x7f\x7f2h\r")
        self.top.wait_status("some@example.org of per-sender blocked for 2h. z undoes it.")
        self.assertTrue(self.top.selected().endswith("some@example.org  BLOCKED"))
        self.assertTrue(self.service.ask(sender="some@example.org").startswith("REJECT"))
        self.top.keys(b"u")
        self.top.wait_status("unblock some@example.org of per-sender? y/n")
        self.top.keys(b"n")
        self.top.wait_status("Nothing was changed.")
        self.top.keys(b"uy")
        self.top.wait_status("some@example.org of per-sender unblocked. z undoes it.")
        self.assertTrue(self.top.selected().endswith("some@example.org"))
        # The undo is a block for the rest of the two hours.
        self.top.keys(b"z")
        self.top.wait_status("some@example.org of per-sender blocked for ")
        self.assertIn("blocked for 1h 59m", self.service.limits("show", "some@example.org").stdout.replace("2h", "1h 59m"))
        self.top.keys(b"z")
        self.top.wait_status("Nothing to undo.")
        self.assertEqual(self.audit(), [
            ("block", "some@example.org", "weir top"), ("unblock", "some@example.org", "weir top"),
            ("block", "some@example.org", "undo unblock")])

    def test_raise(self):
        self.select(b"j", "most@example.org")
        self.top.keys(b"r")
        self.top.wait_status("raise most@example.org of per-sender to: 6/1h_")
        self.top.keys(b"x\r")
        self.top.wait_status("'6/1hx' is not a rate: write one such as 500/1h.")
        self.top.keys(b"\x7f\r")
        self.top.wait_status("raise most@example.org of per-sender to 6/1h for (empty: no end): 1d_")
        self.top.keys(b"\r")
        self.top.wait_status("most@example.org of per-sender raised to 6/1h for 1d. z undoes it.")
        self.assertRegex(self.top.selected(), r"^ *50 3/6 per 1h .* most@example\.org  raised$")
        self.top.keys(b"z")
        self.top.wait_status("most@example.org of per-sender no longer raised.")
        self.assertRegex(self.top.selected(), r"^100 3/3 per 1h .* most@example\.org$")

    def test_reset(self):
        self.select(b"j", "most@example.org")
        self.top.keys(b"xy")
        self.top.wait_status("most@example.org of per-sender reset: all counts are 0. This can't be undone.")
        self.assertEqual(self.service.used("most@example.org", "per-sender") or 0, 0)
        self.assertEqual(self.service.used("some@example.org", "per-sender"), 2)
        self.top.keys(b"z")
        self.top.wait_status("Nothing to undo.")

    def test_a_service_that_is_gone(self):
        self.select(b"j", "most@example.org")
        self.service.stop()
        self.top.keys(b"xy")
        self.top.wait_status(f"Not confirmed: unix:{self.service.admin_socket} is unreachable: ")
        self.service.start()
        wait_until(lambda: "ledger ok" in self.top.screen()[0], "the service is back", interval=0)
        self.assertEqual(self.service.used("most@example.org", "per-sender"), 3)

    def test_a_service_that_hangs(self):
        self.top.read_until(b"ledger ok")
        self.service.process.send_signal(signal.SIGSTOP)
        try:
            self.top.read_until(b": no answer for ")
        finally:
            self.service.process.send_signal(signal.SIGCONT)
        self.top.read_until(b"ledger ok")


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
            self.assertIn(f"weir top: unix:{self.directory}/admin is unreachable: No such file or directory; if listen.admin has changed, restart the service\r\n".encode(), top.shown)
            self.assertEqual(termios.tcgetattr(top.terminal), top.attributes)

    def test_service_restarts(self):
        # A long path is cut at the end of the line.
        with WeirService(limits=[LIMIT]) as service, OnTerminal(service.config_file, columns=240) as top:
            top.read_until(b"ledger ok")
            service.kill()
            top.read_until(b"NO FIGURES SINCE")
            self.assertIn(f"unix:{service.directory}", "\n".join(top.screen()))
            service.start()
            top.read_until(b"ledger ok")
            self.assertIsNone(top.process.poll())

    def test_a_refused_token(self):
        """What the service says stands in the status line and the head; the screen stays."""
        service = WeirService(limits=[LIMIT])
        port = free_port()
        service.config["listen"]["admin"] = f"inet:127.0.0.1:{port}"
        service.admin_socket = port
        with service:
            service.ask(sender="a@example.org")
            with OnTerminal(service.config_file, "--interval", "3600") as top:
                top.keys(b"j")
                wait_until(lambda: "a@example.org" in top.selected(), "it is selected", interval=0)
                token = service.directory / "admin-token"
                good = token.read_text()
                token.write_text("0" * 64)
                top.keys(b"xy")
                top.wait_status("Not changed: ")
                self.assertIn("token", top.screen()[-2])
                self.assertIn("NO FIGURES SINCE", top.screen()[0])
                token.write_text(good)
                top.keys(b"xy")
                top.wait_status("reset: all counts are 0")
                self.assertIn("ledger ok", top.screen()[0])

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

    def test_a_crash(self):
        """The crash stays one: only the terminal is restored first."""
        with WeirService(limits=[LIMIT]) as service:
            for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGILL):
                with self.subTest(number.name), OnTerminal(service.config_file) as top:
                    top.read_until(b"ledger ok")
                    top.process.send_signal(number)
                    self.assertEqual(top.end(), -number)
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
            refused = [line for line in output if line.startswith("  refused ")]
            self.assertTrue(refused)
            self.assertRegex(refused[0], r"^  refused \d+-\d+-\d+T\d+:\d+:\d+Z: per-sender a@example\.org: over, recipients 3/3 per 1h, room in ")
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
