# SPDX-License-Identifier: Apache-2.0
"""What the process gives up: users, privileges, files, ports and system calls. Each promise is broken on purpose."""
import json
import os
import pathlib
import pwd
import signal
import socket
import stat
import subprocess
import sys
import unittest

from filtering import FilterService, NextHop, dialogue
from postfix import DEFAULT_TIMEOUT, MASTER, NEEDS_ROOT, SMTP, accepts, children, free_port, is_running, wait_until
from weir import BINARY, ENVIRONMENT, USER, WeirService, weir

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["2/1h"], "over": "DEFER later"}
SERVING = {key: value for key, value in ENVIRONMENT.items() if key != "WEIR_REFUSED_CALL"}
ATTEMPTS = [
    "read /etc/shadow", "read the memory of the parent process", "create a file in /var/tmp", "connect to port 22",
    "connect to port 22 with TCP Fast Open", "send a datagram to port 22", "listen on a new socket",
    "open a raw socket", "start a process", "execute /bin/true", "trace the parent process",
    "send a signal to the parent process", "map memory that is writable and executable",
    "make written memory executable", "open a process by pidfd_open(2)", "become root"]
# Makes system calls fail as an old kernel or a container does: their numbers, and then a command.
DENY = """
import ctypes, os, struct, sys
calls = [int(word) for word in sys.argv[1].split(",")]
program = [(0x20, 0, 0, 0)] + [step for call in calls for step in ((0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | 38))] + [(0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
libc = ctypes.CDLL(None, use_errno=True)
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter) == 0, ctypes.get_errno()
os.execv(sys.argv[2], sys.argv[2:])
"""
LANDLOCK = 444
SECCOMP = {"x86_64": 317, "aarch64": 277}[os.uname().machine]


def status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def examine(service, *arguments):
    """The output of `weir doctor` for the service, with an idle Postfix."""
    (service.directory / "main.cf").write_text("compatibility_level = 3.6\n")
    (service.directory / "master.cf").write_text(MASTER)
    return weir("doctor", "--config", service.config_file, "--postfix", service.directory, *arguments, check=False).stdout


class Promises(unittest.TestCase):
    def attempt(self, environment=SERVING, **config):
        service = WeirService(limits=[LIMIT], **config)
        self.addCleanup(service.__exit__)
        service.configure()
        return subprocess.run(
            [BINARY, "serve", "--config", service.config_file, "--try-sandbox"], env=environment, capture_output=True,
            text=True, timeout=DEFAULT_TIMEOUT)

    def assert_all_are_refused(self, result):
        lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
        self.assertEqual(list(lines), ATTEMPTS, result.stderr)
        for action, outcome in lines.items():
            # As a kernel without the call. Libraries then use an older one.
            reason = "Function not implemented" if "pidfd" in action else "(Permission denied|Operation not permitted)"
            self.assertRegex(outcome, f"^refused, {reason}$", action)
        self.assertEqual(result.returncode, 0)

    def test_each_is_refused_and_logged(self):
        result = self.attempt()
        self.assert_all_are_refused(result)
        # Each system call has one line, though two attempts made the one that starts a process.
        logged = [line for line in result.stderr.splitlines() if "refused a system call that Weir does not make" in line]
        self.assertEqual(len(logged), len(set(line.split("]: ")[1] for line in logged)))
        self.assertGreaterEqual(len(logged), 7)
        # Nobody should report them.
        self.assertEqual([line for line in logged if ": expected: refused" not in line], [])

    def test_next_hops_open_no_other_way(self):
        """A service that connects to port 25 needs sockets of the Internet, but no resolver."""
        for host in ("127.0.0.1", "localhost"):
            with self.subTest(host):
                self.assert_all_are_refused(self.attempt(
                    listen={"filter": [{"listen": f"inet:127.0.0.1:{free_port()}", "next_hop": f"inet:{host}:25"}]}))

    def test_the_attempts_would_succeed(self):
        """As root without the sandbox, where a refusal would not come from it."""
        result = self.attempt(sandbox="none")
        self.assertEqual(result.returncode, 1)
        allowed = [line.split(": ")[0] for line in result.stdout.splitlines() if line.endswith(": ALLOWED")]
        self.assertIn("start a process", allowed)
        self.assertIn("execute /bin/true", allowed)
        if os.geteuid() == 0:
            self.assertEqual(allowed, ATTEMPTS)

    def test_under_test_a_refusal_ends_the_process(self):
        result = self.attempt(ENVIRONMENT)
        self.assertEqual(result.returncode, -signal.SIGSYS, result.stdout)

    def test_closed_standard_streams(self):
        """No file or socket takes their place, which programs would inherit."""
        service = WeirService(limits=[LIMIT], log={"to": "file:/dev/null"})
        service.wrapper = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
        with service:
            starter = children(service.pid)[0]
            for process in (service.pid, starter):
                for descriptor in range(3):
                    self.assertEqual(os.readlink(f"/proc/{process}/fd/{descriptor}"), "/dev/null")
            service.kill()
            wait_until(lambda: not is_running(starter), "the starter has ended")

    def test_of_a_running_service(self):
        with WeirService(limits=[LIMIT]) as service:
            fields = status(service.pid)
            self.assertEqual((fields["NoNewPrivs"], fields["Seccomp"]), ("1", "2"))
            for thread in pathlib.Path(f"/proc/{service.pid}/task").iterdir():
                self.assertEqual(status(thread.name)["Seccomp"], "2")
            service.wait_logged(f"sandbox: runs as {USER}; no new privileges, Landlock ")


