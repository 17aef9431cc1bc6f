# SPDX-License-Identifier: Apache-2.0
"""The milter in a real Postfix, for mail by SMTP and by sendmail(1): every action, delivered bytes and the queue."""
import re
import time
import unittest

from milter import milter_postfix
from postfix import COMMANDS, SMTP, SMTPSink, wait_until
from weir import ROOT

CLIENT_LIMIT = {"name": "client", "key": ["client_address"], "count": "recipients", "rates": ["3/1h"]}


def content(subject, *headers, body="body\n"):
    return "".join(line + "\n" for line in (f"Subject: {subject}", "To: b@example.com", *headers)) + "\n" + body


def time_stamp(ttl):
    """That of address_verify_sender_ttl: the number of the interval, with the base 31."""
    digits, number, stamp = "0123456789BCDFGHJKLMNPQRSTVWXYZ", int(time.time()) // ttl, ""
    while number:
        number, digit = divmod(number, 31)
        stamp = digits[digit] + stamp
    return stamp


def subject_of(message):
    return next(line[9:].decode() for line in message["content"].split(b"\n") if line.startswith(b"Subject: "))


class Actions(unittest.TestCase):
    HEADER = """\
/^Subject: reject/ REJECT 5.7.1 no such subject
/^Subject: later/ REJECT 4.7.1 not now: 100% sure
/^Subject: discard/ DISCARD
/^Subject: hold/ HOLD
/^Subject: redirect/ REDIRECT other@example.com
/^Subject: bcc/ BCC copy@example.com
/^X-First:/ PREPEND X-Before: first
/^X-Replace: (.*)/ REPLACE X-Replace: was $1
/^X-Rename: (.*)/ REPLACE X-Renamed: $1
/^X-Twice: two/ IGNORE
/^X-Gone:/ STRIP
/^X-Folded:/ REPLACE X-Folded: one
 two
"""
    BODY = """\
/^replace (.*)/ REPLACE replaced $1
/^drop/ IGNORE
/^before/ PREPEND put in
/^stop/ REJECT 5.7.2 not in the body
"""

    def check(self, over_tcp):
        with SMTPSink() as sink, milter_postfix(sink.port, self.HEADER, self.BODY, over_tcp=over_tcp) as (postfix, weir):
            def smtp(text, recipients=("b@example.com", "c@example.com")):
                with SMTP(postfix.port) as client:
                    return client.mail("a@example.org", list(recipients), text)[-1]

            self.assertIn("5.7.1 no such subject", str(smtp(content("reject"))))
            self.assertEqual(smtp(content("reject"))[0], 550)
            self.assertEqual(smtp(content("later")), (451, "4.7.1 not now: 100% sure"))
            self.assertEqual(smtp(content("stop", body="a\nstop\nb\n")), (550, "5.7.2 not in the body"))
            for subject in ("discard", "hold", "redirect", "bcc"):
                self.assertEqual(smtp(content(subject))[0], 250, subject)
            headers = (
                "X-First: 1", "X-Replace: x", "X-Twice: one", "X-Twice: two", "X-Twice: three", "X-Rename: y", "X-Gone: z",
                "X-Folded: a\n b")
            body = "keep\nreplace this\ndrop that\nbefore\nlast\n"
            self.assertEqual(smtp(content("edit", *headers, body=body))[0], 250)
            postfix.sendmail("a@example.org", ["b@example.com"], content("edit", *headers, body=body))
            wait_until(lambda: len(sink.messages()) == 4, lambda: f"{sink.messages()}\n{postfix.log()}\n{weir.log()}")
            found = {}
            for message in sink.messages():
                found.setdefault(subject_of(message), []).append(message)
            self.assertEqual(sorted(found), ["bcc", "edit", "redirect"])
            self.assertEqual(found["redirect"][0]["recipients"], ["other@example.com"])
            self.assertEqual(sorted(found["bcc"][0]["recipients"]), ["b@example.com", "c@example.com", "copy@example.com"])
            for message in found["edit"]:
                text = message["content"].decode()
                self.assertIn(
                    "X-Before: first\nX-First: 1\nX-Replace: was x\nX-Twice: one\nX-Twice: three\nX-Renamed: y\n"
                    "X-Folded: one two\n", text)
                self.assertNotIn("X-Gone", text)
                self.assertTrue(text.endswith("\n\nkeep\nreplaced this\nput in\nbefore\nlast\n"), text)
            (held,) = [entry for entry in postfix.queue() if entry["queue_name"] == "hold"]
            self.assertIn("Subject: hold", postfix.message(held["queue_id"]))
            self.assertNotIn("closed the milter connection", weir.log())
            self.assertNotIn("warning: milter", postfix.log())

    def test_over_tcp(self):
        self.check(True)

    def test_over_a_unix_socket(self):
        self.check(False)

    def test_large_bodies_are_replaced_whole(self):
        lines = [f"line {number} " + "x" * 60 for number in range(20_000)]
        with SMTPSink() as sink, milter_postfix(
                sink.port, "", "/^line 7 / REPLACE seven\n/^line 19999 / IGNORE\n",
                main={"message_size_limit": "20000000"}, checks={"body_checks_size_limit": 0}) as (postfix, weir):
            postfix.sendmail("a@example.org", ["b@example.com"], content("large", body="\n".join(lines) + "\n"))
            wait_until(sink.messages, lambda: f"{postfix.log()}\n{weir.log()}")
            postfix.wait_drained()
            (message,) = sink.messages()
            expected = lines[:7] + ["seven"] + lines[8:19_999]
            self.assertEqual(message["content"].decode().split("\n\n", 1)[1].splitlines(), expected)


