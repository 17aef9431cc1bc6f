# SPDX-License-Identifier: Apache-2.0
"""The milter protocol with old, new and misbehaving MTAs: packets by hand."""
import pathlib
import signal
import struct
import threading
import time
import unittest

from milter import ACTIONS, MTA, MilterService, text
from postfix import accepts, run, wait_until
from weir import UnixConnection, check_memory, get, samples

RULES = """\
/^Subject: reject/ REJECT no
/^Subject: hold/ HOLD
/^X-Old:/ REPLACE X-New: value
/^X-Gone:/ IGNORE
/^X-Mark:/ PREPEND X-Above: put in
/^X-To:/ REDIRECT other@example.com
"""
BODY = "/^drop/ IGNORE\n"
HEADERS = [("From", " a@example.org"), ("X-Mark", " 1")]


def change(index, name, value):
    return "m", struct.pack(">I", index) + text(name) + text(value)


def insert(position, name, value):
    return "i", struct.pack(">I", position) + text(name) + text(value)


def metric(weir, name):
    return samples(get(UnixConnection(weir.admin_socket), "/metrics")[1]).get(name, 0)


class Dialogue(unittest.TestCase):
    def test_all_versions_get_the_same_edits(self):
        headers = [("X-Gone", " 1"), ("X-Old", " 2"), ("x-gone", " 3"), ("X-Mark", " 4"), ("X-Gone", " 5")]
        with MilterService(RULES, BODY) as weir:
            for version, options in ((6, 0x1FFFFF), (6, 0), (4, 0x3FF), (2, 0x7F)):
                with self.subTest(version=version, options=options), weir.mta(version=version, options=options) as mta:
                    self.assertEqual(mta.version, version)
                    mta.connect()
                    for _ in range(2):
                        mta.mail()
                        replies = mta.content(headers, b"keep\r\ndrop\r\nkeep\r\n")
                        space = " " if mta.options & 0x100000 else ""
                        self.assertEqual(replies, [
                            change(3, "x-gone", ""), insert(4, "X-Above", f"{space}put in"), change(2, "x-gone", ""),
                            change(1, "x-old", ""), insert(2, "X-New", f"{space}value"), change(1, "x-gone", ""),
                            ("b", b"keep\r\nkeep\r\n"), ("c", b"")])

    def test_edits_that_are_not_granted(self):
        """on_failure decides about a message whose edits the MTA does not grant."""
        for on_failure, last in (("dunno", "c"), ("defer", "t")):
            with MilterService(RULES, BODY, on_failure=on_failure) as weir:
                for missing, subject in ((0x20, "hold"), (0x10, "x"), (0x2, "x")):
                    with self.subTest(on_failure=on_failure, missing=missing), weir.mta(actions=ACTIONS & ~missing) as mta:
                        mta.connect()
                        mta.mail()
                        headers = [("Subject", f" {subject}")] + ([("X-Gone", " 1")] if missing == 0x10 else [])
                        body = b"drop\r\n" if missing == 0x2 else b""
                        replies = mta.content(headers, body)
                        if missing == 0x2:
                            # The same if the body may not be changed.
                            self.assertEqual(replies[-1][0], last, replies)
                        else:
                            self.assertEqual(replies, [(last, b"")])
                wait_until(lambda: "does not grant the edits" in weir.log(), weir.log)

    def test_a_part_in_another_form_than_postfix(self):
        """If the MTA does not grant body changes, a change that no rule asks for is omitted; the verdict still applies."""
        headers = [("Subject", " hold"), ("X-Gone", " 1"), ("MIME-Version", " 1.0"), ("Content-Type", " multipart/mixed; boundary=b")]
        body = b"--b\r\nX-Odd : 1\r\n\r\n" + b"text\r\n" * 50_000 + b"--b--\r\n"
        for checks in ({}, {"mime_header": [], "nested_header": []}):
            with self.subTest(checks=checks), MilterService("/^Subject: hold/ HOLD\n/^X-Gone:/ IGNORE\n", "/^evil/ REJECT\n", checks=checks) as weir:
                with weir.mta(actions=ACTIONS & ~0x2) as mta:
                    mta.mail()
                    self.assertEqual([command for command, _ in mta.content(headers, body)], ["m", "q", "c"])
                with weir.mta() as mta:
                    mta.mail()
                    self.assertEqual([command for command, _ in mta.content(headers, body) if command != "b"], ["m", "q", "c"])

    def test_reload_without_body_changes(self):
        """A connection keeps its negotiated terms after a reload. The body is sent back as it was received."""
        headers = [("From", " a@example.org"), ("MIME-Version", " 1.0"), ("Content-Type", " multipart/mixed; boundary=b")]
        with MilterService("", BODY) as weir, weir.mta() as mta:
            mta.mail()
            self.assertEqual(mta.content(HEADERS, b"drop\r\nkeep\r\n"), [("b", b"keep\r\n"), ("c", b"")])
            (weir.directory / "body.pcre").write_text("/^drop/ REJECT\n")
            weir.reload()
            weir.wait_logged("reloaded")
            for size in (10, 100_000):
                text_ = b"x" * 70 + b"\r\n"
                mta.mail()
                replies = mta.content(headers, text_ * size + b"--b\r\nX-Odd : 1\r\n\r\n" + text_ + b"--b--\r\n")
                self.assertEqual(replies[-1], ("c", b""))
                new = b"".join(payload for command, payload in replies if command == "b")
                self.assertTrue(new == text_ * size + b"--b\r\nX-Odd: 1\r\n\r\n" + text_ + b"--b--\r\n")
            mta.mail()
            self.assertEqual(mta.content(HEADERS, b"drop\r\n")[-1][0], "y")

    def test_abort_and_quit_at_any_point(self):
        steps = [
            lambda mta: mta.connect(), lambda mta: mta.mail(), lambda mta: mta.send("L", text("Subject") + text(" x")),
            lambda mta: (mta.send("N"), mta.answer(0x40000)), lambda mta: mta.send("B", b"text\r\n")]
        with MilterService(RULES, BODY) as weir:
            for count in range(len(steps) + 1):
                with weir.mta() as mta:
                    for step in steps[:count]:
                        step(mta)
                    mta.send("A")
                    mta.mail()
                    self.assertEqual(mta.content([("Subject", " reject")]), [("y", text("550 5.7.1 no"))])
                    mta.send("K")
                    mta.connect()
                    mta.mail()
                    for step in steps[2:count]:
                        step(mta)
                    mta.send("Q")
                    self.assertTrue(mta.is_closed())
            self.assertNotIn("closed the milter connection", weir.log())

    def test_redirect_removes_all_recipients(self):
        with MilterService(RULES) as weir, weir.mta() as mta:
            mta.connect()
            mta.mail(recipients=("b@example.com", "c@example.com"))
            self.assertEqual(mta.content([("X-To", " x")]), [
                ("-", text("<b@example.com>")), ("-", text("<c@example.com>")), ("+", text("<other@example.com>")), ("c", b"")])

    def test_redirect_keeps_the_parameters_of_one_recipient(self):
        """The first one in the order of bytes, as in Postfix."""
        with MilterService(RULES) as weir:
            for actions in (ACTIONS, ACTIONS & ~0x80):
                with self.subTest(actions=actions), weir.mta(actions=actions) as mta:
                    mta.connect()
                    mta.send("M", text("<a@example.org>"))
                    for recipient, parameters in (("d", ["NOTIFY=SUCCESS"]), ("B", ["NOTIFY=NEVER", "ORCPT=rfc822;b"]), ("c", [])):
                        mta.send("R", text(f"<{recipient}@example.com>") + b"".join(map(text, parameters)))
                    added = ("2", text("<other@example.com>") + text("NOTIFY=NEVER ORCPT=rfc822;b"))
                    self.assertEqual(mta.content([("X-To", " x")])[-2:], [
                        added if actions & 0x80 else ("+", text("<other@example.com>")), ("c", b"")])

    def test_parameters_of_recipients(self):
        """The sender gets no notification about a copy, and a recipient in canonical form keeps its parameters."""
        copy = {"name": "sender", "key": ["sender"], "count": "messages", "rates": ["1/1h"], "over": "BCC copy@example.com"}
        with MilterService("/^X-Copy:/ BCC copy@example.com\n", limits=[copy], canonicalise="envelope") as weir:
            for actions in (ACTIONS, ACTIONS & ~0x80):
                with self.subTest(actions=actions), weir.mta(actions=actions) as mta:
                    mta.connect()
                    def added(recipient, parameters):
                        return ("2", text(recipient) + text(parameters)) if actions & 0x80 else ("+", text(recipient))
                    for _ in range(2):
                        mta.send("D", b"M" + text("i") + text("4ABC"))
                        mta.send("M", text("<a@example.org>"))
                        for parameters in (b"", text("NOTIFY=NEVER") + text("ORCPT=rfc822;b")):
                            mta.send("R", text(f"<b{len(parameters)}@EXAMPLE.com>") + parameters)
                            self.assertEqual(mta.reply(), ("c", b""))
                        replies = mta.content([("X-Copy", " 1"), ("X-Copy", " 2")])
                        self.assertEqual(replies, [
                            ("-", text("<b0@EXAMPLE.com>")), ("+", text("<b0@example.com>")),
                            ("-", text("<b28@EXAMPLE.com>")), added("<b28@example.com>", "NOTIFY=NEVER ORCPT=rfc822;b"),
                            added("<copy@example.com>", "NOTIFY=NEVER"), ("c", b"")])

    def test_body_with_the_end_of_message(self):
        """Old MTAs send the last piece of the body this way: one packet, one reply."""
        with MilterService("", "/^bad/ REJECT no\n") as weir, weir.mta(version=2, options=0x7F) as mta:
            for body, expected in ((b"bad\r\n", ("y", text("550 5.7.1 no"))), (b"good\r\n", ("c", b""))) * 2:
                mta.mail()
                mta.send("E", body)
                self.assertEqual(mta.reply(), expected)

    def test_empty_new_body(self):
        with MilterService("", BODY) as weir, weir.mta() as mta:
            mta.connect()
            mta.mail()
            self.assertEqual(mta.content(HEADERS, b"drop\r\ndrop\r\n"), [("b", b""), ("c", b"")])

    def test_packets_split_anywhere(self):
        stream = b"".join([
            MTA.packet("O", struct.pack(">III", 6, ACTIONS, 0x1FFFFF)), MTA.packet("C", text("x") + b"U"), MTA.packet("M", text("<a@example.org>")),
            MTA.packet("R", text("<b@example.com>")), MTA.packet("L", text("Subject") + text(" reject")), MTA.packet("B", b"x\r\n"), MTA.packet("E")])
        with MilterService(RULES, BODY) as weir:
            for cut in range(1, len(stream)):
                with weir.mta(negotiate=False) as mta:
                    mta.raw(stream[:cut])
                    mta.raw(stream[cut:])
                    self.assertEqual(mta.reply()[0], "O")
                    self.assertEqual(mta.reply(), ("y", text("550 5.7.1 no")))
            # Disconnect at every step: the service continues.
            for cut in range(1, len(stream)):
                with weir.mta(negotiate=False) as mta:
                    mta.raw(stream[:cut])
            with weir.mta() as mta:
                mta.mail()
                self.assertEqual(mta.content(HEADERS)[-1], ("c", b""))

    def test_limits_without_policy_requests(self):
        limit = {"name": "login", "key": ["sasl_username"], "rates": ["2/1h"]}
        with MilterService(limits=[limit]) as weir, weir.mta() as mta:
            mta.connect()
            replies = mta.mail(recipients=[f"r{number}@example.com" for number in range(4)], auth_authen="alice")
            self.assertEqual([command for command, _ in replies], ["c", "c", "y", "y"])
            self.assertEqual(mta.content(HEADERS)[-1], ("c", b""))
            mta.mail(recipients=["r@example.com"], auth_authen="bob")
            mta.send("A")
            self.assertEqual(weir.used_by_all("login"), {"alice": 2, "bob": 1})

    def test_late_abort(self):
        """The MTA does not wait after an abort, so the policy server may already know the client's next transaction."""
        limit = {"name": "sender", "key": ["sender"], "rates": ["100/1h"]}
        with MilterService(limits=[limit]) as weir, weir.mta() as mta, weir.client() as policy:
            def ask(instance):
                self.assertEqual(policy.ask(instance=instance, client_address="192.0.2.1", client_port="40000", sender="a@example.org"), "DUNNO")
            mta.connect(address="192.0.2.1", port=40000)
            ask("first")
            mta.mail()
            ask("second")
            mta.send("A")
            mta.mail()
            self.assertEqual(mta.content(HEADERS)[-1], ("c", b""))
            # Each was charged by the policy server alone.
            self.assertEqual(weir.used_by_all("sender"), {"a@example.org": 2})
            # A message that the policy server does not know is charged by the milter.
            mta.mail()
            self.assertEqual(mta.content(HEADERS)[-1], ("c", b""))
            self.assertEqual(weir.used_by_all("sender"), {"a@example.org": 3})

    def test_actions_of_limits(self):
        for action, expected in (
                ("HOLD too much", [("q", text("too much")), ("c", b"")]), ("DISCARD", [("d", b"")]),
                ("PREPEND X-Spam: yes", [insert(0, "X-Spam", " yes"), ("c", b"")]), ("BCC copy@example.com", [("2", text("<copy@example.com>") + text("NOTIFY=NEVER")), ("c", b"")]),
                ("WARN much", [("c", b"")])):
            limit = {"name": "sender", "key": ["sender"], "count": "messages", "rates": ["1/1h"], "over": action, "too_large": action}
            with self.subTest(action=action), MilterService(limits=[limit]) as weir, weir.mta() as mta:
                mta.connect()
                mta.mail()
                self.assertEqual(mta.content([("From", " a@example.org")]), [("c", b"")])
                self.assertEqual(mta.mail(), [("c", b"")])
                self.assertEqual(mta.content([("From", " a@example.org")]), expected)

    def test_refusals_have_one_class(self):
        """Postfix rejects a reply whose enhanced status code has another class than its reply code."""
        for action, smtp, local in (
                ("REJECT 5.7.1 too much", "554 5.7.1 too much", "450 4.7.1 too much"), ("REJECT 4.7.1 later", "554 5.7.1 later", "450 4.7.1 later"),
                ("550 no", "550 5.7.1 no", "450 4.7.1 no"), ("450 5.7.1 later", "450 4.7.1 later", "450 4.7.1 later")):
            limit = {"name": "sender", "key": ["sender"], "rates": ["1/1h"], "over": action, "too_large": action}
            with self.subTest(action=action), MilterService(limits=[limit], milter={"local_over": "defer"}) as weir:
                with weir.mta() as mta:
                    mta.connect()
                    self.assertEqual(mta.mail(recipients=["b@example.com", "c@example.com"]), [("c", b""), ("y", text(smtp))])
                with weir.mta() as mta:
                    mta.connect(address="127.0.0.1", port=0)
                    self.assertEqual(mta.mail(), [("c", b"")])
                    self.assertEqual(mta.content([("From", " a@example.org")]), [("y", text(local))])


