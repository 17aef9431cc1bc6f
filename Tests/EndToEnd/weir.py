# SPDX-License-Identifier: Apache-2.0
"""Runs Weir on free ports, with its files in a temporary directory; and a client of the policy protocol."""
import contextlib
import http.client
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile

from postfix import DEFAULT_TIMEOUT, accepts, connect, free_port, run, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("WEIR_BINARY", ROOT / ".build" / "release" / "weir"))
# Intended crashes must not start an interactive debugger. A system call that the sandbox lacks ends the service, so
# that no test passes by luck.
ENVIRONMENT = {**os.environ, "SWIFT_BACKTRACE": "enable=no", "WEIR_REFUSED_CALL": "kill"}
# A sanitizer writes its reports outside the sandbox (Tests/sanitize).
UNSANDBOXED = {"sandbox": "none"} if "WEIR_SANITIZED" in os.environ else {}
# The answer to a blocked key, unless `block.over` sets another.
BLOCKED = "REJECT 5.7.1 sending is blocked, ask the postmaster"
# Weir runs as root only if it is told so.
USER = pwd.getpwuid(os.geteuid()).pw_name


def check_memory(test, used, most):
    """A sanitizer takes several times as much memory, and keeps what was freed for a while: nothing is checked then."""
    if "WEIR_SANITIZED" not in os.environ:
        test.assertLess(used, most)


def weir(*arguments, timeout=DEFAULT_TIMEOUT, check=True, **options):
    """Runs a weir command and waits for it."""
    return run([BINARY, *arguments], timeout=timeout, check=check, env=ENVIRONMENT, **options)


class WeirService:
    """`weir serve` on `port` (or a free one); the keys of `config` replace the defaults below."""

    def __init__(self, port=None, **config):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.directory.chmod(0o755)
        self.port = port or free_port()
        self.policy_socket = self.directory / "policy"
        self.admin_socket = self.directory / "admin"
        self.ledger = self.directory / "ledger.sqlite"
        self.config_file = self.directory / "weir.yaml"
        self.log_file = self.directory / "log"
        self.process = None
        self.environment = {}
        # Prefix of the command line, such as `prlimit --fsize=N`.
        self.wrapper = []
        self.config = {
            "listen": {
                "policy": [f"inet:127.0.0.1:{self.port}", f"unix:{self.policy_socket}"],
                "admin": f"unix:{self.admin_socket}",
            },
            "ledger": {"store": f"sqlite:{self.ledger}"},
            "user": USER,
            **UNSANDBOXED,
            **config,
        }

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.directory)

    @property
    def pid(self):
        return self.process.pid

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def configure(self, text=None, **config):
        """Writes the configuration with these keys replaced, or `text`. Does not reload."""
        self.config.update(config)
        # JSON is valid YAML.
        self.config_file.write_text(text if text is not None else json.dumps(self.config, indent=2))

    def start(self, wait=True):
        if not self.config_file.exists():
            self.configure()
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, BINARY, "serve", "--config", self.config_file], env={**ENVIRONMENT, **self.environment},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=DEFAULT_TIMEOUT):
        def is_ready():
            if not self.is_running:
                raise AssertionError(f"weir serve exited with status {self.process.returncode}:\n{self.log()}")
            return accepts(self.port) and accepts(self.admin_socket) and "being opened" not in self.readiness()
        wait_until(is_ready, "weir serve is ready", timeout, interval=0.01)

    def readiness(self):
        """The text of /readyz. The admin listener may be on a port."""
        is_port = isinstance(self.admin_socket, int)
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.admin_socket, timeout=120) if is_port
            else UnixConnection(self.admin_socket))
        return get(connection, "/readyz")[1]

    def stop(self):
        """Stops the service with SIGTERM; returns its exit status."""
        if self.process is None:
            return None
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEFAULT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"weir serve did not end on SIGTERM:\n{self.log()}") from None

    def kill(self):
        """Kills the service with SIGKILL."""
        self.process.kill()
        self.process.wait(DEFAULT_TIMEOUT)

    def restart(self):
        self.stop()
        self.start()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_logged(self, text, timeout=DEFAULT_TIMEOUT):
        wait_until(lambda: text in self.log(), f"in the log: {text}", timeout)

    def limits(self, *arguments, **options):
        """Runs `weir limits`."""
        return weir("limits", *arguments, "--config", self.config_file, **options)

    def used(self, key, limit):
        """The use of a key in a limit's longest window; None if the limit hasn't counted the key."""
        standings = json.loads(self.limits("show", key, "--limit", limit, "--json").stdout)
        return standings[0]["rates"][-1]["used"] if standings else None

    def used_by_all(self, limit):
        """The use of all keys, of which there are at most 1,000."""
        standings = json.loads(self.limits("list", "--limit", limit, "--most", "1000", "--json").stdout)
        return {standing["key"]: standing["rates"][-1]["used"] for standing in standings}

    def client(self, target=None):
        return PolicyClient(target or self.port)

    def ask(self, **attributes):
        """The action for a request, sent on a new connection."""
        with self.client() as client:
            return client.ask(**attributes)


