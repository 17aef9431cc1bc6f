# SPDX-License-Identifier: Apache-2.0
"""Several services hold one limit together, through a private redis-server on loopback."""
import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from postfix import DEFAULT_TIMEOUT, free_port, run, wait_until
from weir import WeirService

HOSTS = ["mx1", "mx2", "mx3"]
# Of 60 units, each of three hosts has a share of 4 (20 %). The pool is 48.
MOST, SHARE = 60, 4
# Long enough for a machine that is busy with other tests.
TIMEOUT = 5000
FAILED, IN_USE = "can't use the engine", "is in use: the limits hold over all hosts"


class Engine:
    """A redis-server without files."""

    def __init__(self, *arguments, port=None, address="127.0.0.1"):
        self.port = port or free_port()
        self.address = address
        self.arguments = arguments
        self.directory = tempfile.mkdtemp(prefix="weir-redis-")
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.directory)

    def start(self):
        self.process = subprocess.Popen(
            self.command_line(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.cli("PING").returncode == 0, "redis-server answers")

    def command_line(self):
        return ["redis-server", "--port", str(self.port), "--bind", self.address, "--save", "", "--dir", self.directory,
                *self.arguments]

    def kill(self):
        self.process.kill()
        self.process.wait(DEFAULT_TIMEOUT)

    def cli(self, *words):
        return run(["redis-cli", "-h", self.address, "-p", self.port, *words], check=False)

    def command(self, *words, password=None):
        return self.cli(*(["-a", password, "--no-auth-warning"] if password else []), *words).stdout.strip()


class Sentinel(Engine):
    """A server of Sentinel that watches the primary of a group."""

    def __init__(self, primary, *arguments):
        super().__init__(*arguments)
        self.primary = primary

    def command_line(self):
        file = pathlib.Path(self.directory) / "sentinel.conf"
        file.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
                        f"sentinel monitor group {self.primary} 2\nsentinel down-after-milliseconds group 1000\n"
                        "sentinel failover-timeout group 5000\n")
        return ["redis-server", file, "--sentinel", *self.arguments]


@contextlib.contextmanager
def answering(*answers):
    """A server that sends an answer to each thing that a client sends, and the last one at once without being asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client = server.accept()[0]
                    with client, contextlib.suppress(OSError):
                        for answer in answers:
                            client.recv(4096)
                            client.sendall(answer)
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def sentinel_group():
    """A primary and a replica on one port of two loopback addresses, and three Sentinels that watch them."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(Engine(port=port, address="127.0.0.2"))
        replica = stack.enter_context(Engine(
            "--replicaof", f"127.0.0.2 {port}", "--replica-announce-ip", "127.0.0.3", port=port, address="127.0.0.3"))
        sentinels = [stack.enter_context(Sentinel(f"127.0.0.2 {port}")) for _ in range(3)]
        wait_until(lambda: "state=online" in primary.command("INFO", "replication"), "the replica is there")
        wait_until(
            lambda: all("sentinels=3" in sentinel.command("INFO") and "slaves=1" in sentinel.command("INFO")
                        for sentinel in sentinels), "the Sentinels know each other")
        servers = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        yield primary, replica, sentinels, f"redis-sentinel://{servers}/group?port={port}"


def host(port, name, hosts, limit=None, **shared):
    """A service that shares a limit of MOST per user."""
    return WeirService(
        shared={
            "engine": f"redis://127.0.0.1:{port}/0", "name": name, "hosts": hosts, "share": 20, "timeout": TIMEOUT,
            **shared},
        limits=[{"name": "user", "key": "sasl_username", "rates": [f"{MOST}/1h"], **(limit or {})}])


def admitted(service, user, requests):
    """How many of the requests are admitted, one after the other."""
    with service.client() as client:
        return [client.ask(sasl_username=user) for _ in range(requests)].count("DUNNO")


def admitted_by_all(services, user, clients, requests):
    """How many are admitted where that many clients of each service send requests at once."""
    counts = []
    threads = [
        threading.Thread(target=lambda service=service: counts.append(admitted(service, user, requests)))
        for service in services for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEFAULT_TIMEOUT)
    return sum(counts)


def blocked(services, key):
    """On which of the services the key is blocked."""
    return [bool(json.loads(service.limits("show", key, "--json").stdout)[0].get("blockedUntil")) for service in services]


