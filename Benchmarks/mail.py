# SPDX-License-Identifier: Apache-2.0
"""Shared by the benchmarks with mail: messages, tables, `weir serve`, smtp-source."""
import json
import os
import pathlib
import platform
import random
import shlex
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("WEIR_BINARY", ROOT / ".build" / "release" / "weir")
sys.path.insert(0, str(ROOT / "Benchmarks" / "rules"))
import corpus  # noqa: E402


def free_port():
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def wait_for(port, process=None):
    """Waits until something listens on the port; fails if the process that should has ended."""
    for _ in range(1000):
        if process and process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with status {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    sys.exit(f"nothing listens on {port}")


def message(size):
    """A plain message of `size` bytes that no rule matches."""
    words = random.Random(7)
    lines = ["Received: from client.example.org (client.example.org [192.0.2.1])", "\tby mx.example.org; Mon, 1 Jun 2026 10:00:00 +0000",
             "From: Alice <alice@example.org>", "To: Bob <bob@example.com>", "Subject: minutes of the meeting", "MIME-Version: 1.0",
             "Content-Type: text/plain; charset=utf-8", "Message-ID: <1@example.org>", ""]
    text = "\n".join(lines) + "\n"
    while len(text) < size:
        line = ""
        while len(line) < 60:
            line += words.choice(corpus.WORDS) + " "
        text += line.strip() + "\n"
    return text[:size - 1] + "\n"


def tables(directory, count):
    """Writes `header_checks` and `body_checks` with `count` rules each, none of which matches."""
    files = []
    for kind, patterns in (("header", corpus.HEADER), ("body", corpus.BODY)):
        table = directory / f"{kind}-{count}.pcre"
        table.write_text("".join(f"~{pattern}~ REJECT\n" for pattern, _ in corpus.rules(patterns, count)))
        table.chmod(0o644)
        files.append(f"pcre:{table}")
    return files


class Weir:
    """`weir serve` with `count` header and body rules and the listeners of `listen`."""

    def __init__(self, directory, count, listen, ready, limits=()):
        config = {
            "listen": {"policy": [f"unix:{directory}/policy{count}"], "admin": f"unix:{directory}/admin{count}", **listen},
            "ledger": {"store": f"sqlite:{directory}/ledger{count}.sqlite"}, "filter": {"spool": str(directory)},
            "checks": {"cache": f"{directory}/cache", "header": [], "body": []}, "limits": list(limits),
        }
        if count:
            header, body = tables(directory, count)
            config["checks"].update(header=[header], body=[body])
        file = directory / f"weir{count}.yaml"
        file.write_text(json.dumps(config))
        # A caller may have chosen another one after the import.
        binary = os.environ.get("WEIR_BINARY", BINARY)
        self.log = open(directory / f"log{count}", "w")
        self.process = subprocess.Popen([binary, "serve", "--config", file], stdout=self.log, stderr=self.log)
        try:
            wait_for(ready, self.process)
        except BaseException:
            self.process.kill()
            self.process.wait(20)
            print(pathlib.Path(self.log.name).read_text(), file=sys.stderr)
            raise

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


def source(port, file, sessions, kept, count):
    command = ["/usr/sbin/smtp-source", *(["-d"] if kept else []), "-s", str(sessions), "-m", str(count), "-F", file, "-M", "client.example.org",
               "-f", "alice@example.org", "-t", "bob@example.com", f"127.0.0.1:{port}"]
    start = time.monotonic()
    subprocess.run(command, check=True, timeout=120, stdin=subprocess.DEVNULL)
    return count / (time.monotonic() - start)


def cpu_seconds(pid):
    # The clock that clock_getcpuclockid(3) gives. It counts nanoseconds; /proc/PID/stat counts hundredths of a second.
    return time.clock_gettime(~pid << 3 | 2)


def command():
    """The command of the running benchmark, without folders."""
    script = pathlib.Path(sys.argv[0]).resolve().relative_to(ROOT)
    return shlex.join([str(script), *(argument.rpartition("/")[2] or argument for argument in sys.argv[1:])])


def machine():
    """The machine and the build, for a report."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    binary = os.environ.get("WEIR_BINARY", BINARY)
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    commit = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=60).stdout.strip()
    return f"{os.cpu_count()} cores of {cpu}, Linux {platform.release()}, {version} ({commit or 'unknown'})"
