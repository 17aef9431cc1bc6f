# SPDX-License-Identifier: Apache-2.0
"""What the engine of shared limits can do wrong. Each fault has one log line that says what to do. Mail goes on by
shares meanwhile, and the engine is used again as soon as it works."""
import contextlib
import json
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from postfix import DEFAULT_TIMEOUT, free_port, wait_until
from test_alerts import Hook
from test_shared import FAILED, HOSTS, IN_USE, MOST, SHARE, Engine, admitted, blocked, host
from weir import UnixConnection, get, samples

# Seconds by which the wall clocks of the hosts are wrong: more than a year.
SHIFTS = [0, 400 * 86_400, -400 * 86_400]
INFO = b"run_id:1\r\nredis_version:7.0.0\r\nrole:master\r\n"
HELLO = b"*3\r\n$1\r\n1\r\n$1\r\nx\r\n$0\r\n\r\n"


def bulk(text):
    return b"$%d\r\n%s\r\n" % (len(text), text)


class FakeEngine:
    """Answers each command as it is told: by name, or `*` for any other. FCALL is named by its function."""

    def __init__(self, **answers):
        self.answers = {
            "SELECT": b"+OK\r\n", "INFO": bulk(INFO), "FUNCTION": b"+weir\r\n", "hello": HELLO, "*": b"", **answers}
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.server.accept()[0]
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            while True:
                words = [stream.read(int(stream.readline()[1:]) + 2)[:-2]
                         for _ in range(int(stream.readline()[1:]))]
                name = words[0].decode()
                if name == "FCALL":
                    name = words[1].decode().rpartition("_")[2]
                client.sendall(self.answers.get(name, self.answers["*"]))


def words(*texts):
    return b"*%d\r\n%s" % (len(texts), b"".join(bulk(text) for text in texts))


def use_all(services, key, used=0):
    """Uses all that is left of the limit, and checks that it is no more."""
    total = [used]

    def is_reached():
        # What a host was granted is free for others a while after it was not spent.
        total.append(sum(admitted(service, key, 5) for service in services))
        return sum(total) >= MOST

    wait_until(is_reached, lambda: f"{total}")
    if sum(total) + sum(admitted(service, key, 3) for service in services) != MOST:
        raise AssertionError(f"more than {MOST}: {total}")


