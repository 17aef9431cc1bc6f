# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/runbook.md, run as they stand against a private Postfix and a running Weir."""
import json
import os
import re
import subprocess
import unittest

from postfix import PrivatePostfix, SMTP, free_port, wait_until
from weir import BINARY, ENVIRONMENT, ROOT, WeirService

LIMITS = [
    {"name": "per-user", "when": {"sasl_username": "present"}, "key": ["sasl_username"], "rates": ["3/1d"]},
    {"name": "per-client", "key": ["client_address"], "rates": ["1000/1d"]},
]


def commands(section):
    """The indented lines of a section."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", (ROOT / "docs/runbook.md").read_text(), re.M | re.S)[1]
    return [line.strip() for line in re.findall(r"^ {4,}.*", text, re.M)]


class Runbook(unittest.TestCase):
    def setUp(self):
        self.weir = self.enterContext(WeirService(limits=LIMITS))
        policy = f"check_policy_service inet:127.0.0.1:{self.weir.port}"
        self.postfix = self.enterContext(PrivatePostfix(relay=free_port(), main={
            "smtpd_recipient_restrictions": f"{policy}, permit_mynetworks, reject",
            "mynetworks": "127.0.0.0/8, 192.0.2.0/24", "smtpd_authorized_xclient_hosts": "127.0.0.1"}))

    def send(self, login, recipient, client="192.0.2.1"):
        """Leaves a message in the queue; returns its queue ID, or None if the recipient is refused."""
        with SMTP(self.postfix.port) as smtp:
            smtp.command(f"XCLIENT ADDR={client}" + (f" LOGIN={login}" if login else ""), 220)
            smtp.command("EHLO client.example.org", 250)
            smtp.command("MAIL FROM:<news@example.net>", 250)
            if smtp.command(f"RCPT TO:<{recipient}>")[0] != 250:
                return None
            smtp.command("DATA", 354)
            return re.search(r"queued as (\w+)", smtp.command("Subject: x\r\n\r\nx\r\n.", 250)[1])[1]

    def run_lines(self, lines):
        """Runs commands of the page in one shell; returns what they print."""
        script = "\n".join([
            f"maillog() {{ cat {self.postfix.maillog} {self.weir.log_file}; }}",
            f'weir() {{ {BINARY} "$@" --config {self.weir.config_file}; }}',
            "set -e", *(line.replace("/tmp/", f"{self.weir.directory}/") for line in lines)])
        found = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=120,
            env={**ENVIRONMENT, "MAIL_CONFIG": str(self.postfix.etc), "PATH": os.environ["PATH"] + ":/usr/sbin"})
        self.assertEqual(found.returncode, 0, found.stdout + found.stderr)
        return found.stdout

    def queues(self):
        return {message["queue_id"]: message["queue_name"] for message in self.postfix.queue()}

    def test_an_account(self):
        spam = [self.send("alice", f"r{number}@example.com") for number in range(2)]
        own = self.send("alice", "friend@example.com", client="192.0.2.17")
        good = [self.send(login, "r@example.com") for login in ("bob", "alice2", "alice@example.org")]
        wait_until(lambda: self.queues() == dict.fromkeys([*spam, own, *good], "deferred"), self.postfix.log)
        lines = commands("An account sends spam")
        delete, release, by_client, after = (next(i for i, line in enumerate(lines) if start in line) for start in (
            "postsuper -d", "postsuper -H", r"\[192\.0\.2\.17\]", "weir limits unblock"))
        shown = self.run_lines(lines[:delete])
        self.assertIn("per-user alice: recipients 3/3 per 1d", shown)
        self.assertIn("blocked for 12h", shown)
        self.assertRegex(shown, r"(?m)^ +3 alice$")
        self.assertRegex(shown, r"2 client=unknown\[192\.0\.2\.1\], sasl")
        self.assertRegex(
            shown, r"(?m)^2 2 client=unknown\[192\.0\.2\.1\] news@example\.net\n1 1 client=unknown\[192\.0\.2\.17\] news@example\.net$")
        self.assertRegex(shown, r"(?m)^ +3 deferred\n(deferred \w+ \S+@example.com\n){3}")
        self.assertEqual(shown.count("Subject: x"), 3)
        self.assertEqual(self.queues(), {**dict.fromkeys([*spam, own], "hold"), **dict.fromkeys(good, "deferred")})
        self.assertIsNone(self.send("alice", "more@example.com"))
        self.run_lines([lines[release]])
        self.assertNotIn("hold", self.queues().values())
        self.run_lines(lines[by_client:after])
        self.assertEqual(set(self.queues()), {own, *good})
        self.run_lines([lines[delete]])
        self.assertEqual(set(self.queues()), set(good))
        self.run_lines(lines[after:])
        self.assertIsNotNone(self.send("alice", "more@example.com"))

    def test_a_host(self):
        spam = [self.send(None, "r@example.com", client="192.0.2.7") for _ in range(2)]
        good = self.send(None, "r@example.com", client="192.0.2.77")
        wait_until(lambda: self.queues() == dict.fromkeys([*spam, good], "deferred"), self.postfix.log)
        self.run_lines(commands("A host sends spam"))
        self.assertEqual(self.queues(), {**dict.fromkeys(spam, "hold"), good: "deferred"})
        self.assertIsNone(self.send(None, "r@example.com", client="192.0.2.7"))

    def test_why_and_raise(self):
        for _ in range(4):
            answer = self.send("alice", "friend@example.com")
        self.assertIsNone(answer)
        # Postfix's log is written by a process of its own, after the answer.
        wait_until(lambda: "reject: RCPT" in self.postfix.log(), self.postfix.log)
        shown = self.run_lines(commands("Why was this mail deferred\\?"))
        self.assertRegex(shown, r"refuse: RCPT from .* limit per-user, key alice: over, recipients 3/3 per 1d.*recipient=friend@example.com")
        self.assertIn("to=<friend@example.com> proto=ESMTP", shown)
        self.run_lines([line for line in commands("A limit is too low") if line.startswith("weir limits")])
        self.assertIsNotNone(self.send("alice", "friend@example.com"))


class Recipes(unittest.TestCase):
    """The recipes of docs/limits.md."""

    def setUp(self):
        text = re.search(r"^## Recipes\n(.*?)^## ", (ROOT / "docs/limits.md").read_text(), re.M | re.S)[1]
        self.weir = WeirService()
        self.addCleanup(self.weir.__exit__)
        domains = self.weir.directory / "own-domains"
        domains.write_text("example.org local\n")
        self.recipes = {
            re.search(r"name: ([\w-]+)", recipe)[1]: recipe.replace("/etc/weir/own-domains", str(domains))
            for recipe in re.findall(r"```yaml\n(.*?)```", text, re.S)}

    def answers(self, name, *requests, **common):
        """What the limit answers to these requests alone, with a rate of two."""
        recipe = re.sub(r"\d+/1h", "2/1h", self.recipes.pop(name))
        self.weir.configure("".join(f"{key}: {json.dumps(value)}\n" for key, value in self.weir.config.items()) + "limits:\n" + recipe)
        (self.weir.start if self.weir.process is None else self.weir.reload)()
        self.weir.wait_logged(f": 1 limit ({name})")
        return [self.weir.ask(**{"protocol_state": "RCPT", **common, **request}).split()[0] for request in requests]

    def test_recipes(self):
        users = [{"sasl_username": user} for user in ("alice@example.org", "bob@example.org", "alice@example.org")]
        last = ["DUNNO", "DUNNO", "DEFER_IF_PERMIT"]
        expected = [
            ("server", users, last), ("per-domain", users, last),
            ("per-message", [{"instance": f"{message}.0", "recipient": f"{who}@example.com"} for message, who in ("1a", "1b", "2c", "1d")],
             ["DUNNO", "DUNNO", "DUNNO", "DEFER_IF_PERMIT"]),
            ("whole-message", [
                {**users[0], "instance": "1.0"}, {**users[0], "instance": "1.0", "protocol_state": "DATA", "recipient_count": "3"},
                {**users[0], "instance": "2.0", "protocol_state": "DATA", "recipient_count": "2"},
                {**users[0], "instance": "3.0", "protocol_state": "DATA", "recipient_count": "1"}],
             ["DUNNO", "REJECT", "DUNNO", "DEFER_IF_PERMIT"]),
            ("to-outside", [{**users[0], "recipient": recipient} for recipient in (
                "a@example.com", "a@example.org", "b@example.com", "c@example.com", "b@example.org")],
             ["DUNNO", "DUNNO", "DUNNO", "DEFER_IF_PERMIT", "DUNNO"]),
            ("per-pair", [{**users[0], "recipient": recipient} for recipient in ("a@example.com",) * 3 + ("b@example.com",)],
             last + ["DUNNO"]),
            ("per-list", [{"sender": f"list+{who}@example.org"} for who in "abc"], last),
        ]
        for name, requests, answers in expected:
            with self.subTest(name):
                self.assertEqual(self.answers(name, *requests), answers)
        self.assertEqual(self.recipes, {}, "a recipe without a test")


if __name__ == "__main__":
    unittest.main()