class AdministrationTests(unittest.TestCase):
    """What an administrator does on one host holds on all."""

    def services(self, stack, engine, limit=None):
        services = [stack.enter_context(host(engine.port, name, HOSTS, limit)) for name in HOSTS]
        for service in services:
            service.wait_logged(IN_USE)
            admitted(service, "a", 1)
        return services

    def test_changes_hold_everywhere(self):
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(Engine())
            one, two, three = services = self.services(stack, engine)
            answer = one.limits("block", "a", "--reason", "spam").stdout
            self.assertIn("the hosts that are connected get it within a second", answer)
            for service in services:
                service.wait_logged("on mx1: block a")
                service.wait_logged("spam")
            self.assertEqual([admitted(service, "a", 1) for service in services], [0, 0, 0])
            three.limits("unblock", "a")
            wait_until(lambda: blocked(services, "a") == [False] * 3, "all have unblocked the key")
            two.limits("raise", "a", f"{2 * MOST}/1h")
            for service in services:
                service.wait_logged("on mx2: raise a")
            count = admitted_by_all(services, "a", clients=4, requests=20)
            count += sum(admitted(service, "a", 20) for service in services)
            self.assertEqual(count, 2 * MOST - 3)
            one.limits("unraise", "a")
            two.limits("reset", "a")
            for service in services:
                service.wait_logged("on mx1: unraise a")
                service.wait_logged("on mx2: reset a")
            count = admitted_by_all(services, "a", clients=4, requests=20)
            count += sum(admitted(service, "a", 20) for service in services)
            self.assertEqual(count, MOST)

    def test_hosts_that_were_away_and_an_engine_that_forgets(self):
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(Engine())
            one, two, three = services = self.services(stack, engine)
            three.kill()
            one.limits("block", "a")
            wait_until(lambda: "can't be asked" not in one.limits("list").stdout, "the hosts can be asked")
            self.assertRegex(
                one.limits("block", "z", "--limit", "user").stdout,
                r"; user has not counted this key on this host: check the spelling; the hosts that are connected get it "
                r"within a second; no answer from .*mx3 \((never heard|last heard \d+s ago)\)\n$")
            two.wait_logged("on mx1: block a")
            engine.kill()
            two.wait_logged(FAILED)
            self.assertIn("when this host can use the engine", two.limits("raise", "a", "90/1h").stdout)
            engine.start()
            one.wait_logged("on mx2: raise a")
            three.start()
            three.wait_logged("on mx1: block a")
            three.wait_logged("on mx2: raise a")
            # The hosts tell a server that was flushed everything again, and carry nothing out twice.
            with socket.create_connection(("127.0.0.1", engine.port)) as client:
                client.sendall(b"FLUSHALL\r\n")
                self.assertTrue(client.recv(100).startswith(b"+OK"))
            three.limits("unblock", "a")
            wait_until(lambda: blocked(services, "a") == [False] * 3, "all have unblocked the key")
            for service in services:
                service.restart()
            self.assertEqual(blocked(services, "a"), [False] * 3)
            self.assertEqual(one.log().count("on mx1: block a"), 1)

    def test_a_block_by_a_limit(self):
        limit = {"rates": ["2/1h"], "block": {"after": 3, "for": "1h"}}
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(Engine())
            one, two, three = services = self.services(stack, engine, limit)
            admitted(one, "a", 10)
            two.wait_logged("limit user: mx1 blocks a for")
            three.wait_logged("limit user: mx1 blocks a for")
            self.assertEqual(blocked(services, "a"), [True] * 3)