class UndisclosedRecipients(unittest.TestCase):
    def test_removed_although_cleanup_adds_it(self):
        old = {"undisclosed_recipients_header": "To: undisclosed-recipients:;"}
        with SMTPSink() as sink, milter_postfix(sink.port, main=old) as (postfix, weir):
            postfix.sendmail("a@example.org", ["b@example.com"], "Subject: none\n\nbody\n")
            postfix.sendmail("a@example.org", ["b@example.com"], "Subject: own\nTo: Undisclosed recipients:;\n\nbody\n")
            postfix.sendmail("a@example.org", ["b@example.com"], "Subject: real\nTo: b@example.com\n\nbody\n")
            wait_until(lambda: len(sink.messages()) == 3, lambda: f"{postfix.log()}\n{weir.log()}")
            for message in sink.messages():
                self.assertNotIn(b"undisclosed", message["content"].lower())
                self.assertEqual(b"To: b@example.com" in message["content"], subject_of(message) == "real")


class Limits(unittest.TestCase):
    def test_recipients_are_refused_one_by_one(self):
        with SMTPSink() as sink, milter_postfix(sink.port, limits=[CLIENT_LIMIT]) as (postfix, weir):
            with SMTP(postfix.port) as client:
                replies = client.mail("a@example.org", [f"r{n}@example.com" for n in range(5)])
            self.assertEqual([code for code, _ in replies], [250, 250, 250, 450, 450, 354, 250])
            self.assertIn("4.7.1 sending limit reached", replies[3][1])
            wait_until(sink.messages, postfix.log)
            self.assertEqual(len(sink.messages()[0]["recipients"]), 3)
            self.assertEqual(weir.used("127.0.0.1", "client"), 3)
            weir.wait_logged("refuse: RCPT from")

    def test_charged_once_with_the_policy_server(self):
        """Also where Postfix asks the policy server after the milter, and by a message of more than half the limit."""
        for hooks in (["recipient"], ["recipient", "data"], ["recipient", "end_of_data"], ["data"], ["end_of_data"]):
            with self.subTest(hooks=hooks), SMTPSink() as sink, milter_postfix(
                    sink.port, limits=[{**CLIENT_LIMIT, "rates": ["10/1h"]}]) as (postfix, weir):
                lists = {hook: f"check_policy_service inet:127.0.0.1:{weir.port}" for hook in hooks}
                lists["recipient"] = f"{lists.get('recipient', '')} permit_mynetworks, reject"
                postfix.set(**{f"smtpd_{hook}_restrictions": text for hook, text in lists.items()})
                with SMTP(postfix.port) as client:
                    for message in (["b", "c", "d", "e", "f", "g"], ["b", "h"], ["b"]):
                        replies = client.mail("a@example.org", [f"{name}@example.com" for name in message])
                        self.assertEqual(replies[-1][0], 250, replies)
                    client.command("MAIL FROM:<a@example.org>", 250)
                    client.command("QUIT", 221)
                postfix.wait_drained()
                self.assertEqual(weir.used("127.0.0.1", "client"), 9, weir.log())

    def test_a_refused_message_does_not_charge_the_next_one_twice(self):
        for hook in ("data", "end_of_data"):
            with self.subTest(hook=hook), SMTPSink() as sink, milter_postfix(
                    sink.port, body="/^bad/ REJECT 5.7.1 bad\n", limits=[{**CLIENT_LIMIT, "rates": ["100/1h"]}]) as (postfix, weir):
                postfix.set(**{f"smtpd_{hook}_restrictions": f"check_policy_service inet:127.0.0.1:{weir.port}"})
                with SMTP(postfix.port) as client:
                    for recipients, body, code in ((["b"], "bad", 550), (["b", "c", "d"], "good", 250)):
                        replies = client.mail(
                            "a@example.org", [f"{name}@example.com" for name in recipients], f"Subject: x\n\n{body}\n")
                        self.assertEqual(replies[-1][0], code, replies)
                self.assertEqual(weir.used("127.0.0.1", "client"), 4, weir.log())

    def test_limits_per_recipient_are_charged_once_with_the_policy_server(self):
        """At DATA and END-OF-MESSAGE, Postfix names a recipient only if there is just one."""
        limit = {"name": "to", "key": ["recipient"], "rates": ["10/1h"]}
        for hooks in (["recipient", "data"], ["data"], ["end_of_data"]):
            with self.subTest(hooks=hooks), SMTPSink() as sink, milter_postfix(
                    sink.port, limits=[CLIENT_LIMIT | {"rates": ["100/1h"]}, limit]) as (postfix, weir):
                lists = {hook: f"check_policy_service inet:127.0.0.1:{weir.port}" for hook in hooks}
                skipped = "check_recipient_access inline:{{b@example.com=OK}}"
                lists["recipient"] = f"{skipped}, {lists.get('recipient', '')} permit_mynetworks, reject"
                postfix.set(**{f"smtpd_{hook}_restrictions": text for hook, text in lists.items()})
                with SMTP(postfix.port) as client:
                    for message in (["b", "c", "d"], ["b"], ["c"], ["c", "d"]):
                        replies = client.mail("a@example.org", [f"{name}@example.com" for name in message])
                        self.assertEqual(replies[-1][0], 250, replies)
                postfix.wait_drained()
                self.assertEqual(
                    weir.used_by_all("to"), {"b@example.com": 2, "c@example.com": 3, "d@example.com": 2}, weir.log())
                self.assertEqual(weir.used("127.0.0.1", "client"), 7, weir.log())

    def test_address_probes_are_charged_once(self):
        """smtpd names the address_verify_sender to the policy server without its time stamp, in the case of main.cf."""
        limit = {"name": "sender", "key": ["sender"], "count": "messages", "rates": ["100/1h"]}
        main = {"address_verify_sender": "Probe@mx.example.org", "address_verify_sender_ttl": "1h"}
        with SMTPSink() as sink, milter_postfix(sink.port, limits=[limit], main=main) as (postfix, weir):
            def send(*senders):
                for sender in senders:
                    with SMTP(postfix.port) as client:
                        self.assertEqual(client.mail(sender, ["b@example.com"])[-1][0], 250)
            # The milter alone.
            send(f"Probe{time_stamp(3600)}@mx.example.org", "Probe1@mx.example.org")
            service = f"check_policy_service inet:127.0.0.1:{weir.port}"
            postfix.set(smtpd_recipient_restrictions=f"{service}, permit_mynetworks, reject")
            # The policy server and the milter. A wrong time stamp makes another sender.
            send(f"Probe{time_stamp(3600)}@mx.example.org", f"pROBE{time_stamp(3600)}@MX.example.org", "Probe1@mx.example.org")
            postfix.set(address_verify_sender_ttl="0s")
            send("pROBE@MX.example.org")
            self.assertEqual(weir.used_by_all("sender"), {"Probe@mx.example.org": 4, "Probe1@mx.example.org": 2}, weir.log())

    def test_a_flood_of_sendmail_is_held(self):
        limit = {"name": "script", "when": {"protocol_name": "local"}, "key": ["sender"], "rates": ["5/1h"]}
        with SMTPSink() as sink, milter_postfix(sink.port, limits=[limit]) as (postfix, weir):
            for number in range(12):
                postfix.sendmail("root@mx.example.org", [f"r{number}@example.com"], content("flood"))
            wait_until(lambda: len(sink.messages()) == 5 and len(postfix.queue()) == 7, lambda: f"{postfix.log()}\n{weir.log()}")
            self.assertEqual({entry["queue_name"] for entry in postfix.queue()}, {"hold"})
            weir.wait_logged("uid=0")
            weir.wait_logged("held: 450 4.7.1 sending limit reached")
            self.assertRegex(weir.log(), r"refuse: .*uid=0, action=HOLD \(milter\.local_over\)\n")
            self.assertNotIn("action=DEFER", weir.log())

    def test_a_held_message_is_not_charged(self):
        limit = {"name": "script", "when": {"protocol_name": "local"}, "key": ["sender"], "rates": ["3/1h"]}
        with SMTPSink() as sink, milter_postfix(sink.port, limits=[limit]) as (postfix, weir):
            # The second message fits with one of its recipients only.
            for number, recipients in enumerate((["a"], ["b"]), 1):
                postfix.sendmail(
                    "shop@mx.example.org", [f"{who}{number}@example.com" for who in (*recipients, "c")], content("order"))
                wait_until(lambda: weir.log().count("held: ") + len(sink.messages()) == number, lambda: f"{postfix.log()}\n{weir.log()}")
            self.assertEqual(weir.used("shop@mx.example.org", "script"), 2)
            postfix.sendmail("shop@mx.example.org", ["d@example.com"], content("order"))
            wait_until(lambda: len(sink.messages()) == 2, lambda: f"{postfix.log()}\n{weir.log()}")
            self.assertEqual([entry["queue_name"] for entry in postfix.queue()], ["hold"])

    def test_a_flood_of_sendmail_is_deferred(self):
        limit = {"name": "script", "when": {"uid": "present"}, "key": ["uid"], "rates": ["5/1h"], "over": "REJECT 5.7.1 sending limit reached"}
        # A reply that Postfix ignores would let the mail pass.
        with SMTPSink() as sink, milter_postfix(
                sink.port, limits=[limit], main={"milter_default_action": "accept"}, milter={"local_over": "defer"}) as (postfix, weir):
            for number in range(6):
                postfix.sendmail("root@mx.example.org", [f"r{number}@example.com", f"s{number}@example.com"], content("flood"))
            wait_until(lambda: len(sink.messages()) == 2, lambda: f"{postfix.log()}\n{weir.log()}")
            wait_until(lambda: weir.log().count("deferred: 450 4.7.1") >= 4, lambda: f"{postfix.log()}\n{weir.log()}")
            # Deferred mail is not charged, because Postfix tries it again.
            wait_until(lambda: weir.used("0", "script") == 4, weir.log)
            weir.limits("raise", "0", "100/1h", "--limit", "script", "--for", "1h")
            wait_until(
                lambda: postfix.command("postkick", "public", "pickup", "W", check=False) and len(sink.messages()) == 6,
                lambda: f"{postfix.log()}\n{weir.log()}", interval=0.5, timeout=120)

    def test_an_alert_passes_the_limit_it_reports(self):
        limit = {"name": "all-scripts", "when": {"protocol_name": "local"}, "key": ["client_address"], "rates": ["1/1h"]}
        with SMTPSink() as sink, milter_postfix(
                sink.port, limits=[limit], checks={"undisclosed_recipients": "keep"}) as (postfix, weir):
            mailer = weir.directory / "sendmail"
            mailer.write_text(f'#!/bin/sh\nexec {COMMANDS}/sendmail -C {postfix.etc} "$@"\n')
            mailer.chmod(0o755)
            weir.configure(alerts={"mail": ["ops@example.com"], "sendmail": str(mailer), "tiers": ["over"]})
            # A running service starts only the programs that it knew at its start.
            weir.restart()

            def alert():
                return next((message for message in sink.messages() if message["recipients"] == ["ops@example.com"]), None)

            for subject in ("first", "over"):
                postfix.sendmail("root@mx.example.org", ["b@example.com"], content(subject))
            wait_until(alert, lambda: f"{postfix.log()}\n{weir.log()}")
            self.assertIn("all-scripts", alert()["content"].decode())
            self.assertEqual(weir.used("127.0.0.1", "all-scripts"), 1)
            # Neither a used nor a guessed mark exempts mail.
            (mark,) = [line.decode() for line in alert()["content"].split(b"\n") if line.startswith(b"X-Weir-Alert: ")]
            for line in (mark, f"X-Weir-Alert: {'1' * 32}"):
                postfix.sendmail("root@mx.example.org", ["b@example.com"], content("forged", line))
            wait_until(lambda: len(postfix.queue()) == 3, lambda: f"{postfix.log()}\n{weir.log()}")
            self.assertEqual({entry["queue_name"] for entry in postfix.queue()}, {"hold"})


