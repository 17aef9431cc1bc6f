# SPDX-License-Identifier: Apache-2.0
"""A start whose ledger takes long to open: Weir listens, answers as configured, and says so."""
import fcntl
import pathlib
import signal
import socket
import tempfile
import unittest

from milter import MilterService
from postfix import DEFAULT_TIMEOUT, accepts, wait_until
from weir import UnixConnection, WeirService, get

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["2/1h"], "over": "DEFER later"}
DEFERRAL = "DEFER_IF_PERMIT 4.3.0 Service temporarily unavailable, try again later"


class SlowLedger:
    """Makes the start of a service wait in open(2) until `release`, with a lease on the ledger's lock file (fcntl(2))."""

    def __init__(self, service):
        self.service = service

    def __enter__(self):
        self.start()
        wait_until(lambda: accepts(self.service.port) and accepts(self.service.admin_socket), self.service.log)
        return self

    def start(self):
        # Tells that somebody waits for the file.
        self.handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
        self.file = open(f"{self.service.ledger}.lock", "wb")
        fcntl.fcntl(self.file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        self.service.start(wait=False)

    def __exit__(self, *_):
        self.release()
        signal.signal(signal.SIGIO, self.handler)

    def release(self):
        self.file.close()


class SlowStart(unittest.TestCase):
    def service(self, kind=WeirService, *arguments, **config):
        service = kind(*arguments, limits=[LIMIT], **config)
        self.addCleanup(service.__exit__)
        return service

    def test_requests_are_answered_as_configured(self):
        for config, answer in (
                ({}, "DUNNO"), ({"on_failure": "defer"}, DEFERRAL), ({"on_no_ledger": "defer"}, DEFERRAL),
                ({"on_failure": "defer", "on_no_ledger": "dunno"}, "DUNNO")):
            with self.subTest(**config):
                service = self.service(**config)
                with SlowLedger(service) as ledger:
                    for _ in range(3):
                        self.assertEqual(service.ask(sender="alice@example.org"), answer)
                    admin, word = UnixConnection(service.admin_socket), answer.split("_")[0]
                    self.assertEqual(get(admin, "/readyz")[:2], (503, f"the ledger is not open, and requests are answered {word}: it is being opened\n"))
                    self.assertEqual(get(admin, "/healthz")[0], 200)
                    shown = service.limits("list", check=False)
                    self.assertEqual(shown.returncode, 75, shown.stdout)
                    self.assertIn("the ledger is not open: it is being opened", shown.stderr)
                    service.wait_logged(f"opening the ledger {service.ledger}; requests are answered {word} until it is open")
                    self.assertNotIn("ready: ", service.log())
                    ledger.release()
                    service.wait_ready()
                service.wait_logged("ready: ")
                service.wait_logged("the ledger is open; 3 requests before were not counted")
                self.assertNotIn("alert", service.log())
                self.assertEqual(
                    [service.ask(sender="alice@example.org") for _ in range(3)], ["DUNNO", "DUNNO", "DEFER later"])

    def test_content_is_checked_meanwhile(self):
        service = self.service(MilterService, "/^X-Spam:/ REJECT no spam\n")
        with SlowLedger(service):
            for header, last in ((("Subject", " a"), "c"), (("X-Spam", " yes"), "y")):
                with service.mta() as mta:
                    mta.connect()
                    self.assertEqual(mta.mail(), [("c", b"")])
                    self.assertEqual(mta.content([header])[-1][0], last)

    def test_a_reload_meanwhile_applies(self):
        service = self.service()
        with SlowLedger(service) as ledger:
            service.configure(limits=[{**LIMIT, "name": "other", "rates": ["1/1h"]}])
            service.reload()
            service.wait_logged("reloaded: 1 limit (other)")
            ledger.release()
            service.wait_ready()
        self.assertEqual([service.ask(sender="alice@example.org") for _ in range(2)], ["DUNNO", "DEFER later"])

    def test_the_service_manager_waits(self):
        service = self.service()
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="weir-test-")))
        notify = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(directory / "notify"))
        notify.settimeout(DEFAULT_TIMEOUT)
        service.environment = {"NOTIFY_SOCKET": str(directory / "notify")}
        with SlowLedger(service) as ledger:
            self.assertEqual(notify.recv(4096).decode(), "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=opening the ledger")
            ledger.release()
            while not (state := notify.recv(4096).decode()).startswith("READY=1\n"):
                self.assertIn("opening the ledger", state)

    def test_a_port_in_use_ends_it(self):
        """The error is reported, however long the ledger takes."""
        service = self.service()
        with socket.create_server(("127.0.0.1", service.port)):
            ledger = SlowLedger(service)
            ledger.start()
            self.addCleanup(ledger.__exit__)
            self.assertEqual(service.process.wait(DEFAULT_TIMEOUT), 69, service.log())
        service.wait_logged(f"weir serve: can't listen on inet:127.0.0.1:{service.port}")

    def test_it_can_be_stopped(self):
        service = self.service()
        with SlowLedger(service):
            service.process.send_signal(signal.SIGTERM)
            self.assertEqual(service.process.wait(DEFAULT_TIMEOUT), 0)
            self.assertNotIn("ready: ", service.log())