# The attributes of Postfix 3.7, in smtpd's order.
ATTRIBUTES = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "protocol_name": "ESMTP",
    "client_address": "192.0.2.1",
    "client_name": "client.example.org",
    "client_port": "40000",
    "reverse_client_name": "client.example.org",
    "server_address": "192.0.2.25",
    "server_port": "587",
    "helo_name": "client.example.org",
    "sender": "sender@example.org",
    "recipient": "recipient@example.com",
    "recipient_count": "0",
    "queue_id": "",
    "instance": "",
    "size": "0",
    "etrn_domain": "",
    "stress": "",
    "sasl_method": "",
    "sasl_username": "",
    "sasl_sender": "",
    "ccert_subject": "",
    "ccert_issuer": "",
    "ccert_fingerprint": "",
    "ccert_pubkey_fingerprint": "",
    "encryption_protocol": "",
    "encryption_cipher": "",
    "encryption_keysize": "0",
    "policy_context": "",
}


class PolicyClient:
    """A persistent connection to a policy server. `target` is a port or the path of a socket."""

    transactions = 0

    def __init__(self, target, timeout=DEFAULT_TIMEOUT):
        self.socket = connect(target, timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    @classmethod
    def new_instance(cls):
        """A unique `instance`."""
        cls.transactions += 1
        return f"{os.getpid():x}.{cls.transactions:x}.0.0"

    @classmethod
    def request(cls, **attributes):
        """The bytes of a request, of a new transaction unless `instance` is given. Attributes that are None are omitted."""
        values = {**ATTRIBUTES, "instance": attributes.get("instance") or cls.new_instance(), **attributes}
        return "".join(f"{name}={value}\n" for name, value in values.items() if value is not None).encode() + b"\n"

    def ask(self, **attributes):
        """Sends a request and returns the action of its reply."""
        self.send(self.request(**attributes))
        return self.reply()

    def send(self, data):
        self.socket.sendall(data)

    def reply(self):
        """The action of the next reply; None if the server closed the connection."""
        while b"\n\n" not in self.buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                if self.buffer:
                    raise AssertionError(f"half a reply: {self.buffer!r}")
                return None
            self.buffer += data
        reply, self.buffer = self.buffer.split(b"\n\n", 1)
        if not reply.startswith(b"action=") or b"\n" in reply:
            raise AssertionError(f"not a policy reply: {reply!r}")
        return reply.decode()[len("action="):]

    def is_closed(self, timeout=DEFAULT_TIMEOUT):
        """Waits until the server closes the connection; True if it sent nothing before."""
        self.socket.settimeout(timeout)
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


def get(connection, path, method="GET", body=None, **headers):
    connection.request(method, path, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    try:
        return reply.status, reply.read().decode(), reply.headers
    finally:
        connection.close()


def samples(text):
    """Parses metrics; every line must conform to the text format."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r'([a-z_]+(?:\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\})?) ([0-9.e+-]+)', line)
            if not match:
                raise AssertionError(f"not a sample: {line}")
            if match[1] in found:
                raise AssertionError(f"duplicate series: {line}")
            found[match[1]] = float(match[2])
    return found
