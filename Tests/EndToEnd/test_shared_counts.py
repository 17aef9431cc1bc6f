# SPDX-License-Identifier: Apache-2.0
"""What shared limits count beside admitted mail: refused requests and connections."""
import contextlib
import unittest

from postfix import wait_until
from test_shared import FAILED, HOSTS, IN_USE, MOST, SHARE, Engine, host


@contextlib.contextmanager
def three_hosts(limit):
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Engine())
        services = [stack.enter_context(host(engine.port, name, HOSTS, limit)) for name in HOSTS]
        for service in services:
            service.wait_logged(IN_USE)
        yield engine, services


def in_pool(engine):
    """What the engine counts in all pools. Their keys begin with the number of the epoch."""
    keys = [key for key in engine.command("KEYS", "{weir:shared}:[0-9]*").splitlines() if key]
    slots = " ".join(engine.command("HVALS", key) for key in keys).split()
    return sum(int(slot.split("=")[1]) for slot in slots)


class RefusedTests(unittest.TestCase):
    """MOST bytes are shared. The share of a host is SHARE."""

    POOL = MOST - len(HOSTS) * SHARE

    @staticmethod
    def send(service, size):
        """Whether a message is accepted."""
        return service.ask(
            protocol_state="END-OF-MESSAGE", sasl_username="a", size=size, recipient_count=1) == "DUNNO"

    def wait_for_pool(self, engine, units):
        wait_until(lambda: in_pool(engine) == units, f"{units} units of the pool are counted")

    def test_a_refused_message_leaves_less_for_all_hosts(self):
        limit = {"count": "bytes", "count_refused": True}
        with three_hosts(limit) as (engine, (one, two, three)):
            self.assertTrue(self.send(one, 20))
            self.assertFalse(self.send(one, 40))
            # Of the first message, the share has its part. What the second was granted is free again.
            used = 20 - SHARE + 40
            self.wait_for_pool(engine, used)
            self.assertGreater(used, self.POOL)
            self.assertFalse(self.send(two, SHARE + 1))
            used += SHARE + 1
            self.wait_for_pool(engine, used)
            # Now the share of this host is used up by what it has refused.
            self.assertFalse(self.send(two, 1))
            used += 1
            self.wait_for_pool(engine, used)
            # The hosts tell it again to an engine that has forgotten it, also after a start.
            one.kill()
            engine.kill()
            others = two, three
            for service in others:
                service.wait_logged(FAILED)
            seen = [service.log().count(IN_USE) for service in others]
            engine.start()
            one.start()
            wait_until(
                lambda: all(service.log().count(IN_USE) > before for service, before in zip(others, seen)),
                "the engine is in use again")
            self.wait_for_pool(engine, used)
            self.assertFalse(self.send(two, 1))
            one.limits("reset", "a")
            two.wait_logged("on mx1: reset a")
            self.assertTrue(self.send(two, SHARE + 1))

    def test_by_default_a_refused_message_leaves_as_much_as_before(self):
        with three_hosts({"count": "bytes"}) as (engine, (one, two, _)):
            self.assertTrue(self.send(one, 20))
            self.assertFalse(self.send(one, 40))
            self.wait_for_pool(engine, 20 - SHARE)
            self.assertTrue(self.send(two, SHARE + 1))


class ConnectionTests(unittest.TestCase):
    LIMIT = {"key": "client_address", "count": "connections"}

    @staticmethod
    def connect(service, ports, state="CONNECT"):
        """How many connections are accepted."""
        with service.client() as client:
            return [client.ask(protocol_state=state, client_port=port, instance="") for port in ports].count("DUNNO")

    def test_three_hosts_hold_one_limit_of_connections(self):
        with three_hosts(self.LIMIT) as (engine, services):
            accepted = [self.connect(service, range(1000, 1000 + MOST)) for service in services]
            self.assertLessEqual(sum(accepted), MOST)
            # What a host was granted and has not used yet.
            accepted = [
                first + self.connect(service, range(2000, 2000 + MOST)) for service, first in zip(services, accepted)]
            self.assertEqual(sum(accepted), MOST)
            # What comes over an accepted connection is not counted again; a refused one stays refused.
            self.assertEqual(self.connect(services[0], range(1000, 1000 + SHARE), "RCPT"), SHARE)
            self.assertEqual(self.connect(services[2], [3000], "CONNECT"), 0)
            self.assertEqual(self.connect(services[2], [3000], "RCPT"), 0)
            engine.kill()
            for service in services:
                service.wait_logged(FAILED)
            with services[0].client() as client:
                answers = [client.ask(client_address="192.0.2.99", client_port=port) for port in range(1, 20)]
            self.assertEqual(answers.count("DUNNO"), SHARE)


if __name__ == "__main__":
    unittest.main()
