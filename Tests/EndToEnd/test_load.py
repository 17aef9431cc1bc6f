# SPDX-License-Identifier: Apache-2.0
"""weir load with good and bad targets: figures, messages and exit statuses."""
import collections
import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import smtplib
import socketserver
import struct
import subprocess
import tempfile
import termios
import threading
import time
import unittest

from filtering import FilterService
from postfix import free_port, run
from weir import BINARY, ENVIRONMENT, WeirService, weir

EX_USAGE, EX_NOINPUT, EX_NOHOST, EX_UNAVAILABLE, EX_IOERR = 64, 66, 68, 69, 74
LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["900M/1d"], "over": "DEFER later"}


def load(*arguments, **options):
    return weir("load", "policy", *arguments, check=False, **options)


@contextlib.contextmanager
def target(answer):
    """A server that calls `answer(connection, request)` for each request until it returns False."""
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            data = b""
            with contextlib.suppress(OSError):
                while piece := self.request.recv(65536):
                    data += piece
                    while b"\n\n" in data:
                        request, data = data.split(b"\n\n", 1)
                        if answer(self.request, request) is False:
                            return

    class Server(socketserver.ThreadingTCPServer):
        # With the default backlog of 5, some of many connects would wait a second for a retry.
        request_queue_size = 256
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"inet:127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Figures(unittest.TestCase):
    def test_a_bounded_run(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        account = service.directory / "account"
        result = load("--target", f"unix:{service.policy_socket}", "--count", "1000", "--senders", "5",
                      "--recipients", "2", "--states", "rcpt,data,end-of-message", "--account", account, "--json")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        report = json.loads(result.stdout)
        self.assertEqual(report["ended_by"], "count")
        self.assertEqual(report["answered"], 1000)
        self.assertEqual(report["actions"], {"DUNNO": 1000})
        self.assertEqual(sum(report["errors"].values()), 0)
        self.assertLessEqual(report["latency"]["p50"], report["latency"]["p99"])
        # The service has counted the same.
        lines = [line.split() for line in account.read_text().splitlines()]
        self.assertEqual(len(lines), 1000)
        charged = collections.Counter(sender for _, sender, state, _ in lines if state == "RCPT")
        for sender, count in charged.items():
            self.assertEqual(service.used(sender, "per-sender"), count)

    def test_refusals_are_told_apart(self):
        service = self.enterContext(WeirService(limits=[{**LIMIT, "rates": ["100/1d"]}]))
        result = load("--target", f"inet:127.0.0.1:{service.port}", "--count", "250", "--senders", "1", "--json")
        report = json.loads(result.stdout)
        self.assertEqual(report["actions"], {"DUNNO": 100, "DEFER": 150})
        self.assertEqual(report["refusals"], 150)

    def test_text_summary(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        result = load("--target", f"inet:127.0.0.1:{service.port}", "--rate", "500", "--count", "200")
        self.assertEqual(result.returncode, 0, result.stderr)
        for part in ("200 answers", "500 per second requested", "p99.9", "DUNNO 200"):
            self.assertIn(part, result.stdout)

    def test_an_interrupt_prints_the_figures_so_far(self):
        has_begun = threading.Event()

        def answer(connection, _):
            has_begun.set()
            connection.sendall(b"action=DUNNO\n\n")
        with target(answer) as name:
            process = subprocess.Popen(
                [BINARY, "load", "policy", "--target", name, "--rate", "100", "--duration", "600s", "--json"],
                env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                self.assertTrue(has_begun.wait(120))
                process.send_signal(signal.SIGINT)
                output, _ = process.communicate(timeout=120)
            finally:
                process.kill()
            self.assertEqual(process.returncode, 128 + signal.SIGINT)
            self.assertEqual(json.loads(output)["ended_by"], "interrupted")


class LiveLine(unittest.TestCase):
    def on_terminal(self, columns, *arguments):
        """Starts `weir load` with standard error on a terminal of `columns`; returns the process and the other end of the terminal."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen([BINARY, "load", *arguments, "--json"], env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=theirs, text=True)
        os.close(theirs)
        self.addCleanup(os.close, ours)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, ours

    @staticmethod
    def read_until(wanted, terminal):
        shown = ""
        while wanted not in shown:
            shown += os.read(terminal, 65536).decode()
        return shown

    def test_is_cut_to_the_width(self):
        with target(lambda connection, _: connection.sendall(b"action=DUNNO\n\n")) as name:
            process, terminal = self.on_terminal(30, "policy", "--target", name, "--rate", "100", "--duration", "60s")
            shown = self.read_until("p50", terminal)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
        self.assertLess(max(len(line) for line in re.split(r"\r\x1b\[K|\r\n", shown)), 30, shown)

    def test_an_interrupt_ends_the_wait_for_the_sink(self):
        sink = free_port()
        with Hop(sink, lambda number, mail: [] if number == 7 else [mail]) as hop:
            threading.Thread(target=hop.serve_forever, daemon=True).start()
            process, terminal = self.on_terminal(80, "smtp", "--target", f"inet:127.0.0.1:{hop.server_address[1]}", "--sink", f"inet:127.0.0.1:{sink}",
                                                 "--connections", "2", "--count", "20", "--drain", "1000s")
            self.read_until("waiting for 1 messages at the sink", terminal)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=120)
            hop.shutdown()
        self.assertEqual(process.returncode, 128 + signal.SIGINT)
        report = json.loads(output)
        self.assertEqual((report["ended_by"], report["sink"]["lost"], report["sink"]["arrived"]), ("interrupted", 1, 19))


class Profiles(unittest.TestCase):
    def test_a_trojan_that_nobody_holds(self):
        limits = [{"name": "per-user", "key": ["sasl_username"], "rates": ["5/1h"], "mode": "shadow"}]
        with WeirService(limits=limits) as service:
            shown = weir("load", "policy", "--target", f"inet:127.0.0.1:{service.port}", "--profile", "trojan", "--rate", "50", "--duration", "2s",
                         "--trojan-rate", "50", "--trojan-after", "1s").stdout
            self.assertIn("\ntrojan      never refused (is the limit in shadow mode?)\n", shown)

    def test_a_trojan_is_held_and_nobody_else(self):
        service = self.enterContext(WeirService(limits=[{**LIMIT, "rates": ["50/1h"]}]))
        arguments = ("--target", f"inet:127.0.0.1:{service.port}", "--profile", "trojan", "--rate", "500", "--duration", "3s",
                     "--trojan-rate", "100", "--trojan-after", "1s", "--senders", "100000", "--zipf", "0", "--json")
        result = load(*arguments, "--fail-if", "honest-refused>0", "--fail-if", "held-after>2s", "--fail-if", "passed-before-held>50")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        trojan = json.loads(result.stdout)["trojan"]
        self.assertEqual(trojan["passed_before_held"], 50)
        self.assertEqual((trojan["passed"], trojan["passed_after_held"], trojan["honest_refused"]), (50, 0, 0))
        self.assertGreater(trojan["answered"], 100)
        # Without a limit, the bound is broken.
        free = self.enterContext(WeirService(limits=[LIMIT]))
        result = load("--target", f"inet:127.0.0.1:{free.port}", *arguments[2:], "--fail-if", "held-after>2s")
        self.assertEqual(result.returncode, 1)
        self.assertIn("held-after was not measured", result.stderr)

    def test_a_day_and_a_peak_have_their_count(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        at = ("--target", f"inet:127.0.0.1:{service.port}", "--json", "--duration", "2s")
        report = json.loads(load(*at, "--profile", "day", "--count", "3000").stdout)
        self.assertEqual((report["answered"], report["unsent"]), (3000, 0))
        report = json.loads(load(*at, "--profile", "peak", "--rate", "300").stdout)
        self.assertAlmostEqual(report["answered"], 1000, delta=2)
        for arguments in (["--profile", "day"], ["--profile", "peak"], ["--profile", "day", "--count", "9", "--rate", "9"]):
            self.assertEqual(load(*at, *arguments).returncode, EX_USAGE)

    def test_files_and_bounds(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        csv, html = service.directory / "load.csv", service.directory / "load.html"
        at = ("--target", f"inet:127.0.0.1:{service.port}", "--rate", "200")
        result = load(*at, "--duration", "9s", "--count", "600", "--csv", csv, "--html", html, "--fail-if", "p50<=0us", "--fail-if", "errors>=1%", "--fail-if", "answered>100")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr, "weir load: --fail-if answered>100: 600.00\n")
        rows = csv.read_text().splitlines()
        self.assertEqual(rows[0].split(",")[:3], ["second", "answered", "p50_us"])
        self.assertGreaterEqual(len(rows), 3)
        page = html.read_text()
        self.assertEqual(page.count("<polyline"), 3)
        self.assertNotRegex(page, r"https?://|<script")
        self.assertEqual(load(*at, "--count", "1", "--csv", "/nonexistent/load.csv").returncode, EX_IOERR)
        for bound in ("p99", "p99>5", "speed>1", "p99>5%", "rate>1ms", "lost>"):
            self.assertEqual(load(*at, "--fail-if", bound).returncode, EX_USAGE, bound)


class Hop(socketserver.ThreadingTCPServer):
    """Accepts mail and sends the messages that `tamper(number, content)` returns to a sink, with the envelope that
    `redirect(number, sender, recipients)` returns. Its final reply is `reply(number)`."""
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, sink, tamper, redirect=lambda _, *envelope: envelope, reply=lambda _: b"250 taken"):
        self.sink, self.tamper, self.taken = sink, tamper, 0
        hop = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                self.wfile.write(b"220 hop\r\n")
                while line := self.rfile.readline():
                    verb = line.split()[0].upper() if line.split() else b""
                    if verb != b"DATA":
                        address = line.decode().partition("<")[2].partition(">")[0]
                        if verb == b"MAIL":
                            sender, recipients = address, []
                        elif verb == b"RCPT":
                            recipients.append(address)
                        self.wfile.write(b"250 ok\r\n")
                        continue
                    self.wfile.write(b"354 go\r\n")
                    content = b""
                    while (line := self.rfile.readline()) != b".\r\n":
                        if not line:
                            return
                        content += line[1:] if line.startswith(b".") else line
                    hop.taken += 1
                    number = hop.taken
                    for one in hop.tamper(number, content):
                        with smtplib.SMTP("127.0.0.1", hop.sink, timeout=120) as client:
                            client.sendmail(*redirect(number, sender, recipients), one)
                    self.wfile.write(reply(number) + b"\r\n")

        super().__init__(("127.0.0.1", 0), Handler)


class Mail(unittest.TestCase):
    def through(self, tamper, *arguments, **options):
        sink = free_port()
        with Hop(sink, tamper, **options) as hop:
            threading.Thread(target=hop.serve_forever, daemon=True).start()
            try:
                result = weir("load", "smtp", "--target", f"inet:127.0.0.1:{hop.server_address[1]}", "--sink", f"inet:127.0.0.1:{sink}",
                              "--connections", "2", "--count", "40", "--drain", "1s", "--json", *arguments, check=False)
            finally:
                hop.shutdown()
        report = json.loads(result.stdout)
        return result.returncode, {key: value for key, value in report["sink"].items() if value}

    def test_sink_report(self):
        """Reports unchanged, prefixed, lost, duplicate and changed messages. The last three make the run fail."""
        whole = {"accepted": 40, "arrived": 40, "unchanged": 40}
        self.assertEqual(self.through(lambda _, mail: [mail]), (0, whole))
        self.assertEqual(self.through(lambda _, mail: [b"Received: from x\r\n\tby y\r\n" + mail]), (0, whole))
        self.assertEqual(self.through(lambda number, mail: [] if number == 7 else [mail]),
                         (1, {"accepted": 40, "arrived": 39, "unchanged": 39, "lost": 1}))
        self.assertEqual(self.through(lambda number, mail: [mail, mail] if number == 7 else [mail]),
                         (1, {"accepted": 40, "arrived": 40, "unchanged": 41, "duplicates": 1}))
        self.assertEqual(self.through(lambda number, mail: [mail.replace(b"Subject:", b"subject:", number == 7)]),
                         (1, {"accepted": 40, "arrived": 40, "unchanged": 39, "changed": 1}))
        self.assertEqual(self.through(lambda number, mail: [mail[:-9]] if number == 7 else [mail]),
                         (1, {"accepted": 40, "arrived": 40, "unchanged": 39, "changed": 1}))
        self.assertEqual(self.through(lambda _, mail: [mail, b"Subject: another\r\n\r\n"]), (0, {**whole, "strangers": 40}))

    def test_envelopes(self):
        """Every recipient must get the message once, and nobody else; one delivery for all or one for each are the same."""
        whole, three = {"accepted": 40, "arrived": 40, "unchanged": 40}, ("--recipients", "3")
        same = lambda _, mail: [mail]

        def envelope(of_seventh):
            return lambda number, *envelope: of_seventh(*envelope) if number == 7 else envelope
        for of_seventh, wrong in (
                (lambda sender, recipients: (sender, recipients[:2]), {"arrived": 39, "lost": 1}),
                (lambda sender, recipients: (sender, ["c@example.org"]), {"arrived": 39, "lost": 1, "unchanged": 39, "changed": 1}),
                (lambda sender, recipients: ("c@example.org", recipients), {"unchanged": 39, "changed": 1})):
            self.assertEqual(self.through(same, *three, redirect=envelope(of_seventh)), (1, {**whole, **wrong}))
        turn = itertools.count()
        each = lambda _, sender, recipients: (sender, [recipients[next(turn) % 3]])
        self.assertEqual(self.through(lambda _, mail: 3 * [mail], "--connections", "1", *three, redirect=each), (0, {**whole, "unchanged": 120}))
        self.assertEqual(self.through(same, reply=lambda number: b"451 later" if number == 7 else b"250 taken"),
                         (1, {**whole, "accepted": 39, "arrived_although_refused": 1}))

    def test_undisclosed_and_hits(self):
        """Allowed changes are counted separately from others."""
        strip = lambda _, mail: [mail.replace(b"To: undisclosed-recipients:;\r\n", b"")]
        status, sink = self.through(strip, "--undisclosed", "0.5")
        self.assertEqual(status, 0)
        self.assertEqual(sink["unchanged"] + sink["undisclosed_stripped"], 40)
        self.assertGreater(sink["undisclosed_stripped"], 5)
        mark = lambda _, mail: [mail.replace(b"X-Mark: 1\r\n", b"X-Mark: 1\r\nX-Seen: yes\r\n")]
        status, sink = self.through(mark, "--hits", "0.5", "--hit-header", "X-Mark: 1")
        self.assertEqual(status, 0)
        self.assertGreater(sink["hits_changed"], 5)

    def test_messages_of_a_folder(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "one.eml").write_bytes(b"Subject: one\n\n.dots\n..\nand no end")
        (folder / "two.eml").write_bytes(b"Subject: two\r\nTo: b@example.org\r\n\r\n\xff\x00 bytes\r\n")
        seen = set()
        status, sink = self.through(lambda _, mail: seen.add(mail.split(b"\r\n", 1)[1]) or [mail], "--messages", folder)
        self.assertEqual((status, sink["unchanged"]), (0, 40))
        self.assertEqual(seen, {b"Subject: one\r\n\r\n.dots\r\n..\r\nand no end\r\n",
                                b"Subject: two\r\nTo: b@example.org\r\n\r\n\xff\x00 bytes\r\n"})

    def test_messages_that_cannot_be_read(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, folder)
        at = ("load", "smtp", "--target", "inet:127.0.0.1:1", "--messages")
        self.assertEqual(weir(*at, folder, check=False).returncode, EX_USAGE)
        (folder / "file").write_text("")
        (folder / "one.eml").mkdir()
        for path, said in (("/nonexistent", "/nonexistent: No such file or directory"), (folder / "file", f"{folder}/file: Not a directory"),
                           (folder, f"{folder}/one.eml: Is a directory")):
            result = weir(*at, path, check=False)
            self.assertEqual((result.returncode, result.stderr), (EX_NOINPUT, f"weir load: {said}\n"))

    def test_through_weir(self):
        """The realistic mix through the filter and the milter of one service; refusals are counted by code."""
        sink, milter = free_port(), free_port()
        service = FilterService(sink, "/^X-Mark: 1/ REJECT marked\n", limits=[])
        service.config["listen"]["milter"] = [f"inet:127.0.0.1:{milter}"]
        with service:
            result = weir("load", "smtp", "--target", f"inet:127.0.0.1:{service.filter_port}", "--sink", f"inet:127.0.0.1:{sink}",
                          "--count", "400", "--undisclosed", "0.2", "--hits", "0.1", "--hit-header", "X-Mark: 1", "--recipients", "3",
                          "--multi", "0.3", "--json", check=False)
            self.assertEqual(result.returncode, 0, result.stderr)
            report = json.loads(result.stdout)
            self.assertEqual(report["actions"]["250"] + report["actions"]["550"], 400)
            self.assertGreater(report["actions"]["550"], 10)
            self.assertEqual(report["sink"]["arrived"], report["actions"]["250"])
            self.assertGreater(report["sink"]["undisclosed_stripped"], 20)
            result = weir("load", "milter", "--target", f"inet:127.0.0.1:{milter}", "--count", "400", "--hits", "0.1",
                          "--hit-header", "X-Mark: 1", "--json", check=False)
            report = json.loads(result.stdout)
            self.assertEqual(sum(report["actions"].values()), 400)
            self.assertGreater(report["actions"]["replycode"], 10)
            self.assertEqual(report["refusals"], report["actions"]["replycode"])

    def test_bad_targets(self):
        closed = f"inet:127.0.0.1:{free_port()}"
        for kind in ("smtp", "milter"):
            self.assertEqual(weir("load", kind, "--target", closed, check=False).returncode, EX_UNAVAILABLE)
            self.assertEqual(weir("load", kind, "--target", "inet:192.0.2.1:25", check=False).returncode, EX_USAGE)
            with target(lambda *_: False) as name:
                result = weir("load", kind, "--target", name, "--timeout", "1s", "--json", check=False)
                self.assertEqual(result.returncode, EX_UNAVAILABLE)
                self.assertEqual(json.loads(result.stdout)["answered"], 0)
        with target(lambda *_: False) as name:
            taken = name.replace("inet:", "")
            result = weir("load", "smtp", "--target", closed, "--sink", name, check=False)
            self.assertEqual(result.returncode, EX_UNAVAILABLE)
            self.assertIn(f"can't listen on inet:{taken}", result.stderr)
        result = weir("load", "smtp", "--target", closed, "--sink", "inet:0.0.0.0:2525", check=False)
        self.assertEqual(result.returncode, EX_USAGE)


class BadTargets(unittest.TestCase):
    def assertFails(self, status, message, *arguments):
        result = load(*arguments)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        self.assertIn(message, result.stderr)
        return result

    def test_nobody_listens(self):
        self.assertFails(EX_UNAVAILABLE, "Connection refused", "--target", f"inet:127.0.0.1:{free_port()}")
        self.assertFails(EX_UNAVAILABLE, "No such file", "--target", "unix:/nonexistent/policy")

    def test_not_this_machine(self):
        self.assertFails(EX_USAGE, "--i-own inet:192.0.2.1:10040", "--target", "inet:192.0.2.1:10040")
        self.assertFails(EX_USAGE, "--i-own", "--target", "inet:192.0.2.1:10040", "--i-own", "inet:192.0.2.1:10041")

    def test_wrong_arguments(self):
        for arguments in (["--target", "nonsense"], ["--states", "mail"], ["--rate", "0"], ["--duration", "1 day"],
                          ["--connections", "0"], ["--clients", "1000000"], ["--zipf", "-1"], ["--count", "0"]):
            given = arguments if "--target" in arguments else ["--target", "inet:127.0.0.1:1", *arguments]
            self.assertFails(EX_USAGE, arguments[0], *given)

    def test_an_account_that_cannot_be_written(self):
        with target(lambda connection, _: connection.sendall(b"action=DUNNO\n\n")) as name:
            self.assertFails(EX_IOERR, "No such file", "--target", name, "--account", "/nonexistent/account")
            self.assertFails(EX_IOERR, "No space left", "--target", name, "--duration", "5s", "--account", "/dev/full")

    def test_closes_every_connection(self):
        with target(lambda *_: False) as name:
            self.assertFails(EX_UNAVAILABLE, f"all connections to {name} are lost: connection closed by the peer\n", "--target", name)

    def test_answers_rubbish(self):
        with target(lambda connection, _: connection.sendall(b"what?\n\n")) as name:
            result = self.assertFails(EX_UNAVAILABLE, "are lost: malformed reply: a line without =\n", "--target", name, "--connections", "3", "--json")
        self.assertEqual(json.loads(result.stdout)["errors"]["malformed"], 3)

    def test_answers_too_late(self):
        # None at all.
        with target(lambda *_: None) as name:
            result = self.assertFails(EX_UNAVAILABLE, "are lost: no answer in time\n", "--target", name, "--connections", "2", "--timeout", "500ms",
                                      "--json", "--fail-if", "p99>5ms")
        report = json.loads(result.stdout)
        self.assertEqual(report["errors"]["timeout"], 2)
        self.assertEqual(report["unanswered"], 2)
        # A figure that was not measured breaks every bound.
        self.assertIn("--fail-if p99>5ms: p99 was not measured", result.stderr)

    def test_more_connections_than_descriptors(self):
        with target(lambda connection, _: connection.sendall(b"action=DUNNO\n\n")) as name:
            result = run(["prlimit", "--nofile=64", BINARY, "load", "policy", "--target", name, "--connections", "200", "--count", "300", "--json"],
                         check=False, env=ENVIRONMENT)
        self.assertEqual(result.returncode, 1, result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report["answered"], 300)
        self.assertTrue(10 < report["connections"] < 64, report["connections"])
        self.assertIn(f"{report['connections']} of 200 connections succeeded; last error: Too many open files", result.stderr)

    def test_an_smtp_server_that_is_busy(self):
        """The error has the server's reply, and the client doesn't retry with HELO."""
        for greeting, words in ((b"421 4.3.2 no room\r\n", []), (b"220 hello\r\n", [b"EHLO"])):
            asked = []

            class Busy(socketserver.StreamRequestHandler):
                def handle(self):
                    self.wfile.write(greeting)
                    while line := self.rfile.readline():
                        asked.append(line.split()[0])
                        self.wfile.write(b"421 4.3.2 no room\r\n")

            with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Busy) as server:
                server.daemon_threads = True
                threading.Thread(target=server.serve_forever, daemon=True).start()
                result = weir("load", "smtp", "--target", f"inet:127.0.0.1:{server.server_address[1]}", "--connections", "1", "--json", check=False)
                server.shutdown()
            self.assertEqual(result.returncode, EX_UNAVAILABLE)
            self.assertIn("are lost: session refused: 421 4.3.2 no room\n", result.stderr)
            self.assertEqual(json.loads(result.stdout)["errors"]["refused"], 1)
            self.assertEqual(asked, words)

    def test_a_name_that_is_unknown(self):
        self.assertFails(EX_NOHOST, "the name nosuch.invalid can't be resolved", "--target", "inet:nosuch.invalid:10040")

    def test_figures_that_can_not_be_written(self):
        with target(lambda connection, _: connection.sendall(b"action=DUNNO\n\n")) as name, open("/dev/full", "wb") as full:
            for arguments in ((), ("--json",)):
                result = subprocess.run([BINARY, "load", "policy", "--target", name, "--count", "10", *arguments], env=ENVIRONMENT, timeout=120,
                                        stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True)
                self.assertEqual((result.returncode, result.stderr), (EX_IOERR, "weir: can't write to standard output: No space left on device\n"))

    def test_a_stall_shows_in_an_open_loop(self):
        asked = []

        def stall_once(connection, _):
            asked.append(1)
            if len(asked) == 50:
                # Longer on a busy machine, which the bounds below allow.
                time.sleep(1)
            connection.sendall(b"action=DUNNO\n\n")
        with target(stall_once) as name:
            result = load("--target", name, "--connections", "1", "--rate", "200", "--duration", "2s", "--json")
        report = json.loads(result.stdout)
        # A closed loop would have measured one slow answer; here half of the requests were due during the stall.
        self.assertGreater(report["latency"]["p90"], 500_000)
        self.assertGreater(report["latency"]["max"], 900_000)


if __name__ == "__main__":
    unittest.main(verbosity=2)
