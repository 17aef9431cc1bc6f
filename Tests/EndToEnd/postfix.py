# SPDX-License-Identifier: Apache-2.0
"""A private Postfix on loopback, with SMTP clients and a sink.

PrivatePostfix has its own configuration, queue, data and log under a temporary directory and listens on free high
ports, so that a system's own Postfix is never touched. Postfix insists on root: without it, the commands that need
it go through sudo.

    with SMTPSink() as sink, PrivatePostfix(relay=sink.port) as postfix:
        with SMTP(postfix.port) as smtp:
            smtp.mail("a@example.org", ["b@example.com"])
        postfix.wait_drained()
        sink.messages()

The Postfix is the one whose commands come first in PATH (see Tests/newest-postfix), or else that of Debian.

Security: everything listens on 127.0.0.1 only; mynetworks is 127.0.0.0/8 and relays to the sink alone.
Bugs: two processes that take ports from the same range at the same moment may find the same one.
"""
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time

DEFAULT_TIMEOUT = 120

COMMANDS = pathlib.Path(shutil.which("postfix", path=os.environ.get("PATH", "") + ":/usr/sbin") or "/usr/sbin/postfix").parent


def default(parameter):
    """The default of a parameter of this Postfix."""
    return subprocess.run(
        [COMMANDS / "postconf", "-d", "-h", parameter], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def from_lines():
    """The `checks.from_lines` that `weir doctor` recommends for this Postfix."""
    numbers = [int(number) for number in re.findall(r"\d+", default("mail_version").partition("-")[0])]
    fixed = {7: 21, 8: 19, 9: 13, 10: 12, 11: 5}.get(numbers[1], 0)
    return "first" if numbers[1] > 11 or numbers[1] >= 7 and numbers[2] >= fixed else "all"


MAIN = {
    "compatibility_level": "3.6",
    "command_directory": COMMANDS,
    "daemon_directory": default("daemon_directory"),
    "mail_owner": "postfix",
    "setgid_group": "postdrop",
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "myhostname": "mx.example.org",
    "mydestination": "",
    "mynetworks": "127.0.0.0/8",
    "alias_maps": "",
    "alias_database": "",
    "local_recipient_maps": "",
    "smtp_dns_support_level": "disabled",
    "smtpd_peername_lookup": "no",
    "smtpd_recipient_restrictions": "permit_mynetworks, reject",
    "smtpd_relay_restrictions": "permit_mynetworks, reject",
}

# Service, type, private, unprivileged, chroot, wake-up, process limit, command.
MASTER = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


# The reason of a test that is skipped without root. `run_tests.py` runs it again with sudo.
NEEDS_ROOT = "needs root"


def as_root(command):
    """The command line that runs `command` as root."""
    return command if os.geteuid() == 0 else ["sudo", "-n", *command]


def run(command, timeout=DEFAULT_TIMEOUT, check=True, **options):
    """Runs a command to its end; its output is in the exception if it fails."""
    result = subprocess.run(
        [str(word) for word in command], timeout=timeout, capture_output=True, text=True,
        stdin=options.pop("stdin", None if "input" in options else subprocess.DEVNULL), **options)
    if check and result.returncode != 0:
        raise AssertionError(f"{command} exited with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result


# A port is handed out once: whoever has it may not listen there yet, or may start again later.
_ports_handed_out = set()
# Below the range that outgoing connections use. Test processes that run at once have a part each (every_module.py).
_PORTS = [int(end) for end in os.environ.get("WEIR_TEST_PORTS", "20000-32000").split("-")]


def free_port():
    """A port on 127.0.0.1 that nothing listens on."""
    while free := set(range(*_PORTS)) - _ports_handed_out:
        port = random.choice(list(free))
        _ports_handed_out.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise AssertionError("all ports of WEIR_TEST_PORTS have been used")


def wait_until(condition, what, timeout=DEFAULT_TIMEOUT, interval=0.05):
    """Polls until `condition()` is true, and returns its value. `what` may be a function that returns the error text."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(interval)


def accepts(target):
    """Whether something accepts connections at a port of 127.0.0.1, or at the path of a UNIX socket."""
    try:
        connect(target, timeout=1).close()
        return True
    except OSError:
        return False


def connect(target, timeout=DEFAULT_TIMEOUT, source=None):
    """A connected socket to a port of 127.0.0.1, from the address `source`, or to the path of a UNIX socket."""
    if isinstance(target, int):
        return socket.create_connection(("127.0.0.1", target), timeout, source and (source, 0))
    endpoint = socket.socket(socket.AF_UNIX)
    endpoint.settimeout(timeout)
    try:
        endpoint.connect(str(target))
    except OSError:
        endpoint.close()
        raise
    return endpoint


def end_listening(listener):
    """Closes a listener that a thread accepts at.

    close(2) alone leaves the thread in accept(2), and it may get a connection of the next listener, which has the same
    descriptor.
    """
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def children(pid):
    """The process ids of a process's descendants."""
    found = []
    try:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    except OSError:
        pass
    return found


def is_running(pid):
    """Whether a process runs; False for a zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class PrivatePostfix:
    """`main` and `services` add to main.cf and master.cf; a service is a master.cf line with its own `-o` options.

    A parameter that is None is left out. `relay` is the port of the next hop of all mail; without one all mail is
    discarded. `lines` are added to main.cf as they are.
    """

    def __init__(self, main=None, services=(), relay=None, lines=""):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-postfix-"))
        self.directory.chmod(0o755)
        self.etc = self.directory / "etc"
        self.maillog = self.directory / "log" / "maillog"
        self.port = free_port()
        self.parameters = {
            **MAIN,
            "queue_directory": self.directory / "queue",
            "data_directory": self.directory / "data",
            "maillog_file": self.maillog,
            "maillog_file_prefixes": self.directory,
            **({"relayhost": f"[127.0.0.1]:{relay}"} if relay else {"default_transport": "discard"}),
            **(main or {}),
        }
        self.lines = lines
        self.services = [f"127.0.0.1:{self.port} inet n - n - - smtpd", *services]

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        run(as_root(["rm", "-rf", "--one-file-system", self.directory]))

    # Life cycle

    def start(self):
        for name in ("etc", "queue", "data", "log"):
            (self.directory / name).mkdir(exist_ok=True)
        self.write()
        run(as_root(["chown", self.parameters["mail_owner"], self.directory / "data"]))
        run(as_root(["chown", "root:root", self.directory / "log", self.directory / "queue"]))
        # Not through a pipe: background processes would keep it open.
        with open(self.directory / "start.log", "w+") as log:
            subprocess.run(
                as_root([COMMANDS / "postfix", "-c", str(self.etc), "start"]), timeout=120,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(
            lambda: self.pid() and accepts(self.port),
            lambda: f"Postfix on port {self.port}\n{(self.directory / 'start.log').read_text()}{self.log()}")

    def stop(self):
        pid = self.pid()
        if not pid:
            return
        processes = [pid, *children(pid)]
        run(as_root(["kill", "-TERM", str(pid)]), check=False)
        try:
            wait_until(lambda: not any(map(is_running, processes)), "Postfix ended", timeout=120)
        except AssertionError:
            left = [str(process) for process in processes if is_running(process)]
            run(as_root(["kill", "-KILL", *left]), check=False)

    def pid(self):
        """The process id of master; None if it isn't running."""
        found = run(as_root(["cat", self.directory / "queue" / "pid" / "master.pid"]), check=False).stdout.strip()
        return int(found) if found and is_running(int(found)) else None

    def set(self, **parameters):
        """Sets parameters of main.cf, and reloads a running Postfix."""
        self.parameters.update(parameters)
        self.write()
        self.reload()

    def add_service(self, line):
        """Adds a service to master.cf, and reloads a running Postfix."""
        self.services.append(line)
        self.write()
        self.reload()

    def reload(self):
        """Reloads a running Postfix, and waits until all old smtpd processes have exited."""
        master = self.pid()
        if not master:
            return
        reloads = self.log().count(": reload -- ")
        run(as_root(["kill", "-HUP", str(master)]))
        wait_until(lambda: self.log().count(": reload -- ") > reloads, "reloaded")
        # Nothing connects meanwhile, so these are from before.
        old = [pid for pid in children(master) if process_name(pid) == "smtpd"]
        wait_until(lambda: not any(map(is_running, old)), "old smtpd processes ended")
        wait_until(lambda: accepts(self.port), f"Postfix on port {self.port}")

    def write(self):
        main = "".join(f"{name} = {value}\n" for name, value in self.parameters.items() if value is not None)
        (self.etc / "main.cf").write_text(main + self.lines)
        (self.etc / "master.cf").write_text("".join(line + "\n" for line in self.services) + MASTER)

    def command(self, name, *arguments, **options):
        """Runs one of Postfix's commands on this instance, as root."""
        return run(as_root([COMMANDS / name, "-c", self.etc, *arguments]), **options)

    # State

    def log(self):
        return run(as_root(["cat", self.maillog]), check=False).stdout

    def queue(self):
        """The messages in the queue, from postqueue -j."""
        return [json.loads(line) for line in self.command("postqueue", "-j").stdout.splitlines()]

    def message(self, queue_id):
        """The content of a message in the queue."""
        return self.command("postcat", "-q", "-h", "-b", queue_id).stdout

    def wait_drained(self, timeout=DEFAULT_TIMEOUT):
        wait_until(lambda: not self.queue(), lambda: f"the queue drained\n{self.log()}", timeout, interval=0.2)

    # Sending

    def swaks(self, *arguments, check=False):
        """Sends a message with swaks; its transcript is in the result's stdout."""
        return run(
            ["swaks", "--server", "127.0.0.1", "--port", self.port, "--helo", "client.example.org", *arguments],
            check=check)

    def smtp_source(self, *arguments, timeout=120):
        return run([COMMANDS / "smtp-source", *arguments, f"127.0.0.1:{self.port}"], timeout=timeout)

    def sendmail(self, sender, recipients, content):
        """Submits a message as a local process does."""
        return run([COMMANDS / "sendmail", "-C", self.etc, "-f", sender, "-i", *recipients], input=content)


def process_name(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


class SMTPSink:
    """smtp-sink as a next hop that keeps the mail."""

    def __init__(self, *options):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-sink-"))
        self.directory.chmod(0o777)
        self.port = free_port()
        self.options = options
        self.process = None

    def __enter__(self):
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [COMMANDS / "smtp-sink", *user, "-d", f"{self.directory}/%s.", *self.options,
             f"127.0.0.1:{self.port}", "1000"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: accepts(self.port), "smtp-sink")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        shutil.rmtree(self.directory)

    def messages(self):
        """The delivered messages, in no particular order: dictionaries with `sender`, `recipients` and `content`.

        smtp-sink creates a file at MAIL, writes full buffers of 4,096 bytes to it, and the rest after the final dot.
        """
        dumps = []
        for file in sorted(self.directory.iterdir()):
            # smtp-sink removes the file of a transaction that ends without a message.
            with contextlib.suppress(FileNotFoundError):
                dumps.append(file.read_bytes())
        return [parse_dump(dump) for dump in dumps if is_complete(dump)]


def is_complete(dump):
    """Whether a file of smtp-sink -d ends with the empty line that follows the message.

    A buffer that ends with an empty line of the message looks complete, too, until the next buffer is written.
    """
    return dump.endswith(b"\n\n")


def parse_dump(dump):
    """Parses the files of smtp-sink -d: `X-...-Args:` lines with the envelope, the message, an empty line."""
    lines = dump.removesuffix(b"\n").split(b"\n")
    envelope = {"sender": None, "recipients": []}
    while lines and (match := re.match(rb"X-(Client-Addr|Client-Proto|Helo-Args|Mail-Args|Rcpt-Args):? ?(.*)", lines[0])):
        address = re.search(rb"<(.*?)>", match[2])
        if match[1] == b"Mail-Args":
            envelope["sender"] = address[1].decode() if address else ""
        elif match[1] == b"Rcpt-Args" and address:
            envelope["recipients"].append(address[1].decode())
        lines.pop(0)
    return {**envelope, "content": b"\n".join(lines)}


class SMTP:
    """A plain SMTP client; `transcript` has the dialogue."""

    def __init__(self, port, helo="client.example.org", timeout=DEFAULT_TIMEOUT, source=None):
        self.socket = connect(port, timeout, source)
        self.reader = self.socket.makefile("rb")
        self.transcript = []
        try:
            self.expect(220)
            if helo:
                self.command(f"EHLO {helo}", 250)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.reader.close()
        self.socket.close()

    def send(self, data):
        """Sends bytes unchanged, and a str as a line."""
        if isinstance(data, str):
            self.transcript.append(f"C: {data}")
            data = data.encode() + b"\r\n"
        else:
            self.transcript.append(f"C: {data!r}")
        self.socket.sendall(data)

    def reply(self):
        """Reads a reply; returns its code and its text, with newlines between lines."""
        texts = []
        while True:
            line = self.reader.readline().decode("utf-8", "replace").rstrip("\r\n")
            self.transcript.append(f"S: {line}")
            if not re.match(r"\d{3}[ -]|\d{3}$", line):
                raise AssertionError("not a reply:\n" + "\n".join(self.transcript))
            texts.append(line[4:])
            if line[3:4] != "-":
                return int(line[:3]), "\n".join(texts)

    def expect(self, *codes):
        """Reads a reply, which must have one of these codes; returns its code and text."""
        code, text = self.reply()
        if codes and code not in codes:
            raise AssertionError(f"expected {codes}:\n" + "\n".join(self.transcript))
        return code, text

    def command(self, line, *codes):
        self.send(line)
        return self.expect(*codes)

    def mail(self, sender, recipients, content="Subject: test\n\nbody\n"):
        """Sends a message to the accepted recipients.

        Returns the reply to each RCPT, to DATA and to the end of data, as far as the dialogue went, as a list of
        (code, text).
        """
        self.command(f"MAIL FROM:<{sender}>", 250)
        replies = [self.command(f"RCPT TO:<{recipient}>") for recipient in recipients]
        if any(code == 250 for code, _ in replies):
            replies.append(self.command("DATA"))
            if replies[-1][0] == 354:
                body = re.sub(rb"(?m)^\.", b"..", content.encode()).replace(b"\n", b"\r\n")
                self.socket.sendall(body + b".\r\n")
                replies.append(self.expect())
        if replies[-1][0] >= 400:
            self.command("RSET", 250)
        return replies
