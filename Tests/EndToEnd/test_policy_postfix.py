# SPDX-License-Identifier: Apache-2.0
"""Weir as the policy server of a real Postfix: what it accepts, defers and counts."""
import json
import unittest

from postfix import SMTP, PrivatePostfix, SMTPSink, free_port
from weir import ROOT, WeirService

TEXT = "sending limit reached, try again later"


def limit(**keys):
    return {
        "name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["5/1h"],
        "over": f"DEFER_IF_PERMIT 4.7.1 {TEXT}", **keys,
    }


class BehindPostfix(unittest.TestCase):
    """One Postfix for all tests of a class; each test runs its own Weir on the port that Postfix asks."""

    hooks = ("recipient", "end_of_data")

    @classmethod
    def setUpClass(cls):
        cls.policy_port = free_port()
        cls.sink = cls.enterClassContext(SMTPSink())
        cls.postfix = cls.enterClassContext(PrivatePostfix(
            cls.restrictions(*cls.hooks), relay=cls.sink.port,
            services=[f"127.0.0.1:{(port := free_port())} inet n - n - 1 smtpd -o syslog_name=postfix/single"]))
        # A service with one process, so that its policy connection carries one transaction after another.
        cls.single_port = port

    @classmethod
    def restrictions(cls, *hooks, options="default_action=DUNNO, timeout=10s", before_permit=""):
        """main.cf that asks Weir in these restriction lists."""
        service = f"check_policy_service {{ inet:127.0.0.1:{cls.policy_port}, {options} }}"
        asked = {hook: f"{service}, " if hook in hooks else "" for hook in ("recipient", "data", "end_of_data")}
        return {
            "smtpd_recipient_restrictions": f"{asked['recipient']}{before_permit}permit_mynetworks, reject",
            "smtpd_data_restrictions": f"{asked['data']}permit",
            "smtpd_end_of_data_restrictions": f"{asked['end_of_data']}permit",
        }

    def weir(self, *limits, **config):
        return self.enterContext(WeirService(
            self.policy_port, limits=list(limits) or [limit()], **{"give_back_dropped": True, **config}))

    def mail(self, sender, *recipients, port=None, content="Subject: test\n\nbody\n"):
        """Sends a message; returns the codes of the replies to RCPT, DATA and end of data."""
        with SMTP(port or self.postfix.port) as smtp:
            return [code for code, _ in smtp.mail(sender, recipients or ["friend@example.com"], content)]

    def assertUsed(self, service, key, used, limit="per-sender"):
        self.assertEqual(service.used(key, limit), used, service.log())


