# SPDX-License-Identifier: Apache-2.0
"""A real Postfix in front of the filter, and behind it a server that speaks LMTP, or SMTP without EHLO."""
import contextlib
import unittest

from filtering import FilterService, NextHop, dialogue, services
from postfix import SMTP, PrivatePostfix, SMTPSink, free_port, wait_until

RECIPIENTS = ["b@example.com", "c@example.com", "d@example.com"]
RULES = "/^Subject: (.*)/ REPLACE Subject: [$1]\n"


@contextlib.contextmanager
def filtered(next_hop, transport, main=None, protocol="smtp", patience="1800s"):
    """Yields a Postfix whose mail goes through Weir to `next_hop`; `transport` is the program that speaks to Weir.

    `patience` is how long it waits for a reply after the final dot.
    """
    with FilterService(free_port(), RULES, listener={"next_hop": next_hop, "protocol": protocol}) as weir:
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
        delivered, greetings = [], []

        def serve(lines, connection):
            def say(text):
                connection.sendall(text + b"\r\n")
            say(b"220 hop.example.org")
            recipients = []
            for line in lines:
                word = line[:4].upper()
                if word == b"LHLO":
                    greetings.append(line)
                elif word == b"RCPT":
                    recipients.append(line.split(b"<")[1].split(b">")[0].decode())
                elif word in (b"MAIL", b"RSET"):
                    recipients = []
                say({b"LHLO": b"250 hop.example.org", b"DATA": b"354 go"}.get(word, b"250 Ok"))
                if word != b"DATA":
                    continue
                while next(lines) != b".\r\n":
                    pass
                for number, recipient in enumerate(recipients):
                    if number == 2:
                        # The client of this connection is gone when it ends.
                        next(lines)
                    delivered.append(recipient)
                    say(b"250 2.1.5 Ok")

        main = {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s", "queue_run_delay": "1s"}
        with NextHop(serve) as hop, filtered(f"lmtp:127.0.0.1:{hop.port}", "lmtp", main, "lmtp", "2s") as postfix:
            with SMTP(postfix.port) as client:
                self.assertEqual(client.mail("a@example.org", RECIPIENTS)[-1][0], 250)
            self.drain(postfix)
            self.assertEqual(sorted(delivered), RECIPIENTS, postfix.log())


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
