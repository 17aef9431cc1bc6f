# SPDX-License-Identifier: Apache-2.0
"""`weir hosts`."""
import json
import unittest

from postfix import free_port, wait_until
from test_shared import IN_USE, MOST, Engine, host
from weir import WeirService, weir


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
            self.assertRegex(text, r"(?m)^mx1 +connected +same +this host$")
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
                self.assertRegex(hosts(one).stdout, r"(?m)^mx2 +connected +different: limits, share, hosts$")

    def test_without_an_engine(self):
        with WeirService() as service:
            result = hosts(service, check=False)
            self.assertEqual(result.returncode, 78)
            self.assertIn("has no shared.engine", result.stderr)
        with host(free_port(), "mx1", ["mx1"]) as service:
            result = hosts(service, check=False)
            self.assertEqual(result.returncode, 69)
            self.assertIn("is it running, and may Weir connect to it?", result.stderr)


if __name__ == "__main__":
    unittest.main()