class Limits(BehindPostfix):
    def test_mail_passes_until_the_limit_holds(self):
        service = self.weir()
        before = len(self.sink.messages())
        for _ in range(5):
            result = self.postfix.swaks("--from", "alice@example.org", "--to", "friend@example.com")
            self.assertEqual(result.returncode, 0, result.stdout)
        result = self.postfix.swaks("--from", "alice@example.org", "--to", "friend@example.com")
        self.assertIn(f"450 4.7.1 <friend@example.com>: Recipient address rejected: {TEXT}", result.stdout)
        self.assertEqual(self.mail("bob@example.org"), [250, 354, 250])
        self.postfix.wait_drained()
        self.assertEqual(len(self.sink.messages()) - before, 6)
        self.assertUsed(service, "alice@example.org", 5)
        self.assertUsed(service, "bob@example.org", 1)

    def test_a_refusal_is_logged_so_that_it_can_be_found(self):
        service = self.weir(limit(rates=["1/1h"]))
        self.mail("alice@example.org")
        self.mail("alice@example.org")
        service.wait_logged("refuse:")
        line = next(line for line in service.log().splitlines() if "refuse:" in line)
        for part in ("per-sender", "alice@example.org", "1/1 per 1h", "127.0.0.1", TEXT):
            self.assertIn(part, line)
        instance = next(word for word in line.replace(",", " ").split() if word.startswith("instance="))
        self.assertRegex(instance, r"^instance=[0-9a-f]+\.[0-9a-f]+\.[0-9a-f]+\.[0-9a-f]+$")

    def test_recipients_of_one_message_pass_until_the_limit_holds(self):
        service = self.weir()
        recipients = [f"friend{number}@example.com" for number in range(8)]
        self.assertEqual(self.mail("alice@example.org", *recipients), [250] * 5 + [450] * 3 + [354, 250])
        self.postfix.wait_drained()
        delivered = [message for message in self.sink.messages() if message["recipients"] == recipients[:5]]
        self.assertEqual(len(delivered), 1)
        self.assertUsed(service, "alice@example.org", 5)

    def test_several_windows_hold_at_once(self):
        service = self.weir(limit(rates=["3/1h", "10/1d"]))
        recipients = [f"{name}@example.com" for name in "abcd"]
        self.assertEqual(self.mail("alice@example.org", *recipients), [250, 250, 250, 450, 354, 250])
        self.assertUsed(service, "alice@example.org", 3)

    def test_the_null_sender_is_no_key(self):
        service = self.weir(limit(rates=["1/1h"]))
        for _ in range(3):
            self.assertEqual(self.mail(""), [250, 354, 250])
        self.assertEqual(json.loads(service.limits("list", "--json").stdout), [])

    def test_messages_are_counted_once_each(self):
        service = self.weir(limit(count="messages", rates=["2/1h"]))
        recipients = [f"{name}@example.com" for name in "abc"]
        self.assertEqual(self.mail("alice@example.org", *recipients), [250, 250, 250, 354, 250])
        self.assertEqual(self.mail("alice@example.org", *recipients), [250, 250, 250, 354, 250])
        self.assertEqual(self.mail("alice@example.org", *recipients), [450, 450, 450])
        self.assertUsed(service, "alice@example.org", 2)

    def test_bytes_are_known_at_the_end_of_the_message(self):
        service = self.weir(limit(count="bytes", rates=["20k/1h"]))
        content = "Subject: test\n\n" + ("x" * 70 + "\n") * 100
        self.assertEqual(self.mail("alice@example.org", content=content), [250, 354, 250])
        self.assertEqual(self.mail("alice@example.org", content=content), [250, 354, 250])
        used = service.used("alice@example.org", "per-sender")
        self.assertTrue(14_000 < used < 17_000, used)
        self.assertEqual(self.mail("alice@example.org", content=content), [250, 354, 450])
        # Refused as a whole: nothing is charged.
        self.assertUsed(service, "alice@example.org", used)

    def test_clients_are_counted_by_address(self):
        service = self.weir(limit(name="per-client", key=["client_address"], rates=["2/1h"]))
        self.assertEqual(self.mail("alice@example.org"), [250, 354, 250])
        self.assertEqual(self.mail("bob@example.org"), [250, 354, 250])
        self.assertEqual(self.mail("carol@example.org"), [450])
        self.assertUsed(service, "127.0.0.1", 2, "per-client")

    def test_shadow_refuses_nothing(self):
        service = self.weir(limit(mode="shadow", rates=["1/1h"]))
        for _ in range(3):
            self.assertEqual(self.mail("alice@example.org"), [250, 354, 250])
        service.wait_logged("would refuse")

    def test_5xx_rejects_permanently(self):
        self.weir(limit(rates=["1/1h"], over="REJECT 5.7.1 never again"))
        self.assertEqual(self.mail("alice@example.org"), [250, 354, 250])
        self.assertEqual(self.mail("alice@example.org"), [554])

    def test_placeholders_in_the_text(self):
        self.weir(limit(rates=["1/1h"], over="450 4.7.1 $name: $key used $count of $limit in $window, retry in $retry s"))
        self.mail("alice@example.org")
        with SMTP(self.postfix.port) as smtp:
            (code, text), = smtp.mail("alice@example.org", ["friend@example.com"])
        self.assertEqual(code, 450)
        self.assertRegex(text, r"per-sender: alice@example.org used 1 of 1 in 1h, retry in \d+ s$")