class Miltertest(unittest.TestCase):
    def test_scripts(self):
        scripts = sorted((pathlib.Path(__file__).parent / "miltertest").glob("*.lua"))
        self.assertTrue(scripts)
        with MilterService(RULES, BODY) as weir:
            for script in scripts:
                for address in (f"inet:{weir.milter_port}@127.0.0.1", f"unix:{weir.milter_socket}"):
                    with self.subTest(script=script.name, address=address):
                        run(["miltertest", "-D", f"address={address}", "-s", script])


class BadInput(unittest.TestCase):
    def test_bad_input_closes_one_connection(self):
        hello = MTA.packet("O", struct.pack(">III", 6, ACTIONS, 0x1FFFFF))
        mail = hello + MTA.packet("M", text("<a@example.org>"))
        bad = {
            "a length of 0": struct.pack(">I", 0), "a length of 4 GB": b"\xff\xff\xff\xff", "a length beyond the bound": struct.pack(">I", 1 << 20),
            "an old version": MTA.packet("O", struct.pack(">III", 1, 0, 0)), "a short negotiation": MTA.packet("O", b"\0\0"),
            "no negotiation": MTA.packet("M", text("<a@example.org>")), "two negotiations": hello + hello, "an unknown command": hello + MTA.packet("z"),
            "two senders": mail + MTA.packet("M", text("<a@example.org>")),
            "a recipient before a sender": hello + MTA.packet("R", text("<b@example.com>")), "a body before a message": hello + MTA.packet("B", b"x"),
            "an end before a message": hello + MTA.packet("E"), "a header without NULs": mail + MTA.packet("L", b"Subject"),
            "a header with one NUL": mail + MTA.packet("L", text("Subject") + b"x"), "a sender without a NUL": hello + MTA.packet("M", b"<a>"),
            "a macro without a value": hello + MTA.packet("D", b"M" + text("i")), "a client without an address": hello + MTA.packet("C", text("x") + b"4"),
            "an unknown address family": hello + MTA.packet("C", text("x") + b"9" + b"\0\0" + text("y")),
            "headers behind the body": mail + MTA.packet("B", b"x") + MTA.packet("L", text("a") + text("b")), "SMTP": b"EHLO client.example.org\r\n",
            "HTTP": b"GET / HTTP/1.1\r\n\r\n",
        }
        limit = {"name": "sender", "key": ["sender"], "rates": ["1000/1h"]}
        with MilterService(RULES, BODY, limits=[limit]) as weir, weir.mta() as other:
            other.mail()
            for name, data in bad.items():
                with self.subTest(name), weir.mta(negotiate=False) as mta:
                    mta.raw(data)
                    while reply := mta.reply():
                        self.assertIn(reply[0], "Oc", reply)
            self.assertEqual(other.content([("Subject", " reject")]), [("y", text("550 5.7.1 no"))])
            weir.wait_logged("closed the milter connection of 127.0.0.1: ")

    def test_large_macros_headers_and_envelopes_stay_bounded(self):
        with MilterService(RULES, BODY) as weir:
            with weir.mta() as mta:
                for number in range(200):
                    mta.send("D", b"M" + text(f"{{x{number}}}") + text("y" * 200_000) + text("i") + text("z" * 50_000))
                mta.mail()
                for number in range(2_000):
                    mta.send("L", text("X-Many") + text(" " + "v" * 10_000))
                self.assertEqual(mta.content(HEADERS)[-1], ("c", b""))
            resident = int(next(
                line for line in pathlib.Path(f"/proc/{weir.pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
            check_memory(self, resident, 150_000)
            with weir.mta() as mta:
                mta.send("M", text("<a@example.org>"))
                with self.assertRaises(OSError):
                    for number in range(100_000):
                        mta.send("R", text(f"<{'r' * 200}{number}@example.com>"))
                    mta.reply() or mta.send("R") or mta.send("R")
                    raise AssertionError("still open")

    def test_more_headers_than_can_be_changed(self):
        """Refused whatever on_failure says. Otherwise a sender could get a message past the checks."""
        refused = ("y", text("550 5.6.0 message has too many headers"))
        with MilterService(RULES, BODY, on_failure="dunno") as weir:
            for headers, expected in (
                    ([("X-Gone", " 1")] * 4_000, ["m"] * 4_000 + ["q", "c"]), ([("X-Gone", " 1")] * 4_001, refused),
                    ([("A", "")] * 65_600, ["q", "c"]), ([("A", "")] * 65_600 + [("X-Gone", " 1")], refused)):
                with self.subTest(count=len(headers)), weir.mta() as mta:
                    mta.mail()
                    mta.raw(b"".join(MTA.packet("L", text(name) + text(value)) for name, value in [("Subject", " hold"), *headers]))
                    replies = mta.content([])
                    self.assertEqual(replies[0] if expected is refused else [command for command, _ in replies], expected)
                    self.assertEqual(len(replies), 1 if expected is refused else len(expected))

    def test_unread_replies(self):
        """The service stops reading from an MTA with too many unread replies, and sends all replies once the MTA reads."""
        limit = {"name": "sender", "key": ["sender"], "rates": ["1/1h"], "over": "REJECT " + "no " * 30}
        count = 40_000
        with MilterService(limits=[limit]) as weir, MTA(weir.milter_socket) as mta:
            mta.connect()
            self.assertEqual(mta.mail()[0][0], "c")
            sender = threading.Thread(target=mta.raw, args=(b"".join(MTA.packet("R", text(f"<r{number}@example.com>")) for number in range(count)),))
            sender.start()
            def refused():
                return metric(weir, 'weir_limit_refusals_total{limit="sender",mode="enforce"}')
            wait_until(lambda: refused() > 0, "a recipient is refused")
            wait_until(lambda: self.stands_still(refused), "the service stops reading")
            self.assertLess(refused(), count / 4)
            for _ in range(count):
                self.assertEqual(mta.reply()[0], "y")
            sender.join()
            self.assertEqual(mta.content(HEADERS)[-1], ("c", b""))

    @staticmethod
    def stands_still(figure):
        """Whether the figure stays the same for a second."""
        before = figure()
        for _ in range(10):
            time.sleep(0.1)
            if figure() != before:
                return False
        return True

    def test_stop_while_a_body_is_sent(self):
        """An MTA that is receiving a new body gets the rest of it."""
        body = b"drop\r\n" + b"keep this line of the body\r\n" * 8_000
        with MilterService("", BODY) as weir, weir.mta() as mta, MTA(weir.milter_socket) as local:
            for one in (mta, local):
                one.mail()
                for start in range(0, len(body), 65535):
                    one.send("B", body[start:start + 65535])
                one.send("E")
            wait_until(lambda: metric(weir, 'weir_messages_total{listener="milter",outcome="edited"}') == 2, "both are judged")
            weir.process.send_signal(signal.SIGTERM)
            # The stopping milter accepts no more connections.
            wait_until(lambda: not accepts(weir.milter_port), "the milter accepts no more connections")
            for one in (mta, local):
                replies = one.replies()
                self.assertEqual(replies[-1], ("c", b""))
                self.assertEqual(b"".join(piece for command, piece in replies if command == "b"), body.removeprefix(b"drop\r\n"))
                self.assertTrue(one.is_closed())

    def test_two_thousand_connections(self):
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with MilterService(RULES, BODY) as weir:
            connections = []
            self.addCleanup(lambda: [mta.socket.close() for mta in connections])
            for _ in range(2_000):
                mta = weir.mta()
                mta.connect()
                mta.mail()
                mta.send("L", text("Subject") + text(" hold"))
                connections.append(mta)
            for mta in connections:
                mta.send("B", b"x" * 4_000)
                mta.send("E")
            for mta in connections:
                self.assertEqual(mta.replies()[-1], ("c", b""))
            status = pathlib.Path(f"/proc/{weir.pid}/status").read_text().splitlines()
            check_memory(self, int(next(line for line in status if line.startswith("VmRSS")).split()[1]), 100_000)


class Configuration(unittest.TestCase):
    def test_unsupported_actions_are_refused(self):
        from weir import weir as command
        limit = {"name": "sender", "key": ["sender"], "rates": ["1/1h"], "over": "FILTER smtp:[127.0.0.1]:10025"}
        service = MilterService("/a/ DUNNO\n/b/ FILTER smtp:[127.0.0.1]:10025\n", limits=[limit])
        self.addCleanup(service.__exit__)
        service.configure()
        result = command("check-config", "--config", service.config_file, check=False)
        self.assertEqual(result.returncode, 1)
        output = result.stdout + result.stderr
        self.assertIn("header.pcre:2: ", output)
        self.assertIn("a milter (listen.milter) can't carry out FILTER", output)
        self.assertIn("limits[0].over: a milter (listen.milter) can't carry out 'FILTER'", output)


if __name__ == "__main__":
    unittest.main()
