# SPDX-License-Identifier: Apache-2.0
"""Sets of checks with conditions, in each way in and in `weir check`."""
import json
import pathlib
import re
import tempfile
import unittest

from filtering import FilterService, NextHop, dialogue
from milter import MilterService
from postfix import SMTP, SMTPSink, wait_until
from test_filter_smtp import Client
from ways_in import OPEN
from weir import weir

# The conditions of each set. The table has the users of a customer.
SETS = {
    "every": {},
    "inside": {"when": {"client_address": {"in": ["127.0.0.1/32"]}}},
    "outside": {"when": {"client_address": {"not": {"in": ["127.0.0.1/32"]}}}},
    "alice": {"when": {"sender": "alice@example.org"}},
    "customer": {"when": {"recipient_domain": "example.com"}},
    "customer-only": {"when": {"recipient_domain": "example.com"}, "recipients": "all"},
    "table": {"when": {"recipient": {"table": "texthash:TABLE"}}},
    "helo": {"when": {"helo_name": {"matches": "/^host[0-9]/"}}},
    "login": {"when": {"sasl_username": "present"}},
    "signed": {"when": {"dkim": "present"}},
    "unsigned": {"when": {"dkim": "absent", "recipient_domain": "example.net"}},
}
SIGNATURE = "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=x; h=from; bh=x; b=y\n"
# The source address and HELO name of a client, the sender, the recipients, headers, and the sets that apply.
MESSAGES = [
    ("127.0.0.1", "client.example.org", "alice@example.org", ["b@example.com"], "", "every inside alice customer customer-only"),
    ("127.0.0.2", "host1.example.org", "bob@example.org", ["b@example.com", "c@example.net"], "",
     "every outside customer helo unsigned"),
    ("127.0.0.1", "client.example.org", "", ["vip@example.net"], SIGNATURE, "every inside table signed"),
]


class Directory(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="weir-test-")))
        self.directory.chmod(0o755)
        (self.directory / "vips").write_text("vip@example.net yes\n")

    def sets(self, names=SETS, rule="/^Subject:/ PREPEND X-Set: {}\n", key="header"):
        """The sets, each with a table of its own."""
        found = []
        for name in names:
            table = self.directory / name
            table.write_text(rule.format(name))
            conditions = json.loads(json.dumps(SETS[name]).replace("TABLE", str(self.directory / "vips")))
            found.append({"name": name, **conditions, key: f"pcre:{table}"})
        return found


class WaysIn(Directory):
    def test_every_way_with_postfix(self):
        sets = self.sets()
        main = {"smtpd_recipient_limit": "100", "weirpipe_destination_recipient_limit": "100", "mynetworks": "127.0.0.0/8"}
        for way in ("milter", "filter", "proxy", "pipe"):
            with self.subTest(way), SMTPSink() as sink, OPEN[way](sink.port, "", "", main, checks={"sets": sets}) as (postfix, service):
                for number, (address, helo, sender, recipients, headers, _) in enumerate(MESSAGES):
                    with SMTP(postfix.port, helo, source=address) as client:
                        replies = client.mail(sender, recipients, f"X-Number: {number}\nSubject: x\n{headers}\nbody\n")
                        self.assertEqual(replies[-1][0], 250, f"{replies}\n{postfix.log()}")
                wait_until(lambda: len(sink.messages()) >= len(MESSAGES), lambda: f"{postfix.log()}\n{service.log()}", timeout=60)
                found = {}
                for message in sink.messages():
                    content = message["content"].decode()
                    found[int(re.search(r"^X-Number: (\d)", content, re.M)[1])] = set(re.findall(r"^X-Set: (\S+)", content, re.M))
                self.assertEqual(found, {number: set(case[-1].split()) for number, case in enumerate(MESSAGES)}, way)

    def test_mail_of_sendmail(self):
        """The milter sees it come from this machine. The filter sees no client."""
        for way, expected in (("milter", "every inside alice unsigned"), ("filter", "every outside alice unsigned")):
            with self.subTest(way), SMTPSink() as sink, OPEN[way](sink.port, "", "", {}, checks={"sets": self.sets()}) as (postfix, service):
                postfix.sendmail("alice@example.org", ["b@example.net"], "Subject: x\n\nbody\n")
                wait_until(lambda: sink.messages(), lambda: f"{postfix.log()}\n{service.log()}", timeout=60)
                self.assertEqual(re.findall(rb"^X-Set: (\S+)", sink.messages()[0]["content"], re.M), expected.encode().split())

    def test_filter_without_xforward(self):
        """The client is unknown: Weir does not take Postfix, which connects to it, for the client."""
        messages = []
        with NextHop(dialogue({}, messages)) as hop, FilterService(
                hop.port, checks={"sets": self.sets(("inside", "outside", "alice", "customer"))}) as service:
            with Client(service.filter_port) as client:
                self.assertEqual(client.deliver(b"Subject: x\r\n\r\n.\r\n")[-1][0], 250)
            service.wait_logged(", set outside: PREPEND")
        ((_, content),) = messages
        self.assertEqual(re.findall(rb"X-Set: (\S+)", content)[0], b"outside")

    def test_refused_recipients_do_not_count(self):
        """The filter counts the recipients that the next hop accepts."""
        messages = []
        with NextHop(self.next_hop(messages)) as hop, FilterService(hop.port, checks={"sets": self.sets(("every", "customer"))}) as service:
            with SMTP(service.filter_port) as client:
                self.assertEqual([code for code, _ in client.mail("a@example.org", ["b@example.com", "c@example.net"])], [550, 250, 354, 250])
        self.assertEqual(re.findall(rb"X-Set: (\S+)", messages[0]), [b"every"])

    @staticmethod
    def next_hop(messages):
        def serve(lines, connection):
            connection.sendall(b"220 hop.example.org\r\n")
            for line in lines:
                if line.startswith(b"DATA"):
                    connection.sendall(b"354 go\r\n")
                    content = b""
                    while (line := next(lines)) != b".\r\n":
                        content += line
                    messages.append(content)
                connection.sendall(b"550 5.1.1 no\r\n" if b"example.com" in line else b"250 Ok\r\n")
        return serve


