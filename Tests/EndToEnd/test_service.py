# SPDX-License-Identifier: Apache-2.0
"""weir serve under a service manager: socket activation, notifications, signals, exit statuses."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import unittest

from filtering import FilterService, NextHop, dialogue
from postfix import DEFAULT_TIMEOUT, SMTP, free_port, run, wait_until
from weir import BINARY, ENVIRONMENT, PolicyClient, UnixConnection, WeirService

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["2/1h"], "over": "DEFER later"}

# What systemd does between fork(2) and execve(2): pass the sockets from descriptor 3 on to this process.
HAND_OVER = """
import fcntl, os, sys
command, sockets = sys.argv[1:5], [int(number) for number in sys.argv[5:]]
for number, copy in enumerate([fcntl.fcntl(number, fcntl.F_DUPFD, 3 + len(sockets)) for number in sockets], start=3):
    os.dup2(copy, number)
os.execve(command[0], command, {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets))})
"""


def fill(pipe):
    """Writes to the pipe until it takes no more."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(4096))
    os.set_blocking(pipe, True)


class Transactions(unittest.TestCase):
    """The charge of a mail transaction is given back if it is dropped, and only then."""
    CONFIG = {"limits": [{**LIMIT, "rates": ["100/1h"], "when": {"protocol_state": "RCPT"}}], "give_back_dropped": True}

    def charge(self, client, instance, recipients=2):
        for number in range(recipients):
            self.assertEqual(client.ask(sender="alice@example.org", instance=instance, recipient=f"{number}@example.com"), "DUNNO")

    def test_verify_within_a_transaction(self):
        service = self.enterContext(WeirService(**self.CONFIG))
        with service.client() as client:
            instance = client.new_instance()
            self.charge(client, instance)
            client.ask(protocol_state="VRFY", instance=instance, sender="alice@example.org", recipient="x@example.net")
            client.ask(protocol_state="DATA", instance=instance, sender="alice@example.org", recipient="", recipient_count="2")
            client.ask(protocol_state="END-OF-MESSAGE", instance=instance, sender="alice@example.org", recipient="", recipient_count="2")
            self.assertEqual(service.used("alice@example.org", "per-sender"), 2)

    def test_another_transaction_ends_the_last_one(self):
        service = self.enterContext(WeirService(**self.CONFIG))
        with service.client() as client:
            self.charge(client, client.new_instance())
            self.charge(client, client.new_instance(), 1)
            self.assertEqual(service.used("alice@example.org", "per-sender"), 1)

    def test_a_client_is_named_by_address_and_port(self):
        service = self.enterContext(WeirService(**self.CONFIG))
        with service.client() as client:
            port = client.socket.getsockname()[1]
            client.socket.sendall(b"nonsense\n\n")
            service.wait_logged(f"warning: closed the connection of 127.0.0.1:{port}: a line without '=' in a request")

    def test_the_last_one_is_given_back_before_the_next_is_judged(self):
        """A client that sends RSET and begins again needs no room for both messages."""
        service = self.enterContext(WeirService(**{**self.CONFIG, "limits": [{**self.CONFIG["limits"][0], "rates": ["3/1h"]}]}))
        with service.client() as client:
            for _ in range(3):
                self.charge(client, client.new_instance(), 3)
            self.assertEqual(service.used("alice@example.org", "per-sender"), 3)
        with service.client() as client, service.client() as other:
            self.charge(client, client.new_instance(), 3)
            # Another connection has another client.
            self.assertNotEqual(other.ask(sender="alice@example.org", instance=other.new_instance(), recipient="x@example.com"), "DUNNO")

    def test_restart_within_a_transaction(self):
        service = self.enterContext(WeirService(**self.CONFIG))
        with service.client() as client:
            self.charge(client, client.new_instance())
            service.restart()
            self.assertEqual(service.used("alice@example.org", "per-sender"), 2)