class Settlement(BehindPostfix):
    def test_recipients_that_postfix_rejects_are_given_back(self):
        self.postfix.set(**self.restrictions(
            *self.hooks, before_permit="check_recipient_access inline:{bad@example.com=REJECT}, "))
        service = self.weir()
        codes = self.mail("alice@example.org", "bad@example.com", "good@example.com", "bad@example.com")
        self.assertEqual(codes, [554, 250, 554, 354, 250])
        self.assertUsed(service, "alice@example.org", 1)

    def test_a_dropped_transaction_is_given_back(self):
        self.postfix.set(**self.restrictions(*self.hooks))
        service = self.weir()
        with SMTP(self.single_port) as smtp:
            for ending in ("RSET", "EHLO again.example.org"):
                smtp.command("MAIL FROM:<alice@example.org>", 250)
                smtp.command("RCPT TO:<a@example.com>", 250)
                smtp.command("RCPT TO:<b@example.com>", 250)
                smtp.command(ending, 250)
            smtp.mail("alice@example.org", ["c@example.com"])
        self.assertUsed(service, "alice@example.org", 1)

    def test_a_dropped_transaction_stays_charged_unless_configured(self):
        self.postfix.set(**self.restrictions(*self.hooks))
        service = self.enterContext(WeirService(self.policy_port, limits=[limit()], give_back_dropped=False))
        with SMTP(self.single_port) as smtp:
            smtp.command("MAIL FROM:<alice@example.org>", 250)
            smtp.command("RCPT TO:<a@example.com>", 250)
            smtp.command("RSET", 250)
            smtp.mail("alice@example.org", ["c@example.com"])
        self.assertUsed(service, "alice@example.org", 2)

    def test_each_hook_alone_and_all_together_count_once(self):
        hooks = ("recipient", "data", "end_of_data")
        combinations = [hooks[:1], hooks[1:2], hooks[2:], hooks[:2], hooks[1:], hooks[::2], hooks]
        service = self.weir()
        recipients = [f"{name}@example.com" for name in "abc"]
        for number, combination in enumerate(combinations):
            with self.subTest(hooks=combination):
                sender = f"user{number}@example.org"
                self.postfix.set(**self.restrictions(*combination))
                service.configure(give_back_dropped=combination != ("recipient",))
                service.restart()
                self.assertEqual(self.mail(sender, *recipients), [250, 250, 250, 354, 250])
                self.assertUsed(service, sender, 3)
                self.assertEqual(self.mail(sender, *recipients[:2]), [250, 250, 354, 250])
                self.assertUsed(service, sender, 5)
                refused = self.mail(sender, recipients[0])
                expected = {"recipient": [450], "data": [250, 450], "end_of_data": [250, 354, 450]}
                self.assertEqual(refused, expected[combination[0]])
                self.assertUsed(service, sender, 5)


class Life(BehindPostfix):
    def test_counts_outlive_restarts(self):
        service = self.weir()
        for end in (service.restart, lambda: (service.kill(), service.start())):
            self.assertEqual(self.mail("alice@example.org"), [250, 354, 250])
            self.assertEqual(self.mail("alice@example.org"), [250, 354, 250])
            end()
        self.assertUsed(service, "alice@example.org", 4)
        self.assertEqual(self.mail("alice@example.org"), [250, 354, 250])
        self.assertEqual(self.mail("alice@example.org"), [450])

    def test_mail_passes_while_weir_is_down(self):
        service = self.weir(limit(rates=["1/1h"]))
        self.assertEqual(self.mail("alice@example.org"), [250, 354, 250])
        self.assertEqual(self.mail("alice@example.org"), [450])
        service.kill()
        self.assertEqual(self.mail("alice@example.org"), [250, 354, 250])
        service.start()
        self.assertEqual(self.mail("alice@example.org"), [450])
        self.assertUsed(service, "alice@example.org", 1)

    def test_a_unix_socket_serves_as_well(self):
        # Nothing asks at the end of a message here, so each message would be given back.
        service = self.weir(limit(rates=["1/1h"]), give_back_dropped=False)
        self.postfix.set(
            smtpd_recipient_restrictions=f"check_policy_service unix:{service.policy_socket}, permit_mynetworks, reject",
            smtpd_end_of_data_restrictions=None)
        try:
            self.assertEqual(self.mail("alice@example.org"), [250, 354, 250])
            self.assertEqual(self.mail("alice@example.org"), [450])
        finally:
            self.postfix.set(**self.restrictions(*self.hooks))