class Milter(Directory):
    # Events that the MTA leaves out: CONNECT, HELO, MAIL, RCPT.
    CONNECT, HELO, MAIL, RECIPIENT = 1, 2, 4, 8

    def test_events_and_login(self):
        """An event is asked for only if a condition needs it."""
        cases = [
            (("every",), 15), (("signed",), 15), (("inside",), 14), (("helo",), 13), (("alice",), 11), (("login",), 11), (("customer",), 3),
            (tuple(SETS), 0)]
        for names, withheld in cases:
            with self.subTest(names), MilterService(checks={"sets": self.sets(names)}) as service, service.mta() as mta:
                self.assertEqual(mta.options & 15, withheld)

    def test_login(self):
        with MilterService(checks={"sets": self.sets(("every", "login"), "/^Subject: {}/ REJECT\n")}) as service:
            for macros, code in (({}, b"c"), ({"{auth_authen}": "alice", "{auth_type}": "PLAIN"}, b"y")):
                with service.mta() as mta:
                    mta.mail(**macros)
                    reply = mta.content([("Subject", " login")], b"body\r\n")[-1]
                    self.assertEqual(reply[0].encode(), code)
            service.wait_logged(f"header_checks pcre:{self.directory}/login:1, set login: REJECT")

    def test_signed(self):
        """Rules for headers wait for a signature; those for the body have nothing to wait for."""
        for key, rule in (("header", "/^Subject:/ REJECT 5.7.1 {}\n"), ("body", "/^body/ REJECT 5.7.1 {}\n"),
                          ("decoded_body", "/^body/ REJECT 5.7.1 {}\n")):
            for name in ("signed", "unsigned"):
                with self.subTest(key, name=name), MilterService(
                        checks={"sets": self.sets((name,), rule, key)}) as service, service.mta() as mta:
                    for headers in ([], [("DKIM-Signature", " v=1")]):
                        mta.mail(recipients=["c@example.net"])
                        reply = mta.content([("Subject", " x"), *headers], b"body\r\n")[-1][0]
                        self.assertEqual(reply, "y" if bool(headers) == (name == "signed") else "c")

    def test_two_messages_of_a_connection(self):
        with MilterService(checks={"sets": self.sets(("customer",), "/^Subject:/ REJECT\n")}) as service, service.mta() as mta:
            for recipients, code in ((["b@example.com"], "y"), (["b@example.net"], "c"), (["c@example.net", "b@example.com"], "y")):
                mta.mail(recipients=recipients)
                self.assertEqual(mta.content([("Subject", " x")])[-1][0], code)
                mta.send("A")

    def test_reload(self):
        """Rules that need more events apply to new connections."""
        with MilterService(checks={"sets": self.sets(("alice",), "/^Subject:/ REJECT\n")}) as service, service.mta() as old:
            service.config["checks"]["sets"] = self.sets(("customer",), "/^Subject:/ REJECT\n")
            service.configure()
            service.reload()
            service.wait_logged("reloaded")
            old.mail("alice@example.org", ["b@example.com"])
            self.assertEqual(old.content([("Subject", " x")])[-1][0], "y")
            with service.mta() as new:
                new.mail("alice@example.org", ["b@example.net"])
                self.assertEqual(new.content([("Subject", " x")])[-1][0], "c")


