# SPDX-License-Identifier: Apache-2.0
"""Failures of disks, files, peers and configurations: mail keeps flowing, and no answered request is lost."""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import tempfile
import unittest

from postfix import DEFAULT_TIMEOUT, as_root, run, wait_until
from weir import BINARY, BLOCKED, ENVIRONMENT, PolicyClient, WeirService, check_memory

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["1000000/1d"], "over": "DEFER later"}


class SmallDisk:
    """A file system of two megabytes that can be filled and made read-only."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-disk-"))

    def __enter__(self):
        run(as_root(["mount", "-t", "tmpfs", "-o", f"size=2m,mode=755,uid={os.getuid()}", "weir-test", self.directory]))
        return self

    def __exit__(self, *_):
        run(as_root(["umount", self.directory]))
        self.directory.rmdir()

    def fill(self):
        """Fills the file system completely."""
        with open(self.directory / "filler", "ab", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))

    def free(self, octets):
        """Frees a little space."""
        filler = self.directory / "filler"
        os.truncate(filler, filler.stat().st_size - octets)

    def clear(self):
        (self.directory / "filler").unlink()

    def remount(self, mode):
        run(as_root(["mount", "-o", f"remount,{mode}", self.directory]))


class Ledger(unittest.TestCase):
    """While the store fails, requests are answered; their counts are saved afterwards."""

    def count(self, service, number, sender="alice@example.org"):
        with service.client() as client:
            for _ in range(number):
                self.assertEqual(client.ask(sender=sender), "DUNNO")

    def assertUsed(self, service, used, sender="alice@example.org"):
        self.assertEqual(service.used(sender, "per-sender"), used, service.log())

    def on_small_disk(self, **config):
        disk = self.enterContext(SmallDisk())
        path = disk.directory / "ledger.sqlite"
        service = self.enterContext(WeirService(limits=[LIMIT], ledger={"store": f"sqlite:{path}"}, **config))
        service.ledger = path
        return disk, service

    def test_disk_full(self):
        disk, service = self.on_small_disk()
        self.count(service, 10)
        disk.fill()
        # More than the free space inside SQLite's files.
        sent = 10
        while "is not saved" not in service.log() and sent < 50_000:
            self.count(service, 200)
            sent += 200
        self.assertIn("is not saved", service.log())
        self.count(service, 100)
        sent += 100
        self.assertUsed(service, sent)
        # Once for each reason: the retry may fail at another file.
        reasons = re.findall("error: the ledger is not saved: (.*)", service.log())
        self.assertEqual(len(reasons), len(set(reasons)), service.log())
        disk.clear()
        service.wait_logged("is saved again")
        self.count(service, 5)
        sent += 5
        service.restart()
        self.assertUsed(service, sent)

    def test_disk_nearly_full(self):
        """With space for part of a new segment only, a failed attempt doesn't block the next one."""
        disk, service = self.on_small_disk()
        self.count(service, 10)
        disk.fill()
        sent = 10
        while "is not saved" not in service.log() and sent < 50_000:
            self.count(service, 200)
            sent += 200
        for _ in range(4):
            disk.free(4096)
            for _ in range(2):
                # Each attempt creates and removes files.
                before = disk.directory.stat().st_mtime_ns
                wait_until(
                    lambda: disk.directory.stat().st_mtime_ns != before or "is writable again" in service.log(),
                    f"it is tried again\n{service.log()}")
        disk.clear()
        service.wait_logged("is saved again")
        self.count(service, 5)
        self.assertUsed(service, sent + 5)
        service.restart()
        self.assertUsed(service, sent + 5)

    def test_a_change_that_is_not_saved_is_not_answered_as_one(self):
        disk, service = self.on_small_disk()
        self.count(service, 10)
        disk.fill()

        def block(number):
            return service.limits("block", f"user{number}@example.org", "--limit", "per-sender", check=False)

        # SQLite's files have some room left.
        numbers = iter(range(2_000))
        unsaved = next(change for number in numbers if (change := block(number)).returncode != 0)
        self.assertEqual(unsaved.returncode, 75, unsaved.stderr)
        self.assertIn("the change is in force, but not saved, and is lost if", unsaved.stderr)
        service.wait_logged("is not saved")
        number = next(numbers)
        self.assertEqual(block(number).returncode, 75)
        self.assertEqual(service.ask(sender=f"user{number}@example.org"), BLOCKED)
        disk.clear()
        service.wait_logged("is saved again")
        self.assertEqual(block(number).returncode, 0)
        service.restart()
        self.assertEqual(service.ask(sender=f"user{number - 1}@example.org"), BLOCKED)

    def test_stop_before_the_store_recovers(self):
        disk, service = self.on_small_disk()
        self.count(service, 10)
        disk.fill()
        sent = 10
        while "is not saved" not in service.log() and sent < 50_000:
            self.count(service, 200)
            sent += 200
        disk.clear()
        service.restart()
        self.assertUsed(service, sent)

    def test_a_ledger_that_does_not_open_is_logged_once(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        service.stop()
        for file in service.directory.glob("ledger.sqlite*"):
            file.unlink()
        service.ledger.mkdir()
        service.start()
        lock = service.directory / "ledger.sqlite.lock"
        for _ in range(3):
            # Created by each attempt.
            wait_until(lock.exists, f"it is tried again\n{service.log()}")
            lock.unlink()
        wait_until(lock.exists, f"it is tried again\n{service.log()}")
        self.assertEqual(service.log().count("error: the ledger is unavailable"), 1, service.log())
        service.ledger.rmdir()
        service.wait_logged("counted again")
        self.count(service, 1)
        self.assertUsed(service, 1)

    def test_requests_are_answered_while_the_ledger_is_being_opened(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        service.stop()

        def is_being_opened():
            with open(service.directory / "ledger.sqlite.lock", "rb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
            return False
        holder = subprocess.Popen(
            ["sqlite3", service.ledger], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            holder.stdin.write("PRAGMA locking_mode=EXCLUSIVE;\nBEGIN EXCLUSIVE;\nSELECT 'held';\n")
            holder.stdin.flush()
            while holder.stdout.readline() not in ("held\n", ""):
                pass
            service.start()
            with service.client() as client:
                wait_until(is_being_opened, f"it is tried again, and waits for the lock\n{service.log()}", interval=0.01)
                self.assertEqual(client.ask(), "DUNNO")
                self.assertTrue(is_being_opened(), "the answer waited for it")
        finally:
            holder.communicate(".quit\n", timeout=120)
        service.wait_logged("counted again")

    def test_disk_full_and_configured_to_defer(self):
        disk, service = self.on_small_disk(on_failure="defer")
        self.count(service, 10)
        disk.fill()
        with service.client() as client:
            wait_until(lambda: client.ask(sender="bob@example.org").startswith("DEFER"), "mail is deferred", interval=0)
        service.wait_logged("is not saved")
        disk.clear()
        service.wait_logged("is saved again")
        self.count(service, 5)
        self.assertUsed(service, 15)

    def test_files_are_removed_while_in_use(self):
        disk, service = self.on_small_disk()
        self.count(service, 10)
        aside = disk.directory / "aside"
        aside.mkdir()
        names = [path for path in disk.directory.iterdir() if path.name.startswith("ledger.sqlite")]
        for path in names:
            path.rename(aside / path.name)
        service.wait_logged("was removed or replaced while it was in use")
        # Limits still apply from memory, and a second service can't use the ledger unnoticed.
        self.count(service, 5)
        for path in names:
            path.with_name(path.name).unlink(missing_ok=True)
            (aside / path.name).rename(path)
        service.wait_logged("is saved again")
        service.restart()
        self.assertUsed(service, 15)

    def test_read_only_at_start(self):
        disk, service = self.on_small_disk()
        self.count(service, 10)
        service.stop()
        disk.remount("ro")
        service.start()
        self.count(service, 3, sender="bob@example.org")
        service.wait_logged("can't")
        disk.remount("rw")
        service.wait_logged("counted again")
        self.count(service, 1)
        self.assertUsed(service, 11)

    def test_the_obstacle_is_named(self):
        """SQLite says only that it can't open or write a file, or that the disk had an error."""
        disk, service = self.on_small_disk()
        self.count(service, 10)
        service.kill()
        disk.fill()
        service.start()
        service.wait_logged(f"(the file system of {disk.directory} is full)")
        self.assertIn("is full)", service.limits("list", check=False).stderr)
        disk.clear()
        service.wait_logged("counted again")
        self.assertUsed(service, 10)

    def test_a_file_of_another_user(self):
        """As after a start as root, or a backup that root has put back."""
        service = WeirService(limits=[LIMIT])
        self.addCleanup(service.__exit__)
        service.start()
        self.count(service, 5)
        service.kill()
        for path in (service.directory, *service.directory.iterdir()):
            os.chown(path, 65534, 65534)
        for name in ("ledger.sqlite-shm", "ledger.sqlite.segment-*[0-9]"):
            path = next(service.directory.glob(name))
            os.chown(path, 0, 0)
            path.chmod(0o600)
            service.wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            service.start()
            service.wait_logged(f"(uid 65534 can't read and write {path}, which belongs to root); requests are answered DUNNO")
            os.chown(path, 65534, 65534)
            service.wait_logged("counted again")
            self.assertUsed(service, 5)
            service.kill()
            service.log_file.unlink()

    def test_locked_by_another_process(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 10)
        # In a separate process, as a process isn't blocked by its own locks.
        holder = subprocess.Popen(
            ["sqlite3", service.ledger], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            # The service's own writers finish first.
            holder.stdin.write(".timeout 10000\nBEGIN EXCLUSIVE;\nSELECT 'held';\n")
            holder.stdin.flush()
            self.assertEqual(holder.stdout.readline(), "held\n")
            self.count(service, 10)
            # A reload adds a limit, which the journal stores first.
            service.configure(limits=[LIMIT, {**LIMIT, "name": "another"}])
            service.reload()
            service.wait_logged("reloaded: 2 limits")
            self.count(service, 10)
            service.kill()
            service.start()
            self.count(service, 10)
        finally:
            holder.communicate(".quit\n", timeout=120)
        wait_until(lambda: service.used("alice@example.org", "per-sender") == 40, f"all are counted\n{service.log()}")
        service.restart()
        self.assertUsed(service, 40)
        self.assertEqual(service.used("alice@example.org", "another"), 20)

    def test_a_journal_that_is_locked_is_not_damaged(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 10)
        service.kill()
        segment = max(service.directory.glob("ledger.sqlite.segment-*[0-9]"), key=lambda file: file.stat().st_mtime)
        holder = subprocess.Popen(
            ["sqlite3", segment], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            holder.stdin.write("PRAGMA locking_mode=EXCLUSIVE;\nBEGIN EXCLUSIVE;\nSELECT 'held';\n")
            holder.stdin.flush()
            while holder.stdout.readline() not in ("held\n", ""):
                pass
            service.start()
            self.assertEqual(service.ask(sender="alice@example.org"), "DUNNO")
            service.wait_logged("can't read")
            shown = service.limits("list", check=False)
            self.assertEqual(shown.returncode, 75, shown.stdout)
            self.assertIn("the ledger is not open: ", shown.stderr)
        finally:
            holder.communicate(".quit\n", timeout=120)
        service.wait_logged("counted again")
        self.assertUsed(service, 10)
        self.assertEqual(list(service.directory.glob("*damaged*")), [])

    def test_two_services_do_not_share_a_ledger(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 2)
        other = self.enterContext(WeirService(limits=[LIMIT], ledger={"store": f"sqlite:{service.ledger}"}))
        other.wait_logged("another weir serve")
        self.count(service, 1)
        self.assertUsed(service, 3)

    def test_corrupt_at_start(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 10)
        service.stop()
        damaged = os.urandom(100_000)
        service.ledger.write_bytes(damaged)
        service.start()
        service.wait_logged("damaged")
        aside = [file for file in service.directory.iterdir() if file.name.startswith("ledger.sqlite.damaged")]
        self.assertEqual(len(aside), 1)
        self.assertEqual(aside[0].read_bytes(), damaged)
        self.count(service, 1)
        service.restart()
        self.assertTrue((service.used("alice@example.org", "per-sender") or 0) >= 1)

    def test_corrupt_while_running(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 10)
        for file in service.directory.glob("ledger.sqlite*"):
            if file.stat().st_size > 1024:
                with open(file, "r+b") as stream:
                    stream.seek(0)
                    stream.write(os.urandom(1024))
        self.count(service, 10)
        self.assertUsed(service, 20)
        service.kill()
        service.start()
        self.count(service, 1)
        service.wait_logged("damaged")

    def flip(self, file, place, bits=4):
        with open(file, "r+b") as stream:
            stream.seek(place)
            octet = stream.read(1)[0]
            stream.seek(place)
            stream.write(bytes([octet ^ bits]))

    def damaged(self, service, suffix=""):
        return [file for file in service.directory.iterdir() if ".damaged-" in file.name and file.name.endswith(suffix)]

    def test_bit_flip_in_the_journal(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 200)
        service.kill()
        log = max(service.directory.glob("ledger.sqlite.segment-*-wal"), key=lambda file: file.stat().st_size)
        self.flip(log, 20_000)
        damaged = log.read_bytes()
        service.start()
        service.wait_logged("frames")
        self.assertUsed(service, 200)
        self.assertIn(damaged, [file.read_bytes() for file in self.damaged(service, "-wal")])
        service.restart()
        self.assertUsed(service, 200)

    def test_bit_flip_in_the_schema(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 10)
        service.stop()
        # The name of a column: no check by SQLite finds it.
        self.flip(service.ledger, service.ledger.read_bytes().index(b"limit_id INTEGER"))
        service.start()
        service.wait_logged("is damaged")
        self.assertUsed(service, 10)
        self.assertEqual(len([file for file in self.damaged(service) if not file.name.endswith("-wal")]), 1)
        self.count(service, 5)
        service.restart()
        self.assertUsed(service, 15)

    def test_missing_migration(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 10)
        service.stop()
        run(["sqlite3", service.ledger, "DELETE FROM grdb_migrations"])
        service.start()
        self.assertUsed(service, 10)

    def test_killed_starts_leave_nothing(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 10)
        for _ in range(10):
            service.kill()
            service.start()
        self.assertUsed(service, 10)
        self.assertLessEqual(len(list(service.directory.glob("ledger.sqlite.segment-*[0-9]"))), 2)

    def test_truncated_journal(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        self.count(service, 100)
        service.kill()
        longest = max(service.directory.glob("ledger.sqlite.segment-*"), key=lambda file: file.stat().st_size)
        os.truncate(longest, longest.stat().st_size // 2)
        service.start()
        self.count(service, 1)
        used = service.used("alice@example.org", "per-sender")
        self.assertTrue(1 <= used <= 101, used)


class Peers(unittest.TestCase):
    """A misbehaving peer: its connection is closed or waits within bounds; all others continue."""

    def setUp(self):
        self.service = self.enterContext(WeirService(limits=[LIMIT]))
        self.other = self.enterContext(self.service.client())
        self.sound()

    def sound(self):
        """Another connection, open since the start, is answered."""
        self.assertEqual(self.other.ask(sender="other@example.org"), "DUNNO")

    def assertEnds(self, data, logged=None):
        """Sending `data` closes only that connection, without a reply."""
        with self.service.client() as client:
            with contextlib.suppress(ConnectionError):
                client.send(data)
            self.assertTrue(client.is_closed(10), "the connection was not closed")
        self.sound()
        if logged:
            self.service.wait_logged(logged)

    def test_longer_than_64_kib(self):
        self.assertEnds(PolicyClient.request(extra="x" * 66_000))

    def test_endless_line(self):
        self.assertEnds(b"x" * 1_000_000)

    def test_a_value_of_60_kib_is_accepted(self):
        with self.service.client() as client:
            self.assertEqual(client.ask(ccert_subject="x" * 60_000), "DUNNO")

    def test_a_thousand_attributes(self):
        self.assertEnds(PolicyClient.request(**{f"attribute{number}": "value" for number in range(1000)}))

    def test_four_hundred_attributes_are_accepted(self):
        with self.service.client() as client:
            self.assertEqual(client.ask(**{f"attribute{number}": "value" for number in range(400)}), "DUNNO")

    def test_nul(self):
        self.assertEnds(PolicyClient.request(helo_name="a\0b"))

    def test_no_request_attribute(self):
        self.assertEnds(PolicyClient.request(request=None))

    def test_another_kind_of_request(self):
        self.assertEnds(PolicyClient.request(request="junk"))

    def test_a_line_without_equals(self):
        self.assertEnds(b"request=smtpd_access_policy\nrubbish\n\n")

    def test_an_empty_request(self):
        self.assertEnds(b"\n")

    def test_http(self):
        self.assertEnds(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n\n\n")

    def test_invalid_utf8(self):
        request = PolicyClient.request(sender="X@example.org").replace(b"X", b"\xff\xc3\x28")
        with self.service.client() as client:
            client.send(request)
            self.assertEqual(client.reply(), "DUNNO")

    def test_control_characters_stay_out_of_the_log(self):
        self.service.configure(limits=[{**LIMIT, "rates": ["1/1h"]}])
        self.service.restart()
        with self.service.client() as client:
            for _ in range(2):
                answer = client.ask(sender="a\x1b[31m\rb@example.org", helo_name="\x07")
        self.assertIn("DEFER", answer)
        self.service.wait_logged("per-sender")
        log = self.service.log_file.read_bytes()
        self.assertFalse(set(log) & (set(range(32)) - {10}), log)

    def test_dropped_in_the_middle(self):
        request = PolicyClient.request()
        for length in (1, len(request) // 2, len(request) - 1):
            with self.service.client() as client:
                client.send(request[:length])
            self.sound()
        with self.service.client() as client:
            client.send(request)
        self.sound()

    def test_reset_in_the_middle(self):
        with self.service.client() as client:
            client.send(PolicyClient.request()[:100])
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sound()

    def test_a_byte_at_a_time_delays_nobody(self):
        slow = [self.enterContext(self.service.client()) for _ in range(50)]
        for byte in PolicyClient.request()[:60]:
            for client in slow:
                client.send(bytes([byte]))
            self.sound()

    def test_pipelined_requests_are_answered_one_by_one(self):
        with self.service.client() as client:
            client.send(PolicyClient.request() * 1 + PolicyClient.request() + PolicyClient.request())
            self.assertEqual([client.reply() for _ in range(3)], ["DUNNO"] * 3)

    def test_a_peer_that_does_not_read(self):
        before = resident_kilobytes(self.service.pid)
        requests = b"request=smtpd_access_policy\n\n" * 10_000
        with self.service.client() as client:
            client.socket.settimeout(1)
            sent = 0
            with contextlib.suppress(TimeoutError):
                # Answers are half as long as requests; without a bound the service would buffer some 90 MB.
                while sent < 200_000_000:
                    sent += client.socket.send(requests)
            self.sound()
            self.assertLess(sent, 100_000_000)
            check_memory(self, resident_kilobytes(self.service.pid) - before, 20_000)
            # Once the client reads, it gets them, and the service reads its requests again.
            client.socket.settimeout(DEFAULT_TIMEOUT)
            for _ in range(1000):
                self.assertEqual(client.reply(), "DUNNO")
        self.sound()

    def test_a_half_closed_client_is_answered(self):
        for number in (1, 3, 500):
            with self.service.client() as client:
                client.send(PolicyClient.request(sender="other@example.org") * number)
                client.socket.shutdown(socket.SHUT_WR)
                self.assertEqual([client.reply() for _ in range(number)], ["DUNNO"] * number)
                self.assertIsNone(client.reply())

    def test_requests_before_rubbish_are_answered(self):
        with self.service.client() as client:
            client.send(PolicyClient.request() + b"rubbish\n\n" + PolicyClient.request())
            self.assertEqual(client.reply(), "DUNNO")
            self.assertIsNone(client.reply())
        self.sound()


def resident_kilobytes(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


class Crowd(unittest.TestCase):
    def test_thousands_of_idle_connections(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        number = min(5000, hard - 100)
        service = self.enterContext(WeirService(limits=[LIMIT]))
        before = resident_kilobytes(service.pid)
        crowd = [self.enterContext(service.client()) for _ in range(number)]
        self.assertEqual(crowd[0].ask(), "DUNNO")
        self.assertEqual(crowd[-1].ask(), "DUNNO")
        self.assertEqual(service.ask(), "DUNNO")
        each = (resident_kilobytes(service.pid) - before) / number
        check_memory(self, each, 24)
        for client in crowd:
            client.send(PolicyClient.request())
        self.assertEqual([client.reply() for client in crowd], ["DUNNO"] * number)


class Reload(unittest.TestCase):
    """SIGHUP under load: not one request fails."""

    def setUp(self):
        self.service = self.enterContext(WeirService(limits=[LIMIT]))
        self.load = subprocess.Popen(
            [BINARY, "load", "policy", "--target", f"inet:127.0.0.1:{self.service.port}", "--connections", "20",
             "--rate", "2000", "--count", "8000", "--duration", "600s", "--json"],
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.load.communicate)
        self.addCleanup(self.load.kill)

    def assertLoadWasAnswered(self):
        output, errors = self.load.communicate(timeout=600)
        self.assertEqual(self.load.returncode, 0, output + errors)
        report = json.loads(output)
        self.assertEqual(sum(report["errors"].values()), 0, report)
        self.assertEqual(report["answered"], 8000)

    def test_a_bad_configuration_is_rejected(self):
        service = self.service
        for bad in ("limits: [", "limits:\n  - name: x\n    keey: [sender]\n", "listen: 7\n"):
            service.configure(text=bad)
            offset = len(service.log())
            service.reload()
            wait_until(lambda: "was rejected" in service.log()[offset:], f"the log says so: {bad!r}\n{service.log()}")
            self.assertEqual(service.ask(sender="alice@example.org"), "DUNNO")
        service.wait_logged("weir.yaml:3:")
        service.configure()
        self.assertEqual(service.used("alice@example.org", "per-sender"), 3)
        self.assertLoadWasAnswered()

    def test_a_good_configuration_keeps_the_counts_of_unchanged_limits(self):
        service = self.service
        for _ in range(3):
            self.assertEqual(service.ask(sender="alice@example.org"), "DUNNO")
        service.configure(limits=[{**LIMIT, "rates": ["4/1d"]}, {**LIMIT, "name": "another", "rates": ["2/1d"]}])
        service.reload()
        service.wait_logged("reloaded")
        self.assertEqual(service.used("alice@example.org", "per-sender"), 3)
        self.assertEqual(service.ask(sender="alice@example.org"), "DUNNO")
        self.assertEqual(service.ask(sender="alice@example.org"), "DEFER later")
        self.assertEqual(service.used("alice@example.org", "another"), 1)
        self.assertLoadWasAnswered()


if __name__ == "__main__":
    unittest.main(verbosity=2)