class Canonicalise(unittest.TestCase):
    def test_envelope(self):
        main = {"strict_rfc821_envelopes": "no", "allow_untrusted_routing": "yes"}
        with SMTPSink() as sink, milter_postfix(sink.port, main=main, canonicalise="envelope") as (postfix, weir):
            with SMTP(postfix.port) as client:
                replies = client.mail('"plain"@EXAMPLE.org', ["@relay.example.net:b@Example.COM", '"c"@example.com', "d@example.com."])
            self.assertEqual(replies[-1][0], 250, replies)
            wait_until(sink.messages, lambda: f"{postfix.log()}\n{weir.log()}")
            (message,) = sink.messages()
            self.assertEqual(message["sender"], "plain@example.org")
            self.assertEqual(sorted(message["recipients"]), ["b@example.com", "c@example.com", "d@example.com"], weir.log())


class Trouble(unittest.TestCase):
    def test_mail_waits_while_weir_is_down(self):
        with SMTPSink() as sink, milter_postfix(sink.port) as (postfix, weir):
            weir.kill()
            with SMTP(postfix.port) as client:
                client.command("MAIL FROM:<a@example.org>", 451)
            weir.start()
            with SMTP(postfix.port) as client:
                self.assertEqual(client.mail("a@example.org", ["b@example.com"])[-1][0], 250)

    def test_rules_change_between_two_messages(self):
        with SMTPSink() as sink, milter_postfix(sink.port, "/^Subject: x/ REJECT\n") as (postfix, weir):
            with SMTP(postfix.port) as client:
                self.assertEqual(client.mail("a@example.org", ["b@example.com"], content("x"))[-1][0], 550)
                (weir.directory / "header.pcre").write_text("/^Subject: y/ REJECT\n")
                weir.reload()
                weir.wait_logged("reloaded")
                self.assertEqual(client.mail("a@example.org", ["b@example.com"], content("x"))[-1][0], 250)
                self.assertEqual(client.mail("a@example.org", ["b@example.com"], content("y"))[-1][0], 550)