class ServiceManager(unittest.TestCase):
    def start_with_sockets(self, service, listeners, environment={}):
        numbers = [listener.fileno() for listener in listeners]
        with open(service.log_file, "ab") as log:
            service.process = subprocess.Popen(
                [sys.executable, "-c", HAND_OVER, BINARY, "serve", "--config", service.config_file, *map(str, numbers)],
                env={**ENVIRONMENT, **environment}, pass_fds=numbers, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def test_passed_sockets_survive_a_restart(self):
        listener = self.enterContext(socket.create_server(("127.0.0.1", 0), backlog=100))
        port = listener.getsockname()[1]
        service = WeirService(port, limits=[LIMIT])
        self.addCleanup(service.__exit__)
        service.configure()
        for _ in range(2):
            # No service accepts yet: the client waits, and is answered when the service has started.
            with PolicyClient(port) as early:
                early.send(early.request(sender="alice@example.org"))
                self.start_with_sockets(service, [listener], {"LISTEN_FDNAMES": "policy"})
                self.assertEqual(early.reply(), "DUNNO", service.log())
            self.assertEqual(service.stop(), 0)
        listener.close()
        service.start()
        self.assertEqual(service.ask(sender="alice@example.org"), "DEFER later")

    def test_a_passed_admin_socket_survives_a_restart(self):
        service = WeirService(limits=[LIMIT])
        self.addCleanup(service.__exit__)
        service.configure()
        listener = self.enterContext(socket.socket(socket.AF_UNIX))
        listener.bind(str(service.admin_socket))
        os.chmod(service.admin_socket, 0o640)
        listener.listen()
        for _ in range(2):
            # No service accepts yet: the request waits, and is answered when the service has started.
            early = UnixConnection(service.admin_socket)
            early.request("GET", "/healthz")
            self.start_with_sockets(service, [listener])
            self.assertEqual(early.getresponse().status, 200, service.log())
            self.assertNotIn("no listener is configured for it", service.log())
            # The mode and the group are the service manager's business.
            self.assertEqual(os.stat(service.admin_socket).st_mode & 0o777, 0o640)
            self.assertEqual(service.stop(), 0)

    def test_a_number_of_sockets_that_cannot_be(self):
        service = WeirService(limits=[LIMIT])
        self.addCleanup(service.__exit__)
        service.configure()
        for number in ("-1", "1025", "2147483647"):
            with self.subTest(number):
                result = subprocess.run(
                    ["sh", "-c", f'LISTEN_PID=$$ LISTEN_FDS={number} exec "$@"', "sh",
                     BINARY, "serve", "--config", service.config_file],
                    env=ENVIRONMENT, capture_output=True, text=True, timeout=DEFAULT_TIMEOUT)
                self.assertEqual(result.returncode, 69, result.stderr)
                self.assertIn(f"LISTEN_FDS is {number}; expected a number from 0 to 1024", result.stderr)

    def test_notifications(self):
        service = WeirService(limits=[LIMIT])
        notify = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(service.directory / "notify"))
        notify.settimeout(DEFAULT_TIMEOUT)
        service.environment = {"NOTIFY_SOCKET": str(service.directory / "notify")}
        self.enterContext(service)
        self.wait_notified(notify, "READY=1")
        service.reload()
        self.wait_notified(notify, "RELOADING=1")
        self.wait_notified(notify, "READY=1")
        service.process.send_signal(signal.SIGTERM)
        self.wait_notified(notify, "STOPPING=1")
        self.assertEqual(service.process.wait(DEFAULT_TIMEOUT), 0)

    def test_the_log_reports_requests_that_never_fit(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        service.ask(protocol_state="END-OF-MESSAGE", recipient_count="60", sender="alice@example.org")
        service.wait_logged("key alice@example.org: too large, recipients 0/2 per 1h, never fits, ")
        self.assertNotIn("room in", service.log())

    def test_keys_that_need_a_restart_are_reported_once(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))

        def reload(port, connections):
            service.configure(
                listen={**service.config["listen"], "policy": f"inet:127.0.0.1:{port}"}, filter={"connections": connections})
            count = service.log().count("reloaded: ")
            service.reload()
            wait_until(lambda: service.log().count("reloaded: ") > count, service.log)
            return [line.split("warning: ")[1] for line in service.log().splitlines() if "restart the service" in line]

        told = "has changed: restart the service to apply it; until then the old value is used"
        first = [f"listen.policy {told}", f"filter {told}"]
        other = free_port()
        self.assertEqual(reload(other, 7), first)
        self.assertIn(f"policy on inet:127.0.0.1:{service.port}", service.log().splitlines()[-1])
        self.assertNotIn(f"inet:127.0.0.1:{other}", service.log())
        self.assertEqual(reload(other, 7), first)
        self.assertEqual(reload(other, 8), [*first, f"filter {told}"])
        self.assertEqual(service.ask(sender="alice@example.org"), "DUNNO")

    def test_the_watchdog_depends_on_the_ledger_loop(self):
        service = WeirService(limits=[LIMIT])
        notify = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(service.directory / "notify"))
        notify.settimeout(DEFAULT_TIMEOUT)
        service.environment = {"NOTIFY_SOCKET": str(service.directory / "notify"), "WATCHDOG_USEC": "100000"}
        self.enterContext(service)
        for _ in range(3):
            self.wait_notified(notify, "WATCHDOG=1")

    def wait_notified(self, notify, state):
        while state not in notify.recv(4096).decode().splitlines():
            pass

    def test_a_stop_ends_though_nobody_reads_the_log(self):
        """Standard error is a full pipe; neither the start nor the stop waits for it."""
        service = WeirService(limits=[LIMIT])
        self.addCleanup(service.__exit__)
        service.configure()
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        fill(writing)
        try:
            service.process = subprocess.Popen(
                [BINARY, "serve", "--config", service.config_file], env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=writing)
        finally:
            os.close(writing)
        service.wait_ready()
        self.assertEqual(service.ask(sender="alice@example.org"), "DUNNO")
        self.assertEqual(service.stop(), 0)

    def test_a_stop_that_hangs_is_ended(self):
        """The service manager takes no more notifications, so the start hangs in one, and can't stop by itself."""
        service = WeirService(limits=[LIMIT])
        self.addCleanup(service.__exit__)
        notify = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(service.directory / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler, contextlib.suppress(BlockingIOError):
            filler.setblocking(False)
            filler.connect(str(service.directory / "notify"))
            while True:
                filler.send(b"x")
        service.environment = {"NOTIFY_SOCKET": str(service.directory / "notify")}
        service.start()
        service.wait_logged("ready: ")
        service.process.send_signal(signal.SIGTERM)
        self.assertEqual(service.process.wait(40), -signal.SIGALRM)

    def test_no_reload_signal_ends_a_start(self):
        """SIGHUP as soon as the service has more than one thread, or handles the signal."""
        service = WeirService(limits=[LIMIT])
        self.addCleanup(service.__exit__)

        def has_begun():
            status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{service.pid}/status").read_text().splitlines() if ":\t" in line)
            handled = int(status["SigIgn"], 16) | int(status["SigCgt"], 16)
            return status["Name"].strip() == BINARY.name and (int(status["Threads"]) > 1 or handled & 1 == 1)

        for _ in range(20):
            service.start(wait=False)
            wait_until(has_begun, "the start has begun", interval=0)
            service.reload()
            service.wait_ready()
            service.reload()
            self.assertEqual(service.stop(), 0)

    def test_root_is_warned_about(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.assertEqual("warning: running as root: " in service.log(), os.geteuid() == 0)

    def test_stop_on_sigint(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        service.process.send_signal(signal.SIGINT)
        self.assertEqual(service.process.wait(DEFAULT_TIMEOUT), 0)

    def test_passed_unix_sockets(self):
        service = WeirService(limits=[LIMIT])
        self.addCleanup(service.__exit__)
        service.configure()
        listener = self.enterContext(socket.socket(socket.AF_UNIX))
        listener.bind(str(service.policy_socket))
        listener.listen(100)
        stranger = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        inode = os.stat(service.policy_socket).st_ino
        self.start_with_sockets(service, [listener, stranger])
        service.wait_ready()
        self.assertEqual(os.stat(service.policy_socket).st_ino, inode)
        with service.client(service.policy_socket) as client:
            self.assertEqual(client.ask(), "DUNNO")
        service.wait_logged(f"inet:127.0.0.1:{stranger.getsockname()[1]}")

    def test_a_second_service_leaves_the_first_alone(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        for listen in ({"policy": f"unix:{service.policy_socket}", "admin": f"unix:{service.directory}/other"},
                       {"policy": f"unix:{service.directory}/another", "admin": f"unix:{service.admin_socket}"}):
            other = WeirService()
            self.addCleanup(other.__exit__)
            other.configure(listen=listen)
            other.start(wait=False)
            self.assertEqual(other.process.wait(DEFAULT_TIMEOUT), 69, other.log())
            other.wait_logged("another process listens on")
        with service.client(service.policy_socket) as client:
            self.assertEqual(client.ask(), "DUNNO")
        self.assertEqual(service.limits("list").returncode, 0)

    def test_a_file_at_a_socket_path_is_kept(self):
        service = WeirService()
        self.addCleanup(service.__exit__)
        service.policy_socket.write_text("precious")
        service.start(wait=False)
        self.assertEqual(service.process.wait(DEFAULT_TIMEOUT), 69)
        self.assertEqual(service.policy_socket.read_text(), "precious")
        service.wait_logged("is not a socket")

    def test_failing_admin_listener_ends_the_start(self):
        service = WeirService()
        self.addCleanup(service.__exit__)
        service.configure(listen={"policy": f"inet:127.0.0.1:{service.port}", "admin": "unix:/nowhere/at/all"})
        service.start(wait=False)
        self.assertEqual(service.process.wait(DEFAULT_TIMEOUT), 69)
        service.wait_logged("unix:/nowhere/at/all (listen.admin): No such file or directory")
        self.assertNotIn("ready", service.log())

    def test_peaks_are_logged(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        service.ask(sender="alice@example.org", instance="1")
        service.ask(sender="alice@example.org", instance="2")
        service.ask(sender="bob@example.org", instance="3")
        service.stop()
        self.assertRegex(
            service.log(),
            r"statistics: max recipients 2/2 per 1h for \(per-sender:alice@example\.org\) at \w{3} [ \d]\d \d\d:\d\d:\d\d")

    def test_limits_beside_a_faulty_configuration(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        service.ask(sender="alice@example.org")
        service.configure(limits=[{"name": "broken"}])
        shown = service.limits("show", "alice@example.org")
        self.assertIn("recipients 1/2", shown.stdout)
        self.assertIn("check-config", shown.stderr)

    def test_port_in_use(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        other = WeirService(service.port)
        self.addCleanup(other.__exit__)
        other.start(wait=False)
        self.assertNotEqual(other.process.wait(DEFAULT_TIMEOUT), 0)
        other.wait_logged(str(service.port))
        self.assertEqual(service.ask(), "DUNNO")

    def test_a_bad_configuration_at_start(self):
        service = WeirService()
        self.addCleanup(service.__exit__)
        service.configure(text="limits:\n  - name: x\n    rate: 5/1h\nlisten: { polcy: [] }\n")
        service.start(wait=False)
        self.assertNotIn(service.process.wait(DEFAULT_TIMEOUT), (0, None))
        for fault in ("weir.yaml:3:", "weir.yaml:4:", "rates", "policy"):
            service.wait_logged(fault)

    def test_stale_unix_socket(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        service.kill()
        self.assertTrue(os.path.exists(service.policy_socket))
        service.start()
        with service.client(service.policy_socket) as client:
            self.assertEqual(client.ask(), "DUNNO")

    def test_the_binary_needs_no_swift_libraries(self):
        libraries = run(["ldd", BINARY]).stdout
        self.assertIn("libpcre2", libraries)
        self.assertNotRegex(libraries, "(?i)libswift|foundation|libdispatch")


# As MemoryDenyWriteExecute= of the unit does: PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN. Kernels before 6.3 lack it.
DENY_WRITE_EXECUTE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Memory(unittest.TestCase):
    def test_none_is_writable_and_executable(self):
        """Neither PCRE2 nor Vectorscan nor the system's regex library makes machine code."""
        header = "".join(f"/^X-Rule-{number}: value{number}$/ WARN {number}\n" for number in range(1_500))
        messages = []
        with NextHop(dialogue({}, messages)) as hop:
            service = FilterService(hop.port, header)
            (service.directory / "body.regexp").write_text("/^drop( this)+$/ IGNORE\n")
            service.config["checks"]["body"].append(f"regexp:{service.directory}/body.regexp")
            service.wrapper = [sys.executable, "-c", DENY_WRITE_EXECUTE]
            with service, SMTP(service.filter_port) as client:
                client.mail("a@example.org", ["b@example.com"], "X-Rule-7: value7\n\ndrop this this\nkept\n")
                mappings = [line.split(maxsplit=5) for line in pathlib.Path(f"/proc/{service.pid}/maps").read_text().splitlines()]
                service.wait_logged("X-Rule-7: value7")
        self.assertEqual(len(messages), 1)
        self.assertNotIn(b"drop this", messages[0][1])
        executable = [mapping for mapping in mappings if "x" in mapping[1]]
        self.assertTrue(executable)
        for mapping in executable:
            self.assertNotIn("w", mapping[1], mapping)
            # Machine code comes from files only.
            self.assertTrue(len(mapping) == 6, mapping)


if __name__ == "__main__":
    unittest.main(verbosity=2)
