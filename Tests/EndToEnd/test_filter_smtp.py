# SPDX-License-Identifier: Apache-2.0
"""The SMTP filter alone: input, output, and misbehaving next hops and clients."""
import contextlib
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
import unittest

from filtering import FilterService, NextHop, dialogue
from postfix import SMTP, SMTPSink, accepts, connect, free_port, run, wait_until
from weir import check_memory

MESSAGE = b"Subject: test\r\nTo: b@example.com\r\n\r\nbody\r\n"


class Client(SMTP):
    """Sends messages as bytes."""

    def deliver(self, content, sender="a@example.org", recipients=("b@example.com",)):
        """Sends content with its final dot; returns the replies to each RCPT, to DATA and to the content."""
        self.command(f"MAIL FROM:<{sender}>", 250)
        replies = [self.command(f"RCPT TO:<{recipient}>") for recipient in recipients]
        if any(code == 250 for code, _ in replies):
            self.command("DATA", 354)
            self.socket.sendall(content)
            replies.append(self.expect())
        return replies


class Filter(unittest.TestCase):
    def pass_through(self, content, **options):
        """The bytes that the next hop receives for `content` and the final dot, and the reply."""
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port, **options) as weir:
            with Client(weir.filter_port) as client:
                reply = client.deliver(content)[-1]
            return messages, reply

    def test_bytes_are_unchanged(self):
        lines = [b"Subject: =?utf-8?q?x?=", b"To:  b@example.com,", b"\tc@example.com", b"X-Empty:", b"", b"..", b"...x", b"\0\xff", b"x" * 3000, b"", b""]
        content = b"\r\n".join(lines) + b"\r\n"
        messages, reply = self.pass_through(content + b".\r\n")
        self.assertEqual(reply[0], 250)
        self.assertEqual([content for _, content in messages], [content])

    def test_large_message_through_the_spool(self):
        line = b".".join(b"%06d" % number for number in range(11)) + b"\r\n"
        content = b"Subject: large\r\n\r\n" + b"..dot\r\n" + line * 150_000
        for header, expected in (("", content), ("/^Subject:/ PREPEND X-Checked: yes\n", b"X-Checked: yes\r\n" + content)):
            with self.subTest(header=header):
                messages, reply = self.pass_through(content + b".\r\n", header=header)
                self.assertEqual(reply[0], 250)
                self.assertTrue(messages[0][1] == expected, (len(messages[0][1]), len(expected)))

    def test_smuggling(self):
        """SMTP smuggling: any disputed end of data results in one message, without bare CR or LF."""
        for mark in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r.\n", b"\r\n.\r\r\n", b"\r\r\n.\n",
                     b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\n\n.\r\n"):
            smuggled = b"MAIL FROM:<x@example.org>\r\nRCPT TO:<y@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n"
            with self.subTest(mark=mark):
                messages, reply = self.pass_through(b"Subject: a\r\n\r\nb" + mark + smuggled + b".\r\n")
                self.assertEqual(reply[0], 250)
                self.assertEqual(len(messages), 1)
                content = messages[0][1]
                self.assertIn(b"Subject: smuggled\r\n", content)
                self.assertNotRegex(content, rb"(?<!\r)\n|\r(?!\n)")
                self.assertNotRegex(content, rb"(?m)^\.\r$")

    def test_rules_see_lines_without_stuffing(self):
        messages, reply = self.pass_through(b"\r\n..x\r\n.\r\n", body="/^\\.x$/ REPLACE .y\n/^\\.\\./ REJECT\n")
        self.assertEqual((reply[0], messages[0][1]), (250, b"\r\n..y\r\n"))

    def test_envelope_and_parameters(self):
        messages = []
        greeting = "250-hop\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-STARTTLS\r\n250-CHUNKING\r\n250-AUTH PLAIN\r\n250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"
        with NextHop(dialogue({"EHLO": greeting}, messages)) as hop, FilterService(hop.port) as weir:
            with Client(weir.filter_port, helo=None) as client:
                _, text = client.command("EHLO client.example.org", 250)
                offered = text.split("\n")[1:]
                self.assertEqual(sorted(offered), sorted([
                    "PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"]))
                forward = ["XFORWARD NAME=c.example.com ADDR=192.0.2.1 PORT=25", "XFORWARD PROTO=ESMTP HELO=x IDENT=4F SOURCE=REMOTE"]
                for line in forward:
                    client.command(line, 250)
                envelope = ["MAIL FROM:<a@example.org> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x", "RCPT TO:<b@example.com> NOTIFY=FAILURE ORCPT=rfc822;b@example.com"]
                for line in envelope:
                    client.command(line, 250)
                client.command("DATA", 354)
                client.send(MESSAGE + b".\r\n")
                client.expect(250)
        self.assertEqual([line for line in messages[0][0] if line != "DATA"], envelope)

    def test_reply_codes_are_relayed(self):
        for replies, expected in (
            ({"MAIL": "550 5.1.8 no such sender"}, [(550, "5.1.8 no such sender")]),
            ({"RCPT": "450 4.2.0 greylisted"}, [(450, "4.2.0 greylisted")]),
            ({"RCPT": "251-one\r\n251 two"}, None),
            ({"DATA": "451 4.3.5 later"}, [(250, "Ok"), (451, "4.3.5 later")]),
            # A malformed reply is an error of the next hop, and never an acceptance.
            ({"DATA": "250 2.0.0 Ok"}, [(250, "Ok"), (451, "4.5.0 Error: protocol error of the next hop")]),
            ({"MAIL": b"354 go\r\n"}, [(451, "4.5.0 Error: protocol error of the next hop")]),
            ({".": "554 5.6.0 bad content"}, [(250, "Ok"), (554, "5.6.0 bad content")]),
            ({".": "250 2.0.0 Ok: queued as 4F"}, [(250, "Ok"), (250, "2.0.0 Ok: queued as 4F")]),
        ):
            with self.subTest(replies=replies), NextHop(dialogue(replies)) as hop, FilterService(hop.port) as weir:
                with Client(weir.filter_port) as client:
                    if expected is None:
                        client.command("MAIL FROM:<>", 250)
                        self.assertEqual(client.command("RCPT TO:<b@example.com>"), (251, "one\ntwo"))
                    else:
                        self.assertEqual(client.deliver(MESSAGE + b".\r\n"), expected)

    def test_failing_next_hop(self):
        """Every kind of failure at every step: the client keeps its mail, and the service accepts the next message."""
        for step in ("", "EHLO", "MAIL", "RCPT", "DATA", "."):
            for reply in (None, "421 4.3.2 stopping", b"garbage\r\n", b"250-a\r\n251 b\r\n", b"x" * 3000):
                with self.subTest(step=step, reply=reply), NextHop(dialogue({step: reply})) as hop, FilterService(hop.port) as weir:
                    codes = []
                    try:
                        with Client(weir.filter_port) as client:
                            codes = [code for code, _ in client.deliver(MESSAGE + b".\r\n")]
                    except AssertionError as error:
                        codes = [int(code) for code in re.findall(r"S: (\d+)", str(error))]
                    self.assertIn(codes[-1], (421, 451))
                    self.assertTrue(weir.is_running)

    def test_next_hop_is_down(self):
        with FilterService(free_port()) as weir:
            with Client(weir.filter_port, helo=None) as client:
                self.assertEqual(client.command("EHLO client.example.org")[0], 421)

    def test_next_hop_restarts(self):
        """No mail is lost if the next hop has closed idle connections."""
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port) as weir, Client(weir.filter_port) as client:
            for _ in range(5):
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)
                hop.connections[-1].shutdown(socket.SHUT_RDWR)
        self.assertEqual(len(messages), 5)

    def test_next_hop_announces_close(self):
        """421 to the first command on an idle connection is not the reply to that command."""
        messages = []

        def serve(lines, connection):
            mails = 0

            def watched():
                nonlocal mails
                for line in lines:
                    mails += line.startswith(b"MAIL")
                    if mails == 2:
                        connection.sendall(b"421 4.4.2 timeout exceeded\r\n")
                        return
                    yield line

            dialogue({}, messages)(watched(), connection)

        with NextHop(serve) as hop, FilterService(hop.port) as weir, Client(weir.filter_port) as client:
            for _ in range(3):
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)
        self.assertEqual(len(messages), 3)

    def test_next_hop_on_a_unix_socket(self):
        """Mail is accepted. While the next hop is down, connect(2) fails at once, and the reply is 421."""
        messages = []
        directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, directory)
        hop = NextHop(dialogue({}, messages))
        hop.listener.close()
        hop.listener = socket.socket(socket.AF_UNIX)
        hop.listener.bind(str(directory / "hop"))
        hop.listener.listen()
        with hop, FilterService(1, listener={"next_hop": f"unix:{directory}/hop"}) as weir:
            with Client(weir.filter_port) as client, Client(weir.filter_port) as other:
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)
                (directory / "hop").unlink()
                for connection in hop.connections:
                    connection.shutdown(socket.SHUT_RDWR)
                other.command("MAIL FROM:<>", 250)
                other.command("RCPT TO:<b@example.com>", 421)
        self.assertEqual(len(messages), 1)

    def test_next_hop_out_of_step(self):
        """An extra reply is not mistaken for the acceptance of a message, and its connection is not reused."""
        for reply in (b"250 late\r\n354 go\r\n", b"354 go\r\n250 early\r\n"):
            messages = []

            def serve(lines, connection):
                replies = {"DATA": reply} if len(hop.connections) == 1 else {}
                dialogue(replies, messages)(lines, connection)

            with self.subTest(reply=reply), NextHop(serve) as hop, FilterService(hop.port) as weir, Client(weir.filter_port) as client:
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 451)
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)
                self.assertEqual((len(messages), len(hop.connections)), (1, 2))

    def test_connections_are_reused(self):
        with NextHop(dialogue({})) as hop, FilterService(hop.port) as weir:
            with Client(weir.filter_port) as client:
                for _ in range(20):
                    client.deliver(MESSAGE + b".\r\n")
                client.deliver(b"Subject: spam\r\n\r\n.\r\n")
            self.assertEqual(len(hop.connections), 1)

    def test_loop(self):
        port = free_port()
        with FilterService(port) as weir:
            weir.stop()
            listener = weir.config["listen"]["filter"][0]
            other = {"listen": f"inet:127.0.0.1:{port}", "next_hop": listener["listen"]}
            weir.config["listen"]["filter"] = [listener, other]
            weir.configure()
            weir.start()
            with Client(weir.filter_port, helo=None) as client:
                self.assertEqual(client.command("EHLO x")[0], 421)
            weir.wait_logged("mail loop")

    # Verdicts

    def verdict(self, header="", body="", content=MESSAGE, replies=None):
        messages = []
        with NextHop(dialogue(replies or {}, messages)) as hop, FilterService(hop.port, header, body) as weir:
            with Client(weir.filter_port) as client:
                reply = client.deliver(content + b".\r\n")[-1]
                self.assertEqual(client.deliver(b"X: y\r\n\r\n.\r\n")[-1][0], 250)
        self.assertEqual(messages.pop()[1], b"X: y\r\n\r\n")
        return reply, messages

    def test_reject(self):
        self.assertEqual(self.verdict("/^Subject: test/ REJECT 5.7.9 no tests"), ((550, "5.7.9 no tests"), []))
        self.assertEqual(self.verdict(body="/^body/ REJECT 4.7.1 later"), ((451, "4.7.1 later"), []))

    def test_discard(self):
        self.assertEqual(self.verdict("/^Subject: test/ DISCARD"), ((250, "2.0.0 Ok: discarded"), []))

    def test_redirect_and_bcc(self):
        reply, messages = self.verdict("/^Subject: test/ REDIRECT r@example.com")
        self.assertEqual(reply[0], 250)
        self.assertEqual(messages[0][0][:2], ["MAIL FROM:<a@example.org>", "RCPT TO:<r@example.com>"])
        _, messages = self.verdict("/^Subject: test/ BCC c@example.com")
        self.assertEqual(messages[0][0][1:3], ["RCPT TO:<b@example.com>", "RCPT TO:<c@example.com>"])
        # Once, and without a bounce, which would reveal the copy to the sender.
        _, messages = self.verdict("/^(Subject|To):/ BCC c@example.com", replies={"EHLO": "250-hop.example.org\r\n250 DSN"})
        self.assertEqual(messages[0][0][1:], ["RCPT TO:<b@example.com>", "RCPT TO:<c@example.com> NOTIFY=NEVER", "DATA"])

    def test_edits(self):
        _, messages = self.verdict("/^Subject: (.*)/ PREPEND X-Old: $1\n/^To:/ STRIP\n", "/^bo(dy)/ REPLACE $1")
        self.assertEqual(messages[0][1], b"X-Old: test\r\nSubject: test\r\n\r\ndy\r\n")

    def test_hold_and_filter_can_not_be_forged(self):
        forged = b"x-weir-verdict: HOLD\r\nX-WEIR-Verdict :\r\n FILTER x:y\r\n"
        _, messages = self.verdict("/^Subject: test/ FILTER smtp:example.org", content=forged + MESSAGE)
        self.assertEqual(messages[0][1], b"X-Weir-Verdict: FILTER smtp:example.org\r\n" + MESSAGE)
        # Text that is not a header never continues it.
        _, messages = self.verdict(body="/^ text/ HOLD", content=b" text\r\n")
        self.assertEqual(messages[0][1], b"X-Weir-Verdict: HOLD\r\n\r\n text\r\n")
        _, messages = self.verdict(body="/^ text/ HOLD", content=b"\rtext\r\n")
        self.assertEqual(messages[0][1], b"X-Weir-Verdict: HOLD\r\n\r\n text\r\n")
        # A rule for MIME headers can't add it either.
        typed = b"Content-Type: x; name=\"X-Weir-Verdict: HOLD\"\r\n\r\n"
        _, messages = self.verdict("/^Content-Type:.*\"(.*)\"/ REPLACE $1", content=typed)
        self.assertEqual(messages[0][1], typed)
        _, messages = self.verdict("/^X-Say: (.*)/ REPLACE $1", content=b"X-Say: X-Weir-Verdict: HOLD\r\n" + MESSAGE)
        self.assertEqual(messages[0][1], b"X-Say: X-Weir-Verdict: HOLD\r\n" + MESSAGE)

    # Clients

    def test_lmtp(self):
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port, listener={"protocol": "lmtp"}) as weir:
            with Client(weir.filter_port, helo=None) as client:
                client.command("LHLO x", 250)
                client.deliver(MESSAGE + b".\r\n", recipients=["b@example.com", "c@example.com"])
                client.expect(250)
        self.assertEqual(len(messages), 1)

    def test_over_size(self):
        """Even if MAIL did not announce the size; the connection stays open."""
        with NextHop(dialogue({"EHLO": "250-hop\r\n250 SIZE 1000"})) as hop, FilterService(hop.port) as weir:
            with Client(weir.filter_port) as client:
                self.assertEqual(client.deliver(b"\r\n" + b"x" * 40_000_000 + b"\r\n.\r\n")[-1][0], 552)
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)

    def test_line_of_10_MB_and_10000_recipients(self):
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port) as weir, Client(weir.filter_port) as client:
            content = b"\r\n" + b"x" * 10_000_000 + b"\r\n"
            client.send(b"MAIL FROM:<>\r\n" + b"".join(b"RCPT TO:<r%d@example.com>\r\n" % number for number in range(10_000)) + b"DATA\r\n")
            for _ in range(10_001):
                client.expect(250)
            client.expect(354)
            client.send(content + b".\r\n")
            client.expect(250)
            self.assertEqual(len([line for line in messages[0][0] if line.startswith("RCPT")]), 10_000)
            self.assertTrue(messages[0][1] == content)

    def test_rubbish(self):
        with NextHop(dialogue({})) as hop, FilterService(hop.port) as weir:
            for rubbish in (b"EHLO " + b"x" * 1_000_000, b"\0" * 100_000, b"\r\n" * 100_000, b"NOOP\n" * 100, b"X\r\n" * 10_000, b"GET / HTTP/1.1\r\n\r\n" * 100):
                with self.subTest(rubbish=rubbish[:10]), connect(weir.filter_port) as client:
                    received = b""
                    try:
                        client.sendall(rubbish)
                        while data := client.recv(65536):
                            received += data
                    except (ConnectionResetError, BrokenPipeError):
                        pass
            with Client(weir.filter_port) as client:
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)

    def test_reply_to_a_client_that_keeps_sending(self):
        """Data in flight when the filter closes the connection must not cost the client the reply."""
        with NextHop(dialogue({})) as hop, FilterService(hop.port) as weir:
            with connect(weir.filter_port) as client:
                client.recv(1024)
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    client.sendall(b"x" * 1_000_000)
                received = b""
                while data := client.recv(65536):
                    received += data
                self.assertIn(b"421 4.5.2", received)

    def test_client_disconnects(self):
        """A client that disconnects in the middle of a message, or before its final dot: nothing is delivered."""
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port) as weir:
            for part in (b"", b"Subject: x\r\n", MESSAGE, MESSAGE + b".", MESSAGE + b".\r"):
                with Client(weir.filter_port) as client:
                    client.command("MAIL FROM:<>", 250)
                    client.command("RCPT TO:<b@example.com>", 250)
                    client.command("DATA", 354)
                    client.send(part)
            with Client(weir.filter_port) as client:
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)
            self.assertEqual(len(messages), 1)

    def test_half_closed_client(self):
        """Complete messages are delivered and answered, up to the last command."""
        messages = []
        large = b"\r\n" + (b"x" * 70 + b"\r\n") * 20_000
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port) as weir:
            for content in (MESSAGE, large):
                with Client(weir.filter_port, helo=None) as client:
                    client.send(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n" + content + b".\r\nQUIT\r\n")
                    client.socket.shutdown(socket.SHUT_WR)
                    self.assertEqual([client.reply()[0] for _ in range(6)], [250, 250, 250, 354, 250, 221])
            # Incomplete commands and content are dropped.
            for part in (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n" + MESSAGE, b"EHLO x\r\nQUI"):
                with Client(weir.filter_port, helo=None) as client:
                    client.send(part)
                    client.socket.shutdown(socket.SHUT_WR)
                    codes = [line[:3] for line in client.reader]
                    self.assertNotIn(b"221", codes)
                    self.assertEqual(codes.count(b"354"), b"DATA" in part)
        self.assertEqual(len(messages), 2)

    def test_bound_of_the_spool(self):
        """Without memory or spool space the reply is 452; afterwards mail is accepted again."""
        large = b"\r\n" + (b"x" * 70 + b"\r\n") * 20_000
        with NextHop(dialogue({})) as hop, FilterService(hop.port, bounds={"most_spool": 1}) as weir:
            with Client(weir.filter_port) as client:
                self.assertEqual(client.deliver(large + b".\r\n")[-1], (452, "4.3.1 Insufficient system storage"))
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)
            weir.wait_logged("mail is deferred: the spool is full")

    def test_full_disk(self):
        """While a spool file can't grow to the size of its message, the reply is 452; afterwards the message is accepted."""
        large = b"\r\n" + (b"x" * 70 + b"\r\n") * 30_000
        with NextHop(dialogue({})) as hop, FilterService(hop.port) as weir:
            run(["prlimit", "--pid", str(weir.pid), "--fsize=1000000:unlimited"])
            with Client(weir.filter_port) as client:
                for _ in range(3):
                    self.assertEqual(client.deliver(large + b".\r\n")[-1], (452, "4.3.1 Insufficient system storage"))
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)
                weir.wait_logged("mail is deferred: can't write to a spool file")
                run(["prlimit", "--pid", str(weir.pid), "--fsize=unlimited:unlimited"])
                self.assertEqual(client.deliver(large + b".\r\n")[-1][0], 250)

    def test_no_spool_directory(self):
        with NextHop(dialogue({})) as hop, FilterService(hop.port, bounds={"spool": "/nonexistent"}) as weir:
            with Client(weir.filter_port) as client:
                self.assertEqual(client.deliver(b"\r\n" + b"x\r\n" * 200_000 + b".\r\n")[-1][0], 452)
                self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)

    # Life cycle

    def test_stop_finishes_messages_in_progress(self):
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port) as weir:
            with Client(weir.filter_port) as busy, Client(weir.filter_port) as idle:
                busy.command("MAIL FROM:<>", 250)
                busy.command("RCPT TO:<b@example.com>", 250)
                busy.command("DATA", 354)
                busy.send(b"Subject: x\r\n")
                weir.process.send_signal(signal.SIGTERM)
                idle.expect(421)
                busy.send(b"\r\n.\r\n")
                busy.expect(250)
                busy.expect(421)
            self.assertEqual(weir.process.wait(20), 0)
            self.assertEqual(len(messages), 1)

    def test_reload_between_two_messages(self):
        with NextHop(dialogue({})) as hop, FilterService(hop.port) as weir, Client(weir.filter_port) as client:
            self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 250)
            (weir.directory / "header.pcre").write_text("/^Subject: test/ REJECT\n")
            weir.reload()
            weir.wait_logged("reloaded")
            self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 550)
            (weir.directory / "header.pcre").unlink()
            weir.reload()
            weir.wait_logged("was rejected")
            self.assertEqual(client.deliver(MESSAGE + b".\r\n")[-1][0], 550)

    def test_many_sessions(self):
        """1,000 clients at once, some with 20 MB: all are served, in bounded memory."""
        large = (b"\r\n" + b"y" * 70) * (20_000_000 // 72)
        with SMTPSink("-m", "2000") as sink, FilterService(sink.port) as weir:
            clients = [connect(weir.filter_port) for _ in range(1_000)]
            readers = [client.makefile("rb") for client in clients]

            def send(client, *pieces):
                for piece in (*pieces, b"\r\n.\r\n"):
                    client.sendall(piece)

            try:
                for line, ends in ((b"EHLO x\r\n", True), (b"MAIL FROM:<>\r\n", False), (b"RCPT TO:<b@example.com>\r\n", False), (b"DATA\r\n", False)):
                    for client in clients:
                        client.sendall(line)
                    if ends:
                        for reader in readers:
                            while not reader.readline().startswith(b"250 "):
                                pass
                for reader in readers:
                    self.assertEqual([reader.readline()[:3] for _ in range(3)], [b"250", b"250", b"354"])
                threads = [threading.Thread(target=send, args=(client, b"\r\nx", large if number < 50 else large[:3_600]))
                           for number, client in enumerate(clients)]
                for thread in threads:
                    thread.start()
                for thread, reader in zip(threads, readers):
                    thread.join(60)
                    self.assertEqual(reader.readline()[:3], b"250")
                peak = int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{weir.pid}/status").read())[1])
                check_memory(self, peak, 300 * 1024)
            finally:
                for client in clients:
                    client.close()


class Kills(unittest.TestCase):
    def test_kill_of_the_service_at_every_step(self):
        """Messages with a 250 reply have arrived; others have not, unless the reply was lost."""
        steps = ["EHLO x", "MAIL FROM:<>", "RCPT TO:<b@example.com>", "DATA", "content", "."]
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(hop.port) as weir:
            for round_ in range(5):
                for number in range(len(steps)):
                    before = len(messages)
                    with Client(weir.filter_port, helo=None) as client:
                        for step in steps[:number + 1]:
                            if step == "content":
                                client.send(MESSAGE)
                            elif step == ".":
                                client.send(b".\r\n")
                                time.sleep(0.001 * round_)
                            else:
                                client.command(step)
                        weir.kill()
                        answered = False
                        if number == 5:
                            try:
                                answered = client.reply()[0] == 250
                            except (AssertionError, OSError):
                                pass
                    wait_until(
                        lambda: all(end.fileno() < 0 for end in hop.connections), "the next hop has read everything")
                    arrived = len(messages) - before
                    self.assertLessEqual(arrived, 1 if number == 5 else 0)
                    if answered:
                        self.assertEqual(arrived, 1)
                    weir.start()

    def test_kill_of_the_next_hop_and_of_senders(self):
        """Thousands of messages while both ends are killed repeatedly: those with a 250 reply have arrived, and in the end all do."""
        senders, count, port = 4, 500, free_port()
        directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, directory)
        random.seed(1)

        def hop():
            """Records the number of each message, then replies 250."""
            file = os.open(directory / "arrived", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            listener = socket.create_server(("127.0.0.1", port), backlog=200)

            class Note(list):
                def append(self, message):
                    os.write(file, re.search(rb"X-Number: (.*)\r\n", message[1])[1] + b"\n")

            take = dialogue({}, Note())
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(take, connection), daemon=True).start()

        def serve(take, connection):
            with contextlib.suppress(OSError, StopIteration, ValueError), connection:
                take(iter(connection.makefile("rb").readline, b""), connection)

        def sender(name, weir_port):
            """Sends each message until the reply is 250; after a restart, continues after the last one."""
            file = directory / f"answered-{name}"
            done = len(file.read_text().splitlines()) if file.exists() else 0
            with open(file, "a", buffering=1) as answered:
                while done < count:
                    with contextlib.suppress(AssertionError, OSError), Client(weir_port) as client:
                        while done < count:
                            number = f"{name}-{done}"
                            if client.deliver(f"X-Number: {number}\r\n\r\nbody\r\n.\r\n".encode())[-1][0] != 250:
                                break
                            answered.write(number + "\n")
                            done += 1

        def start(target, *arguments):
            process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
            process.start()
            return process

        kills = 0
        with FilterService(port) as weir:
            end = start(hop)
            wait_until(lambda: accepts(port), "the next hop")
            running = [start(sender, str(name), weir.filter_port) for name in range(senders)]
            while any(process.is_alive() or process.exitcode for process in running):
                time.sleep(random.random() / 10)
                if kills < 40:
                    kills += 1
                    if kills % 2:
                        end.kill()
                        end.join()
                        end = start(hop)
                    else:
                        running[kills // 2 % senders].kill()
                for name, process in enumerate(running):
                    if not process.is_alive() and process.exitcode:
                        process.join()
                        running[name] = start(sender, str(name), weir.filter_port)
            end.kill()
            end.join()
            self.assertTrue(weir.is_running)
        arrived = (directory / "arrived").read_text().splitlines()
        expected = {f"{name}-{number}" for name in range(senders) for number in range(count)}
        self.assertEqual(set(arrived), expected)
        # A duplicate only if a final reply was lost: at most one per sender and kill.
        self.assertLessEqual(len(arrived) - len(expected), kills * senders)


if __name__ == "__main__":
    unittest.main()
