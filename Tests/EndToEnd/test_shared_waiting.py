# SPDX-License-Identifier: Apache-2.0
"""Requests that wait for the engine of shared limits: how long, and what happens if their client does not."""
import contextlib
import signal
import socket
import time
import unittest

from milter import MilterService
from postfix import wait_until
from test_shared import (
    FAILED, HOSTS, IN_USE, MOST, SHARE, TIMEOUT, Engine, admitted, admitted_by_all, host)
from weir import PolicyClient, UnixConnection, get, samples


@contextlib.contextmanager
def stopped(engine):
    """The engine takes no calls meanwhile. A service that waits for it for a second gives it up."""
    engine.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        engine.process.send_signal(signal.SIGCONT)


def request(user, **attributes):
    return PolicyClient.request(sasl_username=user, **attributes)


def open_connections(service):
    """Those of policy clients and MTAs."""
    figures = samples(get(UnixConnection(service.admin_socket), "/metrics")[1])
    names = "weir_policy_connections", "weir_message_connections"
    return sum(value for name, value in figures.items() if name.startswith(names))


@contextlib.contextmanager
def three_hosts(**shared):
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Engine())
        services = [stack.enter_context(host(engine.port, name, HOSTS, **shared)) for name in HOSTS]
        for service in services:
            service.wait_logged(IN_USE)
        yield engine, services


class WaitingTests(unittest.TestCase):
    def test_each_request_waits_for_its_own_time(self):
        """One that comes while another waits does not wait for the rest of the other's time, and then for its own."""
        timeout = 0.4
        with three_hosts(timeout=int(timeout * 1000)) as (engine, (service, *_)):
            def waited(attempt):
                """How long the second of two requests waits, in timeouts."""
                users = [f"a{attempt}", f"b{attempt}", f"c{attempt}"]
                for user in users:
                    admitted(service, user, SHARE)
                # The attempt before may have made the service give the engine up.
                wait_until(lambda: admitted(service, users[2], 1), "the engine grants")
                with service.client() as first, service.client() as second, stopped(engine):
                    first.send(request(users[0]))
                    time.sleep(timeout / 8)
                    began = time.monotonic()
                    second.send(request(users[1]))
                    second.reply()
                    return (time.monotonic() - began) / timeout

            # With the rest of the first one's time, it is 1.9. A busy machine makes waits longer, but not each time.
            self.assertTrue(any(waited(attempt) < 1.5 for attempt in range(8)))

    def test_clients_at_once_get_all_that_is_left(self):
        """Of two windows, the engine grants more of one than of the other. No request is refused below the limit."""
        with Engine() as engine, host(
                engine.port, "mx1", ["mx1"], {"rates": [f"{MOST}/1h", f"{10 * MOST}/1d"]}) as service:
            service.wait_logged(IN_USE)
            self.assertEqual([admitted_by_all([service], user, 20, MOST // 20) for user in "abcdefgh"], [MOST] * 8)

    def test_a_client_that_has_closed_its_side_gets_its_answer(self):
        with three_hosts() as (engine, services):
            admitted(services[0], "a", SHARE)
            with stopped(engine), services[0].client() as client:
                client.send(request("a"))
                client.socket.shutdown(socket.SHUT_WR)
                # Once this is answered, the service has read the end, which came before.
                self.assertEqual(services[0].ask(sasl_username="b"), "DUNNO")
                engine.process.send_signal(signal.SIGCONT)
                self.assertTrue(client.reply())
                self.assertTrue(client.is_closed())

    def test_a_client_that_is_gone_is_not_charged(self):
        with three_hosts() as (engine, services):
            admitted(services[0], "a", SHARE)
            before = services[0].used("a", "user")
            with stopped(engine):
                with services[0].client(services[0].policy_socket) as client:
                    client.send(request("a"))
                wait_until(lambda: open_connections(services[0]) == 0, "the service has noticed that the client is gone")
            with services[0].client() as client:
                answers = [client.ask(sasl_username="b"), client.ask(sasl_username="a")]
            # The engine may have been given up, on a busy machine: then the share is all there is.
            self.assertEqual(services[0].used("a", "user"), before + answers.count("DUNNO") - 1)


class MilterTests(unittest.TestCase):
    """The milter asks the limits by messages between threads; its questions wait for the engine, too."""

    LIMIT = {"name": "client", "key": "client_address", "rates": [f"{MOST}/1h"]}

    @contextlib.contextmanager
    def services(self, **limit):
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(Engine())
            services = [stack.enter_context(MilterService(
                limits=[{**self.LIMIT, **limit}],
                shared={"engine": f"redis://127.0.0.1:{engine.port}/0", "name": name, "hosts": HOSTS, "share": 20,
                        "timeout": TIMEOUT})) for name in HOSTS]
            for service in services:
                service.wait_logged(IN_USE)
            yield engine, services

    @staticmethod
    def deliver(service, recipients, address="192.0.2.7"):
        """Replies to the recipients of one message, by their commands."""
        with service.mta(options=0) as mta:
            mta.connect(address=address)
            return "".join(reply[0] for reply in mta.mail(
                recipients=[f"r{number}@example.com" for number in range(recipients)]))

    def test_recipients_beyond_the_share_come_from_the_pool(self):
        with self.services() as (_, services):
            replies = [self.deliver(service, MOST // 3 + 8) for service in services]
            self.assertEqual(set("".join(replies)), {"c", "y"}, replies)
            admitted = sum(reply.count("c") for reply in replies)
            self.assertLessEqual(admitted, MOST)
            self.assertGreater(admitted, 3 * SHARE)
            # What hosts were granted and have not spent.
            admitted += sum(self.deliver(service, 10).count("c") for service in services)
            self.assertEqual(admitted, MOST)

    def test_a_question_waits_until_the_engine_answers(self):
        with self.services() as (engine, services):
            self.assertEqual(self.deliver(services[0], SHARE), "c" * SHARE)
            with stopped(engine), services[0].mta(options=0) as mta:
                mta.connect(address="192.0.2.7")
                mta.send("D", b"Mi\x004ABD\x00")
                mta.send("M", b"<a@example.org>\x00")
                mta.answer(0x4000)
                mta.send("R", b"<r@example.com>\x00")
                # Another client's question within its share is answered meanwhile.
                self.assertEqual(self.deliver(services[0], 1, address="192.0.2.8"), "c")
                engine.process.send_signal(signal.SIGCONT)
                self.assertIn(mta.reply()[0], "cy")

    def test_an_mta_that_is_gone_is_not_charged(self):
        with self.services() as (engine, services):
            self.assertEqual(self.deliver(services[0], SHARE), "c" * SHARE)
            with stopped(engine):
                with services[0].mta(options=0) as mta:
                    mta.connect(address="192.0.2.7")
                    mta.send("D", b"Mi\x004ABE\x00")
                    mta.send("M", b"<a@example.org>\x00")
                    mta.answer(0x4000)
                    mta.send("R", b"<r@example.com>\x00")
                wait_until(lambda: open_connections(services[0]) == 0, "the service has noticed that the MTA is gone")
            replies = self.deliver(services[0], 1)
            self.assertEqual(services[0].used("192.0.2.7", "client"), SHARE + replies.count("c"))
            self.assertTrue(services[0].is_running)


if __name__ == "__main__":
    unittest.main()