class Filter(unittest.TestCase):
    def test_filter_from_the_matched_text_is_deferred(self):
        """The target of such a FILTER is known only with the message, so no configuration check can report it; a milter can't carry it out."""
        with SMTPSink() as sink, milter_postfix(sink.port, "/^X-Do: (.*)/ $1\n", on_failure="dunno") as (postfix, weir):
            with SMTP(postfix.port) as client:
                self.assertEqual(client.mail("a@example.org", ["b@example.com"], content("x", "X-Do: FILTER smtp:[127.0.0.1]:9"))[-1][0], 451)
                self.assertEqual(client.mail("a@example.org", ["b@example.com"], content("y", "X-Do: WARN"))[-1][0], 250)
            wait_until(sink.messages, postfix.log)
            self.assertEqual([subject_of(message) for message in sink.messages()], ["y"])
            weir.wait_logged("a milter can't carry out FILTER")


class Received(unittest.TestCase):
    def test_two_lines_make_postfix_remove_its_own(self):
        """The milter never sees the header. The lines of docs/milter.md remove it, and the milter still checks the rest."""
        rule = "/^Received:.*with ESMTP/ IGNORE\n"
        manual = (ROOT / "docs" / "milter.md").read_text()
        option, service = re.search(r"\n    (  -o cleanup_service_name=\S+)\n    (received_cleanup .*)\n", manual).groups()
        with SMTPSink() as sink, milter_postfix(sink.port, rule + "/^X-Gone:/ IGNORE\n") as (postfix, weir):
            def received():
                before = len(sink.messages())
                with SMTP(postfix.port) as client:
                    self.assertEqual(client.mail("a@example.org", ["b@example.com"], content("x", "X-Gone: y"))[-1][0], 250)
                wait_until(lambda: len(sink.messages()) > before, postfix.log)
                # Without the header, the second is shorter.
                text = min((message["content"] for message in sink.messages()), key=len)
                self.assertNotIn(b"X-Gone", text)
                return text.count(b"Received: from client.example.org")
            self.assertEqual(received(), 1)
            table = weir.directory / "received_checks"
            table.write_text(rule)
            postfix.services[0] += option
            postfix.add_service(service.replace(" y ", " n ", 1).replace("/etc/postfix/received_checks", str(table)))
            self.assertEqual(received(), 0)


if __name__ == "__main__":
    unittest.main()
