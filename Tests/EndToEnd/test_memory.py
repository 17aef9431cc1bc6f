# SPDX-License-Identifier: Apache-2.0
"""What a service has done does not stay in its memory. Each test does something often enough that caches are full, then
again, and compares the memory in use."""
import contextlib
import itertools
import os
import unittest

from filtering import FilterService, NextHop, dialogue
from milter import MilterService
from memory import LiveMemory
from postfix import connect, wait_until
from test_starvation import reply, send_smtp
from weir import PolicyClient, UnixConnection, WeirService, get

LIMIT = {"name": "per-user", "key": ["sasl_username"], "count": "recipients", "rates": ["1M/1h"]}


class Growth(unittest.TestCase):
    # In bytes. Dispatch keeps up to 1,024 blocks for each of its threads.
    NOISE = 256 * 1024

    @contextlib.contextmanager
    def watched(self, service):
        """Starts the service, which must not have been started."""
        memory = self.enterContext(LiveMemory())
        service.environment.update(memory.environment)
        with service:
            self.memory = memory
            yield service
            # Dispatch adds threads while others wait, up to twice as many as the machine has cores.
            self.assertLess(len(os.listdir(f"/proc/{service.pid}/task")), 20 + 2 * os.cpu_count())

    def check(self, work, rounds, most=NOISE):
        """Calls `work` with rising numbers. The second half of the rounds must not add more than `most` bytes."""
        numbers = itertools.count()
        used = []
        for _ in range(2):
            for _ in range(rounds):
                work(next(numbers))
            used.append(self.memory.bytes)
        self.assertGreater(used[0], 1 << 20, "nothing was counted")
        self.assertLess(used[1] - used[0], most)

    def test_reloads(self):
        with self.watched(MilterService(limits=[LIMIT])) as weir:
            rules = "".join(f"/^X-Test: {number}$/ REJECT\n" for number in range(200))

            def reload(number):
                (weir.directory / "header.pcre").write_text(rules + f"/^X-Last: {number % 2}$/ REJECT\n")
                weir.configure(limits=[LIMIT, {**LIMIT, "name": f"second{number % 2}", "rates": [f"{number + 1}/1h"]}])
                weir.reload()
                wait_until(lambda: weir.log().count("reloaded: ") > number, "a reload", interval=0.01)

            self.check(reload, 100)

    def test_administration(self):
        with self.watched(WeirService(limits=[LIMIT])) as weir:
            weir.ask(sasl_username="user")
            paths = ["/metrics", "/snapshot", "/limits?most=100", "/limits/key?key=user", "/overview", "/nothing"]

            def ask(number):
                get(UnixConnection(weir.admin_socket), paths[number % len(paths)])

            self.check(ask, 1500)

    def test_keys_beyond_the_maximum(self):
        service = WeirService(limits=[LIMIT])
        service.config["ledger"]["most_keys"] = 1000
        with self.watched(service) as weir, weir.client() as client:
            def ask(number):
                # Without an instance, no transaction is remembered.
                users = [f"{number}.{one}" for one in range(50)]
                client.send(b"".join(PolicyClient.request(sasl_username=user, instance="") for user in users))
                for _ in users:
                    self.assertEqual(client.reply(), "DUNNO")

            # The journal's pages fill their cache. Each forgotten key that stayed would take 250 bytes.
            self.check(ask, 400, 3 << 20)

    def test_messages_through_the_filter(self):
        with NextHop(dialogue({})) as next_hop, self.watched(FilterService(next_hop.port)) as weir:
            def send(_):
                with connect(weir.filter_port) as client:
                    reply(client, b"220")
                    client.sendall(b"EHLO example.org\r\n")
                    reply(client, b"250 ")
                    send_smtp(client, b"A line of the body.\r\n" * 200)
                    reply(client, b"354", b"250 Ok")

            self.check(send, 300)

    def test_messages_through_the_milter(self):
        with self.watched(MilterService(body="/^reject/ REJECT\n")) as weir:
            def send(number):
                with weir.mta() as mta:
                    mta.connect()
                    mta.mail()
                    rejected = b"reject\r\n" * (number % 2)
                    mta.content([("Subject", " hello")], b"A line of the body.\r\n" * 200 + rejected)

            self.check(send, 300)


if __name__ == "__main__":
    unittest.main()
