# SPDX-License-Identifier: Apache-2.0
"""`weir hosts`, and what `weir doctor` finds of the engine and of the hosts that share limits through it."""
import contextlib
import json
import pathlib
import re
import shlex
import tempfile
import unittest

from postfix import free_port, wait_until
from test_shared import IN_USE, MOST, Engine, admitted, answering, host, sentinel_group
from weir import ROOT, WeirService, weir

PASSWORD = "secret"


def hosts(service, *arguments, check=True):
    return weir("hosts", *arguments, "--config", service.config_file, check=check)


def listed(service):
    return {row["name"]: row for row in json.loads(hosts(service, "--json").stdout)["hosts"]}


class Hosts(unittest.TestCase):
    def refused(self, service, *arguments):
        result = hosts(service, "gone", *arguments, check=False)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("nothing changed: ", result.stderr)
        return result.stderr

    def test_a_host_that_is_gone(self):
        names = ["mx1", "mx2", "mx3"]
        with Engine() as engine, host(engine.port, "mx1", names) as one, host(engine.port, "mx2", names) as two:
            for service in one, two:
                service.wait_logged("not all of mx1, mx2, mx3 have connected")
            rows = listed(one)
            self.assertEqual([rows[name]["isConnected"] for name in names], [True, True, False])
            self.assertEqual([rows[name]["isThisHost"] for name in names], [True, False, False])
            self.assertEqual(rows["mx2"]["differences"], [])
            self.assertNotIn("lastHeardSeconds", rows["mx3"])
            text = hosts(one).stdout
            self.assertRegex(text, r"(?m)^mx1 +\d+s ago, connected +same +this host$")
            self.assertRegex(text, r"(?m)^mx3 +not since engine start +unknown$")

            self.assertIn("mx2 is connected to the engine", self.refused(one, "mx2", "--yes"))
            self.assertIn("there is no host mx4; the hosts are mx1, mx2, mx3", self.refused(one, "mx4", "--yes"))
            self.assertIn("add --yes", self.refused(one, "mx3"))
            self.assertIn("nobody waits for mx3\nRemove mx3 from shared.hosts", hosts(one, "gone", "mx3", "--yes").stdout)
            self.assertIn("mx3 is gone already", self.refused(one, "mx3", "--yes"))
            self.assertTrue(listed(one)["mx3"]["isGone"])
            for service in one, two:
                service.wait_logged(IN_USE)
            # A host that connects again counts again.
            with host(engine.port, "mx3", names) as three:
                three.wait_logged(IN_USE)
                self.assertFalse(listed(one)["mx3"]["isGone"])

            two.stop()
            wait_until(lambda: not listed(one)["mx2"]["isConnected"], "the engine misses mx2")
            self.assertRegex(hosts(one).stdout, r"(?m)^mx2 +\d+s ago +same$")

    def test_hosts_that_disagree(self):
        with Engine() as engine, host(engine.port, "mx1", ["mx1", "mx2"]) as one:
            with host(engine.port, "mx2", ["mx2"], {"rates": [f"{MOST + 1}/1h"]}, share=30):
                wait_until(lambda: "mx2" in listed(one) and listed(one)["mx2"]["isConnected"], "mx2 has connected")
                self.assertEqual(listed(one)["mx2"]["differences"], ["limits", "share", "hosts"])
                self.assertRegex(hosts(one).stdout, r"(?m)^mx2 +\d+s ago, connected +different: limits, share, hosts$")

    def test_without_an_engine(self):
        with WeirService() as service:
            result = hosts(service, check=False)
            self.assertEqual(result.returncode, 78)
            self.assertIn("has no shared.engine", result.stderr)
        with host(free_port(), "mx1", ["mx1"]) as service:
            result = hosts(service, check=False)
            self.assertEqual(result.returncode, 69)
            self.assertIn("is it running, and may Weir connect to it?", result.stderr)