class Kernels(unittest.TestCase):
    """Kernels and containers without one of the restrictions."""

    def service(self, calls, **config):
        service = WeirService(limits=[LIMIT], **config)
        self.addCleanup(service.__exit__)
        service.wrapper = [sys.executable, "-c", DENY, ",".join(map(str, calls))]
        return service

    def test_the_rest_holds_and_the_log_says_so(self):
        for calls, text in (
                ([LANDLOCK], "no new privileges, a filter of system calls, no Landlock: Function not implemented"),
                ([SECCOMP], "a filter of system calls, no filter of system calls: Function not implemented")):
            with self.subTest(calls):
                service = self.service(calls)
                service.start()
                service.wait_logged(text)
                self.assertEqual(service.ask(sender="a@example.org"), "DUNNO")
                shown = json.loads(examine(service, "--json"))[-1]
                self.assertEqual(shown["protections"]["noNewPrivileges"], True)
                self.assertIn("sandbox-incomplete", [finding["kind"] for finding in shown["findings"]])
                service.stop()

    def test_required_restrictions(self):
        for calls in ([LANDLOCK], [SECCOMP]):
            with self.subTest(calls):
                service = self.service(calls, sandbox="required")
                service.start(wait=False)
                self.assertEqual(service.process.wait(DEFAULT_TIMEOUT), 78, service.log())
                service.wait_logged("Function not implemented")


class Doctor(unittest.TestCase):
    def test_it_says_what_holds(self):
        with WeirService(limits=[LIMIT]) as service:
            text = examine(service)
            self.assertRegex(
                text, rf"\nweir serve: runs as {USER}; no new privileges, Landlock \d+, a filter of system calls\n")
            self.assertEqual("[runs-as-root]" in text, USER == "root")


