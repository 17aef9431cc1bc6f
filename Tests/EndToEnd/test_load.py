# SPDX-License-Identifier: Apache-2.0
"""weir load as an operator meets it: figures, messages and exit statuses, with good and bad targets."""
import collections
import contextlib
import json
import signal
import socketserver
import subprocess
import threading
import time
import unittest

from postfix import free_port
from weir import BINARY, ENVIRONMENT, WeirService, weir

EX_USAGE, EX_UNAVAILABLE, EX_NOHOST, EX_IOERR = 64, 69, 68, 74
LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["900M/1d"], "over": "DEFER later"}


def load(*arguments, **options):
    return weir("load", "policy", *arguments, check=False, **options)


@contextlib.contextmanager
def target(answer):
    """A server that calls `answer(connection, request)` for each request, until that returns False."""
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

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
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
        # The service agrees.
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

    def test_the_summary_for_a_person(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        result = load("--target", f"inet:127.0.0.1:{service.port}", "--rate", "500", "--count", "200")
        self.assertEqual(result.returncode, 0, result.stderr)
        for part in ("200 answers", "500 a second meant", "p99.9", "DUNNO 200"):
            self.assertIn(part, result.stdout)

    def test_an_interrupt_prints_the_figures_so_far(self):
        with target(lambda connection, _: connection.sendall(b"action=DUNNO\n\n")) as name:
            process = subprocess.Popen(
                [BINARY, "load", "policy", "--target", name, "--rate", "100", "--duration", "60s", "--json"],
                env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                time.sleep(1)
                process.send_signal(signal.SIGINT)
                output, _ = process.communicate(timeout=10)
            finally:
                process.kill()
            self.assertEqual(process.returncode, 128 + signal.SIGINT)
            self.assertEqual(json.loads(output)["ended_by"], "interrupted")


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
            self.assertFails(EX_UNAVAILABLE, "closed every connection", "--target", name)

    def test_answers_rubbish(self):
        with target(lambda connection, _: connection.sendall(b"what?\n\n")) as name:
            result = load("--target", name, "--connections", "3", "--json")
        self.assertEqual(result.returncode, EX_UNAVAILABLE)
        self.assertEqual(json.loads(result.stdout)["errors"]["malformed"], 3)

    def test_answers_too_late(self):
        with target(lambda *_: time.sleep(2)) as name:
            result = load("--target", name, "--connections", "2", "--timeout", "500ms", "--json")
        self.assertEqual(result.returncode, EX_UNAVAILABLE)
        report = json.loads(result.stdout)
        self.assertEqual(report["errors"]["timeout"], 2)
        self.assertEqual(report["unanswered"], 2)

    def test_a_stall_shows_in_an_open_loop(self):
        asked = []

        def stall_once(connection, _):
            asked.append(1)
            if len(asked) == 50:
                time.sleep(1)
            connection.sendall(b"action=DUNNO\n\n")
        with target(stall_once) as name:
            result = load("--target", name, "--connections", "1", "--rate", "200", "--duration", "2s", "--json")
        report = json.loads(result.stdout)
        # A closed loop would have seen one slow answer; here half of all were due within the stall.
        self.assertGreater(report["latency"]["p90"], 500_000)
        self.assertGreater(report["latency"]["max"], 900_000)


if __name__ == "__main__":
    unittest.main(verbosity=2)
