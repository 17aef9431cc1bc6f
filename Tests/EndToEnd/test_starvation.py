# SPDX-License-Identifier: Apache-2.0
"""A message whose rules run into their limits beside other connections of the same event loop."""
import socket
import struct
import unittest

from filtering import FilterService, NextHop, dialogue
from milter import MilterService, text
from postfix import connect

# The scan for all rules finds the heavy lines, because it cannot compare the group with its repeat. PCRE2 then exceeds
# its limit on each of them.
BODY = "/^(x+x+)+(.)\\2y$/ REJECT too late\n/^reject/ REJECT found\n"
HEAVY = b"x" * 400 + b"qy\r\n"
# So many that they would take minutes.
MANY = HEAVY * 5000
CHECKS = {"body_checks_size_limit": 0, "message_budget": "10m"}


def send_smtp(client, body):
    client.sendall(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nSubject: hello\r\n\r\n" + body + b".\r\n")


def reply(client, *starts):
    """Reads up to lines that begin with `starts`, in this order."""
    data = b""
    while True:
        lines = iter(data.split(b"\r\n")[:-1])
        if all(any(line.startswith(start) for line in lines) for start in starts):
            return
        piece = client.recv(65536)
        assert piece, data
        data += piece


class Starvation(unittest.TestCase):
    def test_milter_answers_others(self):
        with MilterService(body=BODY, checks=CHECKS) as weir:
            with weir.mta() as heavy:
                heavy.connect()
                heavy.mail()
                heavy.socket.settimeout(None)
                heavy.send("L", text("Subject") + text(" hello"))
                heavy.answer(0x80)
                heavy.send("N")
                heavy.answer(0x40000)
                heavy.send("B", MANY[:65000])
                heavy.send("E")
                for _ in range(20):
                    with weir.mta() as quiet:
                        quiet.connect()
                        quiet.mail()
                        self.assertEqual(quiet.content([("Subject", " hello")], b"hello\r\n"), [("c", b"")])
                # Its checks are not done, so its only reply can be the one to the piece of the body.
                heavy.socket.setblocking(False)
                heavy.answer(0x80000)
                with self.assertRaises(BlockingIOError):
                    heavy.reply()
            # A stop does not wait for the checks of a client that is gone.
            weir.stop()

    def test_filter_answers_others(self):
        with NextHop(dialogue({})) as hop, FilterService(hop.port, body=BODY, checks=CHECKS) as weir:
            with connect(weir.filter_port) as heavy:
                heavy.sendall(b"EHLO client.example.org\r\n")
                reply(heavy, b"250 ")
                send_smtp(heavy, MANY[:130_000])
                reply(heavy, b"354")
                for _ in range(20):
                    with connect(weir.filter_port) as quiet:
                        quiet.sendall(b"EHLO client.example.org\r\n")
                        reply(quiet, b"250 ")
                        send_smtp(quiet, b"hello\r\n")
                        # Both may come together.
                        reply(quiet, b"354 ", b"250 ")
                heavy.setblocking(False)
                with self.assertRaises(BlockingIOError):
                    heavy.recv(1)
                # A reset, which the service notices without reading.
                heavy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            weir.stop()

    def test_stop_does_not_wait_for_a_pattern(self):
        # With all steps from each position of the line, an attempt takes minutes. SIGALRM ends a stop after 28 s.
        checks = {**CHECKS, "match_limit": 1_000_000_000}
        with MilterService(body="/x.*x.*x.*(.)\\1y$/ REJECT too late\n", checks=checks) as weir:
            with weir.mta() as heavy:
                heavy.connect()
                heavy.mail()
                heavy.send("L", text("Subject") + text(" hello"))
                heavy.answer(0x80)
                heavy.send("N")
                heavy.answer(0x40000)
                heavy.send("B", b"x" * 1000 + b"qy\r\n")
                # Its answer says that the loop is done with the piece before.
                with weir.mta() as quiet:
                    quiet.connect()
            self.assertEqual(weir.stop(), 0)

    def test_rules_apply_after_what_took_long(self):
        body = HEAVY + b"hello\r\n" + HEAVY + b"reject\r\n"
        with NextHop(dialogue({})) as hop, FilterService(hop.port, body=BODY) as weir, connect(weir.filter_port) as client:
            client.sendall(b"EHLO client.example.org\r\n")
            reply(client, b"250 ")
            send_smtp(client, body)
            reply(client, b"550 5.7.1 found")
            weir.wait_logged("body.pcre:1: no match, match limit exceeded")
        with MilterService(body=BODY) as weir, weir.mta() as mta:
            mta.connect()
            mta.mail()
            self.assertEqual(mta.content([("Subject", " hello")], body), [("y", b"550 5.7.1 found\0")])
            weir.wait_logged("body.pcre:1: no match, match limit exceeded")


if __name__ == "__main__":
    unittest.main()
