# SPDX-License-Identifier: Apache-2.0
"""A real Postfix in front of the filter, and behind it a server that speaks LMTP, or SMTP without EHLO."""
import contextlib
import unittest

from filtering import FilterService, NextHop, dialogue, lmtp_dialogue, services
from postfix import SMTP, PrivatePostfix, SMTPSink, free_port, wait_until

RECIPIENTS = ["b@example.com", "c@example.com", "d@example.com"]
RULES = "/^Subject: (.*)/ REPLACE Subject: [$1]\n"
# Deferred mail is tried again as soon as it is flushed.
RETRY = {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s", "queue_run_delay": "1s"}


@contextlib.contextmanager
def filtered(next_hop, transport, main=None, protocol="smtp", patience="1800s", rules=RULES):
    """Yields a Postfix whose mail goes through Weir to `next_hop`; `transport` is the program that speaks to Weir.

    `patience` is how long it waits for a reply after the final dot.
    """
    with FilterService(free_port(), rules, listener={"next_hop": next_hop, "protocol": protocol}) as weir:
        service, *others = services(free_port())
        words = service.replace("smtp_", f"{transport}_").replace("done_timeout=1800s", f"done_timeout={patience}").split()
        words[7] = transport
        parameters = {"content_filter": f"weir:[127.0.0.1]:{weir.filter_port}", **(main or {})}
        with PrivatePostfix(main=parameters, services=[" ".join(words), *others]) as postfix:
            yield postfix


class LMTP(unittest.TestCase):
    def send(self, transport, **options):
        """The recipients of each delivery of a message to three."""
        with SMTPSink("-L") as sink, filtered(f"lmtp:127.0.0.1:{sink.port}", transport, **options) as postfix:
            with SMTP(postfix.port) as client:
                self.assertEqual(client.mail("a@example.org", RECIPIENTS)[-1][0], 250)
            self.drain(postfix)
            messages = sink.messages()
            for message in messages:
                self.assertIn(b"Subject: [test]\n", message["content"])
            self.assertEqual(postfix.log().count("status=sent"), 3, postfix.log())
            return sorted(sorted(message["recipients"]) for message in messages)

    def drain(self, postfix):
        def is_drained():
            postfix.command("postqueue", "-f")
            return not postfix.queue()
        wait_until(is_drained, lambda: f"the queue drained\n{postfix.log()}", interval=0.5)

    def test_from_lmtp(self):
        self.assertEqual(self.send("lmtp", protocol="lmtp"), [RECIPIENTS])

    def test_from_smtp(self):
        one_each = [[recipient] for recipient in RECIPIENTS]
        self.assertEqual(self.send("smtp", main={"weir_destination_recipient_limit": "1"}), one_each)

    def test_from_smtp_with_all_recipients_at_once(self):
        """Those behind the first come again. They are neither lost nor doubled."""
        self.assertEqual(self.send("smtp"), [[recipient] for recipient in RECIPIENTS])

    def test_a_slow_server_doubles_nothing(self):
        """lmtp(8) gives up before the third reply. It sends the message again to that recipient only."""
        def reply(number, recipient, lines):
            if number == 2:
                # The client of this connection is gone when it ends.
                next(lines)
            return b"250 2.1.5 Ok"

        self.assertEqual(self.deliveries(reply, patience="2s"), RECIPIENTS)

    def test_a_deferred_copy_or_recipient_doubles_nothing(self):
        deferred = ["archive@example.com", "c@example.com"]

        def reply(number, recipient, lines):
            if recipient in deferred:
                deferred.remove(recipient)
                return b"452 4.2.2 full"
            return b"250 2.1.5 Ok"

        deliveries = self.deliveries(reply, rules="/^Subject:/ BCC archive@example.com\n")
        self.assertEqual(deliveries, ["archive@example.com", *RECIPIENTS])
        self.assertEqual(deferred, [])

    def deliveries(self, reply, **options):
        """The recipients that have the message in the end, each as often as it arrived."""
        delivered = []
        with NextHop(lmtp_dialogue(delivered, reply)) as hop, filtered(
                f"lmtp:127.0.0.1:{hop.port}", "lmtp", RETRY, "lmtp", **options) as postfix:
            with SMTP(postfix.port) as client:
                self.assertEqual(client.mail("a@example.org", RECIPIENTS)[-1][0], 250)
            self.drain(postfix)
            return sorted(delivered)


class HELO(unittest.TestCase):
    def test_a_server_without_ehlo(self):
        messages = []
        replies = {"EHLO": "502 5.5.1 what", "HELO": "250 hop.example.org", "XFORWARD": "502 5.5.1 what"}
        with NextHop(dialogue(replies, messages)) as hop, filtered(f"inet:127.0.0.1:{hop.port}", "smtp") as postfix:
            with SMTP(postfix.port) as client:
                self.assertEqual(client.mail("a@example.org", RECIPIENTS[:1], "Subject: grün\n\nsüß\n")[-1][0], 250)
            wait_until(lambda: messages, postfix.log)
            postfix.wait_drained()
            envelope, content = messages[0]
            self.assertEqual(envelope[:2], ["MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"])
            # disable_mime_output_conversion: as it is.
            self.assertIn("Subject: [grün]\r\n".encode(), content)
            self.assertTrue(content.endswith("\r\n\r\nsüß\r\n".encode()))


if __name__ == "__main__":
    unittest.main()