class RunningTests(unittest.TestCase):
    """Faults of an engine that was in use."""

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.engine = cls.stack.enter_context(Engine())
        cls.services = [cls.stack.enter_context(host(cls.engine.port, name, HOSTS)) for name in HOSTS]
        for service in cls.services:
            service.wait_logged(IN_USE)

    def counts(self, text):
        return [service.log().count(text) for service in self.services]

    def wait_for_more(self, text, before):
        wait_until(lambda: all(now > then for now, then in zip(self.counts(text), before)),
                   lambda: "\n".join(service.log() for service in self.services))

    def check(self, key, line, begin, end, faults=1):
        """`begin` brings the fault, or as many as `faults`, and `end` removes it."""
        failed, in_use, lines = self.counts(FAILED), self.counts(IN_USE), self.counts(line)
        begin()
        self.wait_for_more(line, lines)
        self.assertEqual([admitted(service, key, 10) for service in self.services], [SHARE] * 3)
        end()
        self.wait_for_more(IN_USE, in_use)
        use_all(self.services, key, 3 * SHARE)
        self.assertEqual([now - then for now, then in zip(self.counts(FAILED), failed)], [faults] * 3)

    def command(self, *words):
        self.assertEqual(self.engine.command(*words), "OK")

    def set(self, name, value):
        self.command("CONFIG", "SET", name, value)

    def test_memory_is_full(self):
        self.check("full", "its memory is full: raise maxmemory", lambda: self.set("maxmemory", "1"),
                   lambda: self.set("maxmemory", "0"))

    def test_it_becomes_a_replica(self):
        self.check("replica", "it is a read-only replica", lambda: self.command("REPLICAOF", "127.0.0.1", "1"),
                   lambda: self.command("REPLICAOF", "NO", "ONE"))

    def test_it_loses_its_replicas(self):
        self.check("alone", "it takes no writes without replicas",
                   lambda: self.set("min-replicas-to-write", "1"), lambda: self.set("min-replicas-to-write", "0"))

    def test_it_requires_a_password(self):
        def begin():
            self.set("requirepass", "secret")
            # Connections that are open stay logged in. That they end is a fault of its own.
            self.engine.command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal", password="secret")

        def end():
            self.assertEqual(self.engine.command("CONFIG", "SET", "requirepass", "", password="secret"), "OK")

        self.check("password", "it requires a password: set shared.password_file", begin, end, faults=2)

    def test_it_is_down(self):
        self.check("down", FAILED, self.engine.kill, self.engine.start)

    def test_its_functions_are_lost(self):
        """The hosts load them again: the next call may work already."""
        in_use, lost = self.counts(IN_USE), self.counts("it has lost Weir's functions")
        self.command("FUNCTION", "FLUSH")
        wait_until(lambda: self.counts("it has lost Weir's functions") != lost, "a host has noticed it")
        wait_until(lambda: sum(self.counts(IN_USE)) - sum(in_use)
                   == sum(self.counts("it has lost Weir's functions")) - sum(lost), "all use it again")
        use_all(self.services, "functions")

    def check_forgotten(self, key, forget):
        """The engine loses what the hosts have told it. They tell it again, and no more than the limit is admitted."""
        used = sum(admitted(service, key, 12) for service in self.services)
        forget()
        use_all(self.services, key, used)

    def test_it_is_flushed(self):
        self.check_forgotten("flushed", lambda: self.command("FLUSHALL"))

    def test_it_restarts_from_an_old_dump(self):
        self.command("SAVE")

        def restart():
            self.engine.kill()
            self.engine.start()

        self.check_forgotten("dump", restart)

    def test_keys_are_evicted(self):
        """Of a server that evicts keys, the hosts can only warn."""
        with Engine("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as engine, \
                host(engine.port, "mx1", ["mx1"]) as service:
            service.wait_logged(IN_USE)
            service.wait_logged("set maxmemory-policy noeviction")
            self.assertEqual(engine.command("DEL", "{weir:shared}:state"), "1")
            use_all([service], "a")
            self.assertEqual(service.log().count("noeviction"), 1)


class AnswerTests(unittest.TestCase):
    """Answers that are odd. The engine answers nothing else until it is used."""

    def check(self, text, engine, absent=None, **shared):
        with self.subTest(text=text), engine, host(engine.port, "mx1", ["mx1"], **shared) as service:
            service.wait_logged(text)
            self.assertEqual(service.log().count(FAILED), 1, service.log())
            # It is new, and has no share yet.
            self.assertEqual(admitted(service, "a", 1), 0)
            self.assertTrue(service.is_running)
            if absent:
                self.assertNotIn(absent, service.log())

    def test_errors(self):
        for error, text in [
            ("LOADING Redis is loading the dataset in memory", "it is still loading its data"),
            ("READONLY You can't write against a read only replica.", "it is a read-only replica"),
            ("MOVED 5 192.0.2.1:6379", "must be the node of the cluster"),
            ("NOSCRIPT No matching script.", "it has lost Weir's functions"),
            ("MISCONF Redis is configured to save RDB snapshots", "it can't save its data"),
            ("BUSY Redis is busy running a script.", "SCRIPT KILL or FUNCTION KILL"),
            ("WEIRD \x1b[2J\u202e new error", "it answers 'WEIRD  [2J  new error'"),
        ]:
            self.check(text, FakeEngine(exchange=f"-{error}\r\n".encode()))

    def test_answers_that_are_none_of_the_library(self):
        for exchange in [
            b"+OK\r\n", b":1\r\n", b"*0\r\n", b"*-1\r\n", words(b"ok"), words(b"ok", b"1", b"", b"0", b"-1"),
            words(b"ok", b"x", b"", b"0", b"0"), words(b"ok", b"1", b"", b"0", b"0", b"1"),
            words(*[b"ok", b"1", b"", b"0", b"0"] * 100), words(b"ok", b"1", bytes(70_000), b"0", b"0"),
            b"*1\r\n" * 20 + b":1\r\n", b"*2\r\n$2\r\nok\r\n:1\r\n",
        ]:
            self.check("is it Redis?", FakeEngine(exchange=exchange))

    def test_servers_of_other_protocols(self):
        for answer in [
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", b"ERROR\r\n", b"220 mail.example.org ESMTP\r\n",
            bytes(1000),
        ]:
            self.check("is it Redis?", FakeEngine(SELECT=answer))

    def test_an_answer_of_half_a_gigabyte(self):
        self.check("is it Redis?", FakeEngine(INFO=b"$536870912\r\n" + bytes(8 << 20)))
        self.check("is it Redis?", FakeEngine(INFO=bulk(INFO + b"x:1\r\n" * 100_000)))

    def test_a_server_that_is_silent(self):
        for answers in [{"SELECT": b""}, {"exchange": b""}, {"exchange": b"*5\r\n$2\r\nok"}]:
            self.check("it has not answered for 1 s", FakeEngine(**answers))

    def test_a_server_that_repeats_the_password(self):
        error = b"-ERR unknown command 'AUTH', with args beginning with: 'secret'\r\n"
        self.check("it refuses the login", FakeEngine(AUTH=error), absent="secret", password="secret")
        # The connections on which hosts ask each other log in, too.
        engine = FakeEngine(AUTH=b"+OK\r\n", exchange=words(b"ok", b"1", b"", b"0", b"0"))
        with engine, host(engine.port, "mx1", ["mx1"], password="secret") as service:
            wait_until(lambda: "is in use" in service.log(), service.log)
            engine.answers["AUTH"] = error
            service.wait_logged("can't ask the other hosts: it refuses the login")
            self.assertNotIn("secret", service.log())

    def test_the_engine_takes_the_place_of_a_wrong_server(self):
        with FakeEngine(SELECT=b"HTTP/1.1 400 Bad Request\r\n\r\n") as fake, \
                host(fake.port, "mx1", ["mx1"]) as service:
            service.wait_logged("is it Redis?")
            fake.__exit__()
            with Engine(port=fake.port):
                service.wait_logged(IN_USE)
                self.assertEqual(admitted(service, "a", MOST + 5), MOST)


class OwnFaultTests(unittest.TestCase):
    def test_a_host_whose_ledger_is_not_saved_leaves_the_engine(self):
        with Engine() as engine, host(engine.port, "mx1", ["mx1"]) as service:
            def up():
                return samples(get(UnixConnection(service.admin_socket), "/metrics")[1])["weir_shared_engine_up"]

            service.wait_logged(IN_USE)
            wait_until(lambda: up() == 1, service.log)
            aside = service.directory / "aside"
            service.ledger.rename(aside)
            service.wait_logged(f":{engine.port}/0, as its ledger is not saved; each host goes on with its share")
            self.assertEqual(up(), 0)
            in_use = service.log().count(IN_USE)
            aside.rename(service.ledger)
            wait_until(lambda: service.log().count(IN_USE) > in_use, service.log)
            self.assertEqual(up(), 1)


class StartTests(unittest.TestCase):
    def test_it_is_down_at_the_start(self):
        with host(free_port(), "mx1", ["mx1"]) as service:
            service.wait_logged("is it running, and may Weir connect")
            with Engine(port=int(re.search(r":(\d+)/0", service.config["shared"]["engine"]).group(1))):
                service.wait_logged(IN_USE)
                self.assertEqual(admitted(service, "a", MOST + 5), MOST)
                self.assertEqual(service.log().count(FAILED), 1)

    def test_the_recovery_is_told_once_all_hosts_are_there(self):
        with Hook() as hook, contextlib.ExitStack() as stack:
            one = stack.enter_context(host(free_port(), "mx1", HOSTS[:2]))
            one.configure(alerts={"webhook": hook.url, "interval": "1s"})
            one.restart()

            def tiers():
                return [alert["tier"] for alert in hook.alerts if alert["subject"] == "the engine of shared limits"]

            wait_until(lambda: tiers() == ["trouble"], lambda: f"{hook.alerts} {one.log()}")
            port = int(re.search(r":(\d+)/0", one.config["shared"]["engine"]).group(1))
            stack.enter_context(Engine(port=port))
            one.wait_logged("have connected to it yet")
            stack.enter_context(host(port, "mx2", HOSTS[:2]))
            one.wait_logged(IN_USE)
            wait_until(lambda: tiers() == ["trouble", "recovery"], lambda: f"{hook.alerts} {one.log()}")

    def test_a_host_is_added(self):
        """One host after the other gets the new list. No more than the limit is admitted at any time."""
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(Engine())
            one, two = [stack.enter_context(host(engine.port, name, HOSTS[:2])) for name in HOSTS[:2]]
            for service in one, two:
                service.wait_logged(IN_USE)
            used = admitted(one, "a", 10) + admitted(two, "a", 10)
            three = stack.enter_context(host(engine.port, "mx3", HOSTS))
            three.wait_logged("the hosts have different limits, shares or lists of hosts")
            for service in one, two:
                used += sum(admitted(each, "a", 4) for each in (one, two, three))
                service.configure(shared={**service.config["shared"], "hosts": HOSTS})
                service.restart()
            # The new host gets units of the pool.
            wait_until(lambda: admitted(three, "b", 1) == 1, three.log)
            used += sum(admitted(each, "a", MOST) for each in (one, two, three))
            self.assertLessEqual(used, MOST)
            # The smaller shares hold, and the new host has none until the window has passed.
            self.assertGreaterEqual(used, MOST - 3 * 6)

    def test_clocks_a_year_apart(self):
        """What hosts tell each other has an age, and no time of a wall clock."""
        with contextlib.ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-clock-")))
            folder.chmod(0o755)
            source = pathlib.Path(__file__).parent / "shifted_clock.c"
            library = folder / "shifted_clock.so"
            subprocess.run(["clang", "-shared", "-fPIC", source, "-o", library], check=True, timeout=DEFAULT_TIMEOUT)
            engine = stack.enter_context(Engine())
            services = [host(engine.port, name, HOSTS) for name in HOSTS]
            for service, shift in zip(services, SHIFTS):
                service.environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(shift)}
                stack.enter_context(service)
            for service in services:
                service.wait_logged(IN_USE)
            days = {service.log()[:6] for service in services}
            self.assertEqual(len(days), 3, days)
            use_all(services, "a")
            for service in services:
                admitted(service, "b", 1)
            for service in services:
                service.limits("block", "b", "--for", "1h")
                wait_until(lambda: blocked(services, "b") == [True] * 3, "all have blocked the key")
                for other, shift in zip(services, SHIFTS):
                    [standing] = json.loads(other.limits("show", "b", "--json").stdout)
                    # By the clock of the host that is asked.
                    left = standing["blockedUntil"] - time.time() - shift
                    self.assertTrue(1800 < left < 3700, left)
                service.limits("unblock", "b")
                wait_until(lambda: blocked(services, "b") == [False] * 3, "all have unblocked the key")


if __name__ == "__main__":
    unittest.main()