@unittest.skipUnless(os.geteuid() == 0, NEEDS_ROOT)
class Root(unittest.TestCase):
    """A start as root."""

    def service(self, **config):
        service = WeirService(limits=[LIMIT], **config)
        self.addCleanup(service.__exit__)
        return service

    def test_it_needs_a_user(self):
        service = self.service(user="no-such-account")
        service.start(wait=False)
        self.assertEqual(service.process.wait(DEFAULT_TIMEOUT), 78)
        service.wait_logged("the account 'no-such-account' (user) does not exist")
        self.assertFalse(service.ledger.exists())

    def test_a_socket_of_a_former_user_that_it_cannot_remove(self):
        service = self.service(user="nobody")
        with socket.socket(socket.AF_UNIX) as former:
            former.bind(str(service.policy_socket))
        service.start(wait=False)
        self.assertEqual(service.process.wait(DEFAULT_TIMEOUT), 69)
        service.wait_logged(
            f"can't listen on unix:{service.policy_socket} (listen.policy): can't remove the socket that a former process "
            "has left there: Permission denied")

    def test_it_stays_root_where_the_default_account_is_of_no_use(self):
        service = self.service()
        del service.config["user"]
        service.start()
        # The directory belongs to root.
        self.assertRegex(
            service.log(), r"warning: running as root: the account 'weir' \(user\) (does not exist|can't write to )")
        self.assertEqual(service.ask(sender="alice@example.org"), "DUNNO")

    def test_it_becomes_the_user_and_gives_it_the_files(self):
        nobody = pwd.getpwnam("nobody")
        port = next(number for number in range(1023, 600, -1) if not accepts(number))
        service = self.service(user="nobody")
        data, sockets = service.directory / "data", service.directory / "sockets"
        service.admin_socket = sockets / "admin"
        service.configure(
            listen={"policy": [f"inet:127.0.0.1:{service.port}", f"inet:127.0.0.1:{port}"],
                    "admin": f"unix:{service.admin_socket}"},
            ledger={"store": f"sqlite:{data}/ledger.sqlite"}, log={"to": f"file:{service.directory}/own-log"})
        service.start()
        fields = status(service.pid)
        self.assertEqual(set(fields["Uid"].split()), {str(nobody.pw_uid)})
        self.assertEqual(set(fields["Gid"].split()), {str(nobody.pw_gid)})
        self.assertEqual({fields[name] for name in ("CapPrm", "CapEff", "CapAmb")}, {"0" * 16})
        for starter in children(service.pid):
            self.assertEqual(status(starter)["Uid"].split()[1], str(nobody.pw_uid))
        with service.client(port) as client:
            self.assertEqual(client.ask(sender="a@example.org"), "DUNNO")
        for path, mode in ((data, 0o750), (sockets, 0o755), (data / "ledger.sqlite", 0o600), (service.directory / "own-log", 0o640)):
            found = path.stat()
            self.assertEqual((found.st_uid, stat.S_IMODE(found.st_mode)), (nobody.pw_uid, mode), path)
        self.assertIn("sandbox: runs as nobody;", (service.directory / "own-log").read_text())
        self.assertEqual(service.stop(), 0)

    def test_no_capability_is_left(self):
        """Also where the kernel keeps them when root becomes another user."""
        service = self.service(user="nobody", log={"to": "file:/dev/null"})
        service.directory.chmod(0o777)
        service.wrapper = ["setpriv", "--securebits", "+no_setuid_fixup"]
        service.start()
        for process in (service.pid, *children(service.pid)):
            fields = status(process)
            self.assertEqual({fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}, {"0" * 16})

    def test_the_account_cannot_lead_root_elsewhere(self):
        """Root creates a missing log file for the account, but not where a symbolic link of the account leads."""
        nobody = pwd.getpwnam("nobody")
        service = self.service(user="nobody")
        own, other = service.directory / "own", service.directory / "other"
        own.mkdir()
        other.mkdir()
        os.chown(own, nobody.pw_uid, nobody.pw_gid)
        (own / "logs").symlink_to(other)
        os.chown(own / "logs", nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        service.admin_socket = own / "admin"
        service.configure(
            listen={"policy": [f"inet:127.0.0.1:{service.port}"], "admin": f"unix:{service.admin_socket}"},
            ledger={"store": f"sqlite:{own}/ledger.sqlite"}, log={"to": f"file:{own}/logs/weir.log"})
        service.start()
        self.assertEqual(list(other.iterdir()), [])
        service.wait_logged("can't write to the log")

    def test_groups_of_the_account_count(self):
        """The default account can write where one of its groups can."""
        service = self.service()
        del service.config["user"]
        accounts = service.directory / "accounts"
        accounts.mkdir()
        for name, line in (("passwd", "weir:x:64001:64001::/:/bin/false"), ("group", "weir:x:64001:\nmail-sockets:x:64002:weir")):
            (accounts / name).write_text(pathlib.Path("/etc", name).read_text() + line + "\n")
        sockets = service.directory / "sockets"
        sockets.mkdir()
        os.chown(sockets, 0, 64002)
        sockets.chmod(0o770)
        data = service.directory / "data"
        service.admin_socket = sockets / "admin"
        service.configure(
            listen={"policy": [f"inet:127.0.0.1:{service.port}"], "admin": f"unix:{service.admin_socket}"},
            ledger={"store": f"sqlite:{data}/ledger.sqlite"})
        service.wrapper = ["unshare", "-m", "sh", "-c", f"""
            for file in passwd group; do mount --bind {accounts}/$file /etc/$file || exit; done; exec "$@" """, "sh"]
        service.start()
        self.assertEqual(status(service.pid)["Uid"].split()[0], "64001", service.log())


class Reload(unittest.TestCase):
    def test_a_directory_that_was_replaced_needs_a_restart(self):
        outside = WeirService()
        self.addCleanup(outside.__exit__)
        with WeirService(limits=[LIMIT]) as service:
            tables = outside.directory / "tables"
            tables.mkdir()
            (tables / "senders").write_text("a@example.org 1\n")
            service.configure(limits=[{**LIMIT, "exempt": f"texthash:{tables}/senders"}])
            service.restart()
            tables.rename(outside.directory / "former")
            tables.mkdir()
            (tables / "senders").write_text("b@example.org 1\n")
            service.reload()
            service.wait_logged(f"{tables} was replaced after the start, so Weir may not use it: restart the service")
            service.wait_logged("was rejected; the service keeps its current configuration")
            service.restart()
            service.reload()
            service.wait_logged("reloaded: 1 limit")
            self.assertEqual(service.log().count("was replaced"), 1)

    def test_a_configuration_that_cannot_be_read(self):
        """The log names no directory that nobody configured."""
        with WeirService(limits=[LIMIT]) as service:
            service.config_file.unlink()
            service.reload()
            service.wait_logged("was rejected; the service keeps its current configuration")
            self.assertNotIn("out of reach", service.log())

    def test_a_configuration_that_leads_elsewhere_needs_a_restart(self):
        outside = WeirService()
        self.addCleanup(outside.__exit__)
        with WeirService(limits=[LIMIT]) as service:
            service.config_file.rename(outside.config_file)
            service.config_file.symlink_to(outside.config_file)
            service.reload()
            service.wait_logged("weir.yaml: can't be read: Permission denied")
            service.wait_logged(f"{outside.directory} is out of reach: ")
            service.wait_logged("was rejected; the service keeps its current configuration")
            service.restart()
            service.reload()
            service.wait_logged("reloaded: 1 limit")

    def test_a_directory_that_was_not_named_needs_a_restart(self):
        outside = WeirService()
        self.addCleanup(outside.__exit__)
        with WeirService(limits=[LIMIT]) as service:
            service.configure(log={"to": f"file:{outside.directory}/log"})
            service.reload()
            service.wait_logged(f"{outside.directory} is out of reach: ")
            service.wait_logged("was rejected; the service keeps its current configuration")
            self.assertEqual(service.ask(sender="a@example.org"), "DUNNO")
            table = outside.directory / "senders"
            table.write_text("a@example.org 1\n")
            service.config.pop("log")
            service.configure(limits=[{**LIMIT, "exempt": f"texthash:{table}"}])
            service.reload()
            rejected = "was rejected; the service keeps its current configuration"
            wait_until(lambda: service.log().count(rejected) == 2, service.log)
            service.restart()

    def test_tables_in_the_same_directory_may_be_new(self):
        with WeirService(limits=[LIMIT]) as service:
            table = service.directory / "senders"
            table.write_text("a@example.org 1\n")
            service.configure(limits=[{**LIMIT, "name": "listed", "exempt": f"texthash:{table}"}])
            service.reload()
            service.wait_logged("reloaded: 1 limit (listed)")


class NextHops(unittest.TestCase):
    def test_a_spool_that_is_made_later(self):
        """As every directory that is missing at the start."""
        messages = []
        with NextHop(dialogue({}, messages)) as hop:
            service = FilterService(hop.port)
            spool = service.directory / "spools" / "weir"
            service.config["filter"] = {"spool": str(spool)}
            with service, SMTP(service.filter_port) as client:
                spool.mkdir(parents=True)
                client.mail("a@example.org", ["b@example.com"], "Subject: x\n\n" + ("x" * 70 + "\n") * 100_000)
        self.assertEqual(len(messages), 1)

    def test_localhost_needs_no_resolver(self):
        messages = []
        with NextHop(dialogue({}, messages)) as hop:
            service = FilterService(hop.port)
            service.config["listen"]["filter"][0]["next_hop"] = f"inet:localhost:{hop.port}"
            with service, SMTP(service.filter_port) as client:
                client.mail("a@example.org", ["b@example.com"], "Subject: x\n\nx\n")
        self.assertEqual(len(messages), 1)


class Programs(unittest.TestCase):
    """The process that starts programs for alerts."""

    def service(self, script):
        service = WeirService(limits=[LIMIT])
        program = service.directory / "alert"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        service.config["alerts"] = {"command": str(program), "tiers": ["over"], "interval": "1s"}
        return service

    def exceed(self, service, sender="a@example.org"):
        for _ in range(3):
            service.ask(sender=sender)

    def test_they_are_not_restricted_and_leave_no_zombies(self):
        service = self.service('cat > /dev/null\ngrep -E "^(NoNewPrivs|Seccomp):" /proc/self/status > "$0.out.$$"\nmv "$0.out.$$" "$0.out"\n')
        with service:
            self.exceed(service)
            out = service.directory / "alert.out"
            wait_until(out.exists, service.log)
            self.assertEqual(out.read_text().split(), ["NoNewPrivs:", status(os.getpid())["NoNewPrivs"], "Seccomp:", status(os.getpid())["Seccomp"]])
            starter = children(service.pid)[0]
            wait_until(lambda: children(starter) == [], "the program was reaped")
            self.assertEqual(children(service.pid), [starter])

    def test_they_end_with_the_service(self):
        service = self.service('echo $$ > "$0.pid.new"\nmv "$0.pid.new" "$0.pid"\nexec sleep 600\n')
        with service:
            self.exceed(service)
            file = service.directory / "alert.pid"
            wait_until(file.exists, service.log)
            starter = children(service.pid)[0]
            service.kill()
            wait_until(lambda: not is_running(starter) and not is_running(int(file.read_text())), "both have ended")

    def test_only_those_of_the_start_run(self):
        with self.service("cat > /dev/null\n") as service:
            service.configure(alerts={"command": "/bin/true"})
            service.reload()
            service.wait_logged("/bin/true is out of reach: ")
            service.wait_logged("was rejected; the service keeps its current configuration")

    def test_the_service_outlives_the_starter(self):
        with self.service("cat > /dev/null\n") as service:
            starter = children(service.pid)[0]
            os.kill(starter, signal.SIGKILL)
            wait_until(lambda: children(service.pid) == [], "it is gone, and no zombie")
            self.exceed(service)
            service.wait_logged("the process that starts programs has ended; restart the service", timeout=120)
            self.assertEqual(service.ask(sender="b@example.org"), "DUNNO")