class ShippedConfiguration(unittest.TestCase):
    """conf/postfix/main.cf, except for the ports."""

    def test_the_lines_for_main_cf(self):
        port, milter_port = free_port(), free_port()
        lines = (ROOT / "conf" / "postfix" / "main.cf").read_text()
        for ours, shipped in ((port, 10040), (milter_port, 10041)):
            lines = lines.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{ours}")
        main = {"smtpd_recipient_restrictions": None, "smtpd_relay_restrictions": None}
        service = WeirService(port, limits=[limit(rates=["2/1h"])], give_back_dropped=True)
        service.config["listen"]["milter"] = [f"inet:127.0.0.1:{milter_port}"]
        with service, PrivatePostfix(main, lines=lines) as postfix:
            self.assertEqual(postfix.command("postconf", "-n").stderr, "")
            with SMTP(postfix.port) as smtp:
                self.assertEqual([code for code, _ in smtp.mail("alice@example.org", ["a@example.com"])], [250, 354, 250])
                self.assertEqual([code for code, _ in smtp.mail("alice@example.org", ["unqualified"])], [504])
                self.assertEqual([code for code, _ in smtp.mail("alice@example.org", ["b@example.com"])], [250, 354, 250])
                self.assertEqual([code for code, _ in smtp.mail("alice@example.org", ["c@example.com"])], [450])
            self.assertEqual(service.used("alice@example.org", "per-sender"), 2)
            self.assertNotIn("warning:", postfix.log())
            service.stop()
            # While Weir is down, mail passes.
            with SMTP(postfix.port) as smtp:
                self.assertEqual([code for code, _ in smtp.mail("alice@example.org", ["d@example.com"])], [250, 354, 250])


class RawRequests(unittest.TestCase):
    """Requests that are hard to get from a real Postfix: logins, repeats, fragments, several addresses."""

    def weir(self, **keys):
        return self.enterContext(WeirService(limits=[limit(
            name="per-user", when={"sasl_username": "present"}, key=["sasl_username"], rates=["2/1h"], **keys)]))

    def test_a_login_is_one_key_however_it_is_written(self):
        service = self.weir()
        with service.client() as client:
            self.assertEqual(client.ask(sasl_username="alice@example.org"), "DUNNO")
            self.assertEqual(client.ask(sasl_username="alice@EXAMPLE.ORG"), "DUNNO")
            self.assertEqual(client.ask(sasl_username="alice@example.org"), f"DEFER_IF_PERMIT 4.7.1 {TEXT}")
            self.assertEqual(client.ask(sasl_username=""), "DUNNO")
        self.assertEqual(service.used("alice@example.org", "per-user"), 2)

    def test_a_repeated_request_gets_the_same_answer_and_counts_once(self):
        service = self.weir()
        with service.client() as client:
            one, two, three = (client.new_instance() for _ in range(3))
            for instance in (one, one, two, one, two):
                self.assertEqual(client.ask(sasl_username="alice", instance=instance), "DUNNO")
            refused = client.ask(sasl_username="alice", instance=three)
            self.assertIn(TEXT, refused)
            self.assertEqual(client.ask(sasl_username="alice", instance=three), refused)
        self.assertEqual(service.used("alice", "per-user"), 2)

    def test_any_fragmentation(self):
        service = self.weir()
        with service.client() as client:
            for byte in client.request(sasl_username="alice"):
                client.send(bytes([byte]))
            self.assertEqual(client.reply(), "DUNNO")
        self.assertEqual(service.used("alice", "per-user"), 1)

    def test_unknown_attributes_are_ignored(self):
        service = self.weir()
        with service.client() as client:
            self.assertEqual(client.ask(sasl_username="alice", compatibility_level="3.8", tls_sni="x=y", new=""), "DUNNO")

    def test_a_service_on_a_unix_socket(self):
        service = self.weir()
        with service.client(service.policy_socket) as client:
            self.assertEqual(client.ask(sasl_username="alice"), "DUNNO")
            self.assertEqual(client.ask(sasl_username="alice"), "DUNNO")
            self.assertIn(TEXT, client.ask(sasl_username="alice"))

    def test_ipv6_clients_are_counted_by_network(self):
        service = self.enterContext(WeirService(limits=[limit(
            name="per-client", key=["client_address"], rates=["2/1h"])]))
        with service.client() as client:
            self.assertEqual(client.ask(client_address="2001:db8:0:1::1"), "DUNNO")
            self.assertEqual(client.ask(client_address="2001:db8:0:1:ffff::2"), "DUNNO")
            self.assertIn(TEXT, client.ask(client_address="2001:db8:0:1::3"))
            self.assertEqual(client.ask(client_address="2001:db8:0:2::1"), "DUNNO")


if __name__ == "__main__":
    unittest.main(verbosity=2)