class Check(Directory):
    def setUp(self):
        super().setUp()
        self.message = self.directory / "message"
        self.message.write_bytes(b"Subject: x\nBcc: y\n\nbody\n")

    def check(self, *arguments, sets=None, status=0):
        config = self.directory / "weir.yaml"
        config.write_text(json.dumps({"checks": sets or self.sets()}))
        done = weir("check", "--config", config, *arguments, self.message, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout + done.stderr

    def test_as(self):
        out = self.check("--as", "sender=alice@example.org,recipient=b@example.com,recipient=c@example.net,client_address=127.0.0.1")
        self.assertIn("\n  sets: every, inside, alice, customer, unsigned\n", out)
        self.assertIn(f"  header_checks offset 0 pcre:{self.directory}/alice:1, set alice: PREPEND X-Set: alice\n", out)
        self.assertEqual(re.findall(r"^\+X-Set: (\S+)", out, re.M), ["every", "inside", "alice", "customer", "unsigned"])

    def test_unknown_attributes_are_empty(self):
        self.assertIn("\n  sets: every, outside\n", self.check())
        self.assertIn("\n  sets: none\n", self.check(sets=self.sets(("login",))))

    def test_signed(self):
        """Each message of an mbox has its own sets. A header that the way in does not show is looked up in them, too."""
        content = [b"Subject: x\nBcc: y\n\nbody\n", f"Subject: x\n{SIGNATURE}Bcc: y\n\nbody\n".encode()]
        self.message.write_bytes(b"\n".join(b"From a\n" + one for one in content))
        sets = self.sets(("signed", "unsigned"), "/^(Subject|Bcc):/ WARN {}\n")
        out = self.check("--json", "--as", "milter,recipient=a@example.net", sets=sets)
        found = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([message["sets"] for message in found], [["unsigned"], ["signed"]])
        self.assertEqual([match["set"] for message in found for match in message["matches"]], ["unsigned", "signed"])
        self.assertEqual([rule["table"].split("/")[-1] for message in found for header in message["unseen"] for rule in header["rules"]],
                         ["unsigned", "signed"])

    def test_json_and_way(self):
        out = json.loads(self.check("--json", "--as", "pipe,sasl_username=alice,recipient=b@example.com"))
        self.assertEqual(out["sets"], ["every", "outside", "customer", "customer-only", "login"])
        self.assertEqual([match["set"] for match in out["matches"]], out["sets"])
        self.assertEqual(len(out["unseen"]), 1)
        # Without sets, there is nothing to say about them.
        config = self.directory / "weir.yaml"
        config.write_text(json.dumps({"checks": {"header": f"pcre:{self.directory}/every"}}))
        out = json.loads(weir("check", "--config", config, "--json", self.message).stdout)
        self.assertNotIn("sets", out)
        self.assertNotIn("set", out["matches"][0])

    def test_bad_attributes(self):
        for text in ("sender", "sender_domain=example.org", "queue_id=1", "milter,pipe", "milter,"):
            self.assertIn("--as", self.check("--as", text, status=64))

    def test_check_config(self):
        config = self.directory / "weir.yaml"
        config.write_text(json.dumps({"checks": self.sets(("every", "alice"))}))
        self.assertIn("valid", weir("check-config", "--config", config).stdout)
        config.write_text("checks:\n- { name: a, when: { sasl_user: present } }\n")
        done = weir("check-config", "--config", config, check=False)
        self.assertIn(f"{config}:2:22: checks.sets[0].when.sasl_user: ", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