class SharedTests(unittest.TestCase):
    def test_three_hosts_hold_one_limit_with_and_without_the_engine(self):
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(Engine())
            services = [stack.enter_context(host(engine.port, name, HOSTS)) for name in HOSTS]
            for service in services:
                service.wait_logged(IN_USE)

            # More than the pool has is asked for everywhere, so all of it is used.
            count = admitted_by_all(services, "a", clients=4, requests=20)
            self.assertLessEqual(count, MOST)
            # What a host was granted and has not spent yet.
            count += sum(admitted(service, "a", 10) for service in services)
            self.assertEqual(count, MOST)

            # A host that dies forgets nothing.
            services[0].kill()
            services[0].start()
            services[0].wait_logged(IN_USE)
            self.assertEqual(admitted_by_all(services, "a", clients=1, requests=5), 0)

            # Without the engine, each host has its share, and says so once.
            engine.kill()
            for service in services:
                service.wait_logged(FAILED)
            self.assertEqual([admitted(service, "b", 10) for service in services], [SHARE] * 3)
            self.assertEqual(sum(admitted(service, "a", 3) for service in services), 0)

            # The engine has forgotten everything. The hosts have not.
            seen = [service.log().count(IN_USE) for service in services]
            engine.start()
            for service, before in zip(services, seen):
                wait_until(
                    lambda service=service, before=before: service.log().count(IN_USE) > before,
                    "the engine is in use again")
            count = admitted_by_all(services, "b", clients=2, requests=30)
            count += sum(admitted(service, "b", 10) for service in services)
            self.assertEqual(count, MOST - 3 * SHARE)
            self.assertEqual(admitted_by_all(services, "a", clients=1, requests=3), 0)
            for service in services:
                self.assertEqual(service.log().count(FAILED), 1, service.log())

    def test_a_limit_of_one_host_is_not_shared(self):
        with Engine() as engine:
            with host(engine.port, "mx1", ["mx1", "mx2"], {"shared": False}) as one, \
                    host(engine.port, "mx2", ["mx1", "mx2"], {"shared": False}) as two:
                self.assertEqual([admitted(service, "a", MOST + 5) for service in (one, two)], [MOST, MOST])

    def test_open_on_cut_off(self):
        with host(free_port(), "mx1", ["mx1", "mx2"], on_cut_off="open") as service:
            service.wait_logged("on_cut_off: open")
            self.assertEqual(admitted(service, "a", MOST + 5), MOST)

    def test_a_new_host_has_no_share_until_all_have_connected(self):
        with Engine() as engine, host(engine.port, "mx1", ["mx1", "mx2"]) as one:
            one.wait_logged("not all of mx1, mx2 have connected")
            self.assertEqual(admitted(one, "a", 3), 0)
            with host(engine.port, "mx2", ["mx1", "mx2"]):
                one.wait_logged(IN_USE)
                self.assertEqual(admitted(one, "a", 3), 3)

    def test_a_host_that_the_others_do_not_name_is_granted_nothing(self):
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(Engine())
            others = [stack.enter_context(host(engine.port, name, HOSTS[:2])) for name in HOSTS[:2]]
            for service in others:
                service.wait_logged(IN_USE)
            new = stack.enter_context(host(engine.port, "mx3", HOSTS))
            new.wait_logged("this new host has no share, and the engine grants it units once all name it")
            for service in others:
                self.assertEqual(admitted(new, "a", 3), 0)
                self.assertEqual(admitted(service, "b", 3), 3)
                service.configure(shared={**service.config["shared"], "hosts": HOSTS})
                service.restart()
                service.wait_logged("the hosts have different limits, shares or lists of hosts")
            wait_until(lambda: admitted(new, "a", 1) == 1, "the engine grants units to the new host")

    def test_two_hosts_of_one_name(self):
        with Engine() as engine, host(engine.port, "mx1", ["mx1"]) as one:
            one.wait_logged(IN_USE)
            with host(engine.port, "mx1", ["mx1"]) as two:
                two.wait_logged("another host with the name mx1 is connected")
                self.assertEqual(admitted(two, "a", 3), 0)

    def test_the_password_comes_from_a_file(self):
        with Engine("--requirepass", "secret word") as engine, tempfile.NamedTemporaryFile("w") as file:
            file.write("secret word\nmore\n")
            file.flush()
            with host(engine.port, "mx1", ["mx1"], password_file=file.name) as service:
                service.wait_logged(IN_USE)
                self.assertEqual(admitted(service, "a", MOST + 5), MOST)

    def test_a_user_with_the_rights_of_the_documentation(self):
        text = (pathlib.Path(__file__).parents[2] / "docs/shared.md").read_text()
        [rights] = re.findall("ACL SETUSER weir on >PASSWORD (.*)", text)
        for rights, line in [(rights, IN_USE), (rights.replace("+@hash", ""), "give the user ~{weir:* +fcall")]:
            with self.subTest(rights=rights), Engine("--user", *f"weir on >secret {rights}".split()) as engine:
                with host(engine.port, "mx1", ["mx1"], user="weir", password="secret") as service:
                    service.wait_logged(line)

    def test_each_fault_of_the_engine_has_its_line(self):
        for arguments, shared, text in [
            (["--requirepass", "secret"], {}, "it requires a password: set shared.password_file"),
            (["--requirepass", "secret"], {"password": "wrong"}, "it rejects the password"),
            (["--replicaof", "127.0.0.1 1"], {}, "it is a read-only replica"),
            (["--maxmemory", "1"], {}, "its memory is full: raise maxmemory"),
            (["--rename-command", "FUNCTION", ""], {}, "it is not Valkey or Redis 7.0 or newer"),
            (["--cluster-enabled", "yes", "--cluster-port", str(free_port())], {}, "the node of the cluster"),
        ]:
            with self.subTest(text=text), Engine(*arguments) as engine:
                with host(engine.port, "mx1", ["mx1"], **shared) as service:
                    service.wait_logged(text)
                    self.assertNotIn("secret", service.log())

    def test_a_server_that_is_no_engine(self):
        """The last two would block libhiredis for seconds, and end the process."""
        info = b"run_id:1\r\nredis_version:7.0.0\r\nrole:master\r\n"
        for answers in [
            [b"HTTP/1.1 400 Bad Request\r\n\r\n"], [b"$536870912\r\n" + b"x" * (8 << 20)], [b"*3\r\n:1\r\n" * 9],
            [b"*1000000000\r\n" * 6],
            [b"+OK\r\n", b"$%d\r\n%s\r\n" % (len(info), info), b"+library\r\n+x\r\n+x\r\n"],
        ]:
            with self.subTest(answer=answers[-1][:20]), answering(*answers) as port:
                with host(port, "mx1", ["mx1"]) as service:
                    service.wait_logged("is it Redis?")
                    self.assertEqual(admitted(service, "a", 1), 0)
                    self.assertTrue(service.is_running)

    def test_a_damaged_file(self):
        """It is set aside, and the host begins as a new one: it has no share until the engine takes it for this host."""
        with Engine() as engine, host(engine.port, "mx1", ["mx1"]) as service:
            service.wait_logged(IN_USE)
            file = service.directory / "ledger.sqlite.shared"
            for damage in "UPDATE state SET mark = 'x'", "UPDATE state SET epoch = -1", None:
                with self.subTest(damage=damage):
                    service.stop()
                    if damage:
                        subprocess.run(["sqlite3", file, damage], check=True, timeout=DEFAULT_TIMEOUT)
                    else:
                        file.with_name(file.name + "-wal").unlink(missing_ok=True)
                        file.write_bytes(b"x" * 4096)
                    damaged = file.read_bytes()
                    service.start()
                    service.wait_logged("ledger.sqlite.shared is damaged")
                    [aside] = wait_until(lambda: list(service.directory.glob("*.damaged-*[0-9]")), service.log)
                    self.assertEqual(aside.read_bytes()[:16], damaged[:16])
                    self.assertEqual(admitted(service, "a", 1), 0)
                    aside.unlink()

    def test_sentinel_names_another_primary(self):
        with sentinel_group() as (primary, replica, sentinels, address), contextlib.ExitStack() as stack:
            services = [stack.enter_context(host(None, name, HOSTS, engine=address)) for name in HOSTS]
            for service in services:
                service.wait_logged(f" at 127.0.0.2:{primary.port}) {IN_USE}")
            used = admitted_by_all(services, "a", clients=2, requests=5)
            # A server of Sentinel that is gone is passed over.
            sentinels[0].kill()
            primary.kill()
            for service in services:
                service.wait_logged(FAILED)
            for service in services:
                service.wait_logged(f" at 127.0.0.3:{replica.port}) {IN_USE}", timeout=120)
            used += admitted_by_all(services, "a", clients=4, requests=20)
            end = time.monotonic() + DEFAULT_TIMEOUT
            # What a host was granted is free for others a while after it was not spent.
            while used < MOST and time.monotonic() < end:
                used += sum(admitted(service, "a", 10) for service in services)
            self.assertEqual(used, MOST)
            self.assertEqual(admitted_by_all(services, "a", clients=1, requests=5), 0)
            # The hosts ask each other through the new primary, too.
            for service in services:
                wait_until(
                    lambda service=service: MOST == json.loads(
                        service.limits("show", "a", "--json").stdout)[0]["rates"][0]["used"], "the sum of all hosts")

    def test_faults_of_sentinel(self):
        with Engine() as engine, Sentinel(f"127.0.0.1 {engine.port}", "--requirepass", "secret") as sentinel:
            base = f"redis-sentinel://127.0.0.1:{sentinel.port}"
            with tempfile.NamedTemporaryFile("w") as file:
                file.write("secret")
                file.flush()
                login = {"sentinel_password_file": file.name}
                for address, shared, text in [
                    (f"{base}/group", {}, "check shared.sentinel_password_file"),
                    (f"{base}/other", login, "it knows no group other"),
                    (f"{base}/group", login, f"append ?port={engine.port} to shared.engine"),
                    (f"{base}/group?port={engine.port}", login, IN_USE),
                    (f"redis-sentinel://127.0.0.1:{engine.port}/group", {}, "it is no Sentinel"),
                    (f"redis-sentinel://127.0.0.1:{free_port()}/group", {}, "is it running, and may Weir connect"),
                ]:
                    with self.subTest(text=text), host(None, "mx1", ["mx1"], engine=address, **shared) as service:
                        service.wait_logged(text)


if __name__ == "__main__":
    unittest.main()