class Doctor(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="weir-test-")))
        for name in "main.cf", "master.cf":
            (self.directory / name).write_text("")

    def findings(self, service):
        """What it says of the engine, by kind."""
        result = weir("doctor", "--postfix", self.directory, "--config", service.config_file, "--json", check=False)
        return {finding["kind"]: finding for finding in json.loads(result.stdout)[-1]["findings"]}

    def examined(self, port, **shared):
        """The findings without a running service."""
        service = host(port, "mx1", ["mx1"], **shared)
        self.addCleanup(service.__exit__)
        service.configure()
        return self.findings(service)

    def test_engines_that_can_not_be_used(self):
        info = b"run_id:1\r\nredis_version:6.2.0\r\nrole:master\r\n"
        with contextlib.ExitStack() as stack:
            for text, port in [
                ("it requires a password", stack.enter_context(Engine("--requirepass", PASSWORD)).port),
                ("it is a read-only replica", stack.enter_context(Engine("--replicaof", "127.0.0.1 1")).port),
                ("its memory is full", stack.enter_context(Engine("--maxmemory", "1")).port),
                ("is it Redis?", stack.enter_context(answering(b"220 mail.example.org ESMTP\r\n"))),
                ("it is version 6.2.0", stack.enter_context(
                    answering(b"+OK\r\n", b"$%d\r\n%s\r\n" % (len(info), info)))),
                ("is it running, and may Weir connect to it?", free_port()),
            ]:
                with self.subTest(text=text):
                    finding = self.examined(port)["engine-unusable"]
                    self.assertEqual(finding["severity"], "fault")
                    self.assertIn(text, finding["text"])

    def test_passwords_and_rights(self):
        with Engine("--requirepass", PASSWORD, "--user", "poor", "on", ">" + PASSWORD, "~*", "+info", "+select") as engine:
            self.assertIn("it rejects the password", self.examined(engine.port, password="x")["engine-unusable"]["text"])
            finding = self.examined(engine.port, user="poor", password=PASSWORD)["engine-rights"]
            self.assertIn("function|load", finding["text"])
            command = finding["commands"][0]
            self.assertTrue(command.startswith(f"redis-cli -h 127.0.0.1 -p {engine.port} ACL SETUSER poor "), command)
            engine.command(*shlex.split(command)[5:], password=PASSWORD)
            self.assertNotIn("engine-rights", self.examined(engine.port, user="poor", password=PASSWORD))

    def test_the_user_of_the_manual(self):
        """It has all rights that Weir needs, and nothing is found."""
        manual = (ROOT / "docs/shared.md").read_text()
        words = re.search(r"ACL SETUSER (.+)", manual).group(1).replace("PASSWORD", PASSWORD).split()
        with Engine("--requirepass", "other", "--user", *words) as engine:
            with host(engine.port, "mx1", ["mx1"], user="weir", password=PASSWORD) as service:
                service.wait_logged(IN_USE)
                self.assertEqual(admitted(service, "a", MOST + 5), MOST)
                self.assertEqual(self.findings(service), {})

    def test_strangers(self):
        with Engine() as engine:
            finding = self.examined(engine.port)["engine-open"]
            # Only users of this machine reach it.
            self.assertEqual(finding["severity"], "note")
            self.assertEqual(self.examined(engine.port, password="x").keys() & {"engine-open"}, {"engine-open"})

    def test_an_engine_that_evicts(self):
        with Engine("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as engine:
            finding = self.examined(engine.port)["engine-evicts"]
            self.assertEqual(finding["severity"], "fault")
            self.assertEqual(engine.command(*finding["commands"][0].split()[5:]), "OK")
            self.assertNotIn("engine-evicts", self.examined(engine.port))

    def test_sentinel(self):
        with sentinel_group() as (primary, replica, sentinels, address):
            # The first server of Sentinel that answers is asked.
            sentinels[0].kill()
            finding = self.examined(None, engine=address)["engine-not-fenced"]
            for command in finding["commands"][:2]:
                words = command.split()
                self.assertEqual(words[:5], ["redis-cli", "-h", "127.0.0.2", "-p", str(primary.port)])
                self.assertEqual(primary.command(*words[5:]), "OK")
            self.assertEqual(self.examined(None, engine=address).keys(), {"engine-open", "host-not-connected"})
            self.assertIn("knows no group", self.examined(
                None, engine=address.replace("/group", "/other"))["engine-unusable"]["text"])

    def test_hosts(self):
        names = ["mx1", "mx2", "mx3"]
        with Engine() as engine, host(engine.port, "mx1", names) as one, host(engine.port, "mx2", names, share=30):
            with host(engine.port, "mx1", names) as second:
                second.wait_logged("another host with the name mx1 is connected")
                found = self.findings(one)
                self.assertIn("mx2 has other shared.share than this host", found["hosts-disagree"]["text"])
                self.assertIn("mx3 has not connected to the engine", found["host-not-connected"]["text"])
                self.assertIn("two hosts call themselves mx1", found["host-name-twice"]["text"])
            hosts(one, "gone", "mx3", "--yes")
            self.assertNotIn("host-not-connected", self.findings(one))


if __name__ == "__main__":
    unittest.main()
