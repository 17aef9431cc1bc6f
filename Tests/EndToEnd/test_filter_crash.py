# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the filter with messages of 1.5 MB under way.

No message is lost. One arrives twice only if Weir dies after the next hop has accepted it and before Postfix has read
the reply (RFC 5321 4.5.4.1). Postfix logs each such case.

Environment: WEIR_SEED says when the random kills come.
"""
import collections
import functools
import os
import random
import re
import threading
import time
import unittest

from filtering import LOST, RETRY, FilterService, NextHop, dialogue, filtered_postfix, lmtp_dialogue, losses, services
from postfix import SMTP, PrivatePostfix, SMTPSink, free_port, wait_until

SIZE = 1_500_000
RULES = {"header": "/^X-Number:/ PREPEND X-Checked: yes\n", "body": "/^never$/ REJECT\n"}


@functools.cache
def message(number):
    lines = "".join(f"{number} {line} {'x' * 60}\n" for line in range(SIZE // 75 + 1))
    return (
        f"X-Number: {number}\nFrom: a@example.org\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-Id: <{number}@example.org>\n"
        f"Subject: large\n\n{lines}")


def checked(number):
    """What the rules make of it."""
    return f"X-Checked: yes\n{message(number)}"


class Stage:
    """Makes a next hop wait before its first reply to `word` until `go_on` is set."""

    def __init__(self, word):
        self.word = word
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, word):
        if word == self.word and not self.reached.is_set():
            self.reached.set()
            self.go_on.wait(60)


class KillWithLargeMessages(unittest.TestCase):
    def test_a_message_doubles_only_between_the_next_hops_yes_and_the_clients(self):
        # At DATA Weir has all of the message; at the final dot the next hop has it, too.
        for word, deliveries in (("DATA", 1), (".", 2)):
            stage, messages = Stage(word), []
            with self.subTest(word=word), NextHop(dialogue({}, messages, stage)) as hop, FilterService(hop.port, **RULES) as weir, PrivatePostfix(
                    main={"content_filter": f"weir:[127.0.0.1]:{weir.filter_port}", **RETRY}, services=services(free_port())) as postfix:
                with SMTP(postfix.port) as client:
                    self.assertEqual(client.mail("1@example.org", ["b@example.com"], message(1))[-1][0], 250)
                self.assertTrue(stage.reached.wait(60), postfix.log())
                weir.kill()
                stage.go_on.set()
                weir.start()
                wait_until(lambda: LOST in postfix.log(), postfix.log)
                self.drain(postfix, 60)
                self.assertEqual(len(messages), deliveries, postfix.log())
                for _, content in messages:
                    self.assertTrue(content.endswith(checked(1).replace("\n", "\r\n").encode()))
                self.assertEqual(losses(postfix.log()), {1: 1}, postfix.log())

    def test_between_copies_and_recipients_only_a_copy_doubles(self):
        """An LMTP server gets the copies first."""
        delivered, killed = [], []

        def before(word, recipients):
            if word == b"DATA" and recipients == ["b@example.com"] and not killed:
                killed.append(list(delivered))
                weir.kill()
                weir.start()

        with NextHop(lmtp_dialogue(delivered, before=before)) as hop, FilterService(
                free_port(), "/^X-Number:/ BCC archive@example.com\n",
                listener={"next_hop": f"lmtp:127.0.0.1:{hop.port}"}) as weir, PrivatePostfix(
                    main={"content_filter": f"weir:[127.0.0.1]:{weir.filter_port}", **RETRY}, services=services(free_port())) as postfix:
            with SMTP(postfix.port) as client:
                self.assertEqual(client.mail("1@example.org", ["b@example.com"], message(1))[-1][0], 250)
            self.drain(postfix, 60)
            self.assertEqual(killed, [["archive@example.com"]], postfix.log())
            self.assertEqual(sorted(delivered), ["archive@example.com", "archive@example.com", "b@example.com"], postfix.log())

    def test_random_kills(self):
        seed = int(os.environ.get("WEIR_SEED", time.time()))
        chance, count = random.Random(seed), 12
        with SMTPSink() as sink, filtered_postfix(sink.port, **RULES, main=RETRY) as (postfix, weir):
            with SMTP(postfix.port) as client:
                for number in range(count):
                    self.assertEqual(client.mail(f"{number}@example.org", ["b@example.com"], message(number))[-1][0], 250)
            for _ in range(10):
                time.sleep(chance.uniform(0, 0.4))
                weir.kill()
                weir.start()
                postfix.command("postqueue", "-f")
            self.drain(postfix, 120)
            arrived = collections.Counter()
            for content in (delivered["content"] for delivered in sink.messages()):
                number = int(re.search(rb"^X-Number: (\d+)", content, re.M)[1])
                self.assertTrue(content.rstrip(b"\n").endswith(checked(number).rstrip("\n").encode()), f"seed {seed}: {number}")
                arrived[number] += 1
            self.assertEqual(sorted(arrived), list(range(count)), f"seed {seed}\n{postfix.log()}")
            lost = losses(postfix.log())
            for number, deliveries in arrived.items():
                self.assertLessEqual(deliveries - 1, lost[number], f"seed {seed}: {number}\n{postfix.log()}")

    def drain(self, postfix, timeout):
        def is_drained():
            postfix.command("postqueue", "-f")
            return not postfix.queue()
        wait_until(is_drained, lambda: f"the queue drained\n{postfix.log()}", timeout, interval=0.5)


if __name__ == "__main__":
    unittest.main()
