# SPDX-License-Identifier: Apache-2.0
"""Alerts by webhook, command and mail, and the audit trail."""
import http.server
import json
import os
import pathlib
import shlex
import shutil
import socket
import sqlite3
import tempfile
import threading
import unittest
import urllib.parse

from filtering import FilterService
from postfix import DEFAULT_TIMEOUT, free_port, run, wait_until
from weir import BINARY, ENVIRONMENT, UnixConnection, WeirService, get, samples
from weir import weir as command

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["3/1h"], "warn_at": 60,
         "block": {"after": 2, "for": "1h"}}


class Hook:
    """A webhook that records its requests and answers with `status`, or never if that is None."""

    def __init__(self, status=200):
        self.got = []
        self.status = status
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.headers["Content-Type"], json.loads(body)))
                if hook.status:
                    self.send_response(hook.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    hook.ended.wait(60)

            def log_message(self, *_):
                pass

        self.ended = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/T0/secret"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def alerts(self):
        return [alert for _, notice in self.got for alert in notice["alerts"]]


class Alerts(unittest.TestCase):
    def script(self, text):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, directory)
        directory.chmod(0o777)
        path = directory / "program"
        path.write_text("#!/bin/sh\n" + text.replace("HERE", str(directory)))
        path.chmod(0o755)
        return path

    def test_tiers_of_a_key_by_webhook(self):
        """Warn, over and block are sent once each: the first at once, the others together."""
        with Hook() as hook, WeirService(limits=[LIMIT], alerts={"webhook": hook.url, "interval": "1s"}) as weir:
            for _ in range(8):
                weir.ask(sender="a@example.org")
            wait_until(lambda: len(hook.alerts) >= 3, "three alerts")
            self.assertEqual([alert["tier"] for alert in hook.alerts], ["warn", "over", "block"])
            first = hook.alerts[0]
            self.assertEqual((first["limit"], first["key"], first["mode"], first["repeats"]), ("per-sender", "a@example.org", "enforce", 0))
            self.assertEqual(hook.alerts[1]["text"].split(", instance")[0], "over, recipients 3/3 per 1h")
            self.assertEqual(hook.got[0][0], "application/json")
            self.assertIn("warn: limit per-sender, key a@example.org: 60 % reached", hook.got[0][1]["text"])
            self.assertNotIn("secret", weir.log())

    def test_what_to_do_about_a_key(self):
        """Each alert has the client, commands that a shell takes as they are, and the address of the page."""
        for key in ("a@example.org", "o'neil $(reboot)`x`@example.org", "-x@example.org", "tab\tand\x1b[31mcolour@example.org"):
            with self.subTest(key=key), Hook() as hook, WeirService(
                    limits=[LIMIT], alerts={"webhook": hook.url, "interval": "1s"}) as weir:
                for _ in range(8):
                    weir.ask(sender=key)
                wait_until(lambda: len(hook.alerts) >= 3, "three alerts")
                verbs = {"warn": "block", "over": "block", "block": "unblock"}
                self.assertEqual([alert["tier"] for alert in hook.alerts], list(verbs))
                for alert in hook.alerts:
                    self.assertEqual(alert["client"], "client.example.org[192.0.2.1]")
                    self.assertEqual(alert["page"], f"http://127.0.0.1:8045/#key={urllib.parse.quote(key.lower(), safe='-_.!~*()' + chr(39))}")
                    self.assertEqual(len(alert["commands"]), 2)
                    for typed in alert["commands"]:
                        self.assertTrue(typed.isprintable(), typed)
                    # The shell calls this instead of the program on the path.
                    shell = f'weir() {{ {shlex.quote(str(BINARY))} "$@"; }}; {alert["commands"][1]} && {alert["commands"][0]}'
                    result = run(["bash", "-c", shell], check=False, env=ENVIRONMENT)
                    self.assertEqual(result.returncode, 0, f"{shell}\n{result.stderr}")
                    self.assertEqual("blocked until unblocked" in result.stdout, verbs[alert["tier"]] == "block", result.stdout)
                notice = hook.got[0][1]
                self.assertIn(f"[client client.example.org[192.0.2.1]; {hook.alerts[0]['commands'][0]}]", notice["text"])
                self.assertEqual(notice["page"], "http://127.0.0.1:8045/")
                self.assertEqual(notice["tunnel"], f"ssh -L 8045:{weir.admin_socket} {socket.gethostname()}")

    def test_a_key_that_would_be_blocked(self):
        with Hook() as hook, WeirService(
                limits=[{**LIMIT, "mode": "shadow"}], alerts={"webhook": hook.url, "interval": "1s"}) as weir:
            for _ in range(8):
                weir.ask(sender="a@example.org")
            wait_until(lambda: len(hook.alerts) >= 3, "three alerts")
            alert = hook.alerts[2]
            self.assertEqual((alert["tier"], alert["mode"]), ("block", "shadow"))
            self.assertRegex(alert["text"], "^would be blocked for .* after [0-9]+ refused requests$")
            self.assertIn(" limits block ", alert["commands"][1])
            weir.wait_logged("limit per-sender, key a@example.org: would be blocked for ")
            self.assertNotIn(": blocked", weir.log())

    def test_the_log_says_everything_once(self):
        """The line of an event is also that of its alert."""
        with Hook() as hook, WeirService(limits=[LIMIT], alerts={"webhook": hook.url, "interval": "1s"}) as weir:
            for _ in range(6):
                weir.ask(sender="a@example.org")
            wait_until(lambda: len(hook.alerts) >= 3, "three alerts")
            lines = [line.split("]: ", 1)[1] for line in weir.log().splitlines()]
            for text in ("60 % reached", "blocked for "):
                self.assertEqual(sum(text in line for line in lines), 1, lines)
            self.assertEqual(sum("over, recipients" in line for line in lines), 2, lines)
            self.assertNotIn("alert: ", weir.log())

    def test_test_notices(self):
        program = self.script("cat > HERE/input.new; mv HERE/input.new HERE/input")
        mailer = self.script("cat > HERE/mail; exit 75")
        with Hook() as hook, WeirService(alerts={
                "webhook": hook.url, "command": str(program), "mail": ["ops@example.org"], "sendmail": str(mailer)}) as weir:
            at = ("alert", "--config", weir.config_file, "--test")
            result = command(*at, "webhook")
            self.assertEqual(result.stdout, "alerts.webhook: test notice delivered: the server answered with a status 2xx\n")
            (alert,) = hook.alerts
            self.assertEqual((alert["tier"], alert["subject"]), ("test", "weir alert --test"))
            self.assertRegex(alert["text"], r"^asked for by uid \d+ \(\w+\); nothing is wrong$")
            result = command(*at, "all", check=False)
            self.assertEqual((result.returncode, result.stdout.splitlines()), (1, [
                f"alerts.command: test notice delivered: {program} exited with status 0",
                f"alerts.mail: test notice not delivered: {mailer} exited with status 75",
                "alerts.webhook: test notice delivered: the server answered with a status 2xx"]))
            self.assertEqual(json.loads((program.parent / "input").read_text())["alerts"][0]["tier"], "test")
            self.assertRegex((mailer.parent / "mail").read_text(), r"(?m)^Subject: Weir on \S+: test: weir alert --test: asked for by")
            weir.wait_logged(f"warning: alerts.mail: test notice not delivered: {mailer} exited with status 75 (a test for uid ")
            hook.status = 503
            result = command(*at, "webhook", check=False)
            self.assertEqual((result.returncode, result.stdout), (
                1, "alerts.webhook: test notice not delivered: the server answered with status 503\n"))
            result = command(*at, "pager", check=False)
            self.assertEqual(result.returncode, 64)
            for channel in ("webhook", "command", "mail", "all"):
                self.assertIn(f"'{channel}'", result.stderr)
            # An alert of the service is not held up by tests.
            self.assertNotIn("only logged", weir.log())
            weir.configure(alerts={"webhook": hook.url})
            weir.reload()
            weir.wait_logged("reloaded:")
            result = command(*at, "mail", check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn("alerts.mail is not configured in the running service; only alerts.webhook is", result.stderr)
            weir.configure(alerts={})
            weir.reload()
            wait_until(lambda: weir.log().count("reloaded:") == 2, "the service has reloaded again")
            for channel, text in (("mail", "alerts.mail is not configured in the running service, and no other channel is"),
                                  ("all", "the running service has no channel for alerts")):
                self.assertEqual(command(*at, channel, check=False).stderr, f"weir alert: {text}\n")
            weir.stop()
            self.assertEqual(command(*at, "webhook", check=False).returncode, 69)

    def test_repeats_and_tiers_are_configured(self):
        with Hook() as hook, WeirService(
                limits=[LIMIT], alerts={"webhook": hook.url, "interval": "1s", "repeat": "1s", "tiers": ["over"]}) as weir:
            def ask_until_sent_again():
                weir.ask(sender="a@example.org")
                return len(hook.alerts) >= 2
            wait_until(ask_until_sent_again, "the alert is sent again")
            self.assertEqual({alert["tier"] for alert in hook.alerts}, {"over"})
            self.assertGreater(hook.alerts[1]["repeats"], 0)

    def test_many_keys_give_few_notices(self):
        """500 senders over their limit make a few notices of bounded length; the rest is counted."""
        with Hook() as hook, WeirService(
                limits=[{**LIMIT, "rates": ["1/1h"]}], alerts={"webhook": hook.url, "interval": "1s", "tiers": ["over"]}) as weir:
            for number in range(500):
                for _ in range(2):
                    weir.ask(sender=f"user{number}@example.org")
            wait_until(lambda: sum(len(n["alerts"]) + n["leftOut"] for _, n in list(hook.got)) == 500, "all alerts are sent or counted")
            self.assertLess(len(hook.got), 20)
            self.assertLessEqual(max(len(notice["alerts"]) for _, notice in hook.got), 50)

    def test_a_pattern_that_gives_up(self):
        """A limit whose pattern gives up does not apply: that is logged once, counted, and sent as an alert."""
        odd = {**LIMIT, "name": "odd-helo", "when": {"helo_name": {"matches": "^(x+x+)+y"}}, "rates": ["1/1h"]}
        with Hook() as hook, WeirService(limits=[odd], alerts={"webhook": hook.url, "interval": "1s"}) as weir:
            for _ in range(5):
                self.assertEqual(weir.ask(sender="a@example.org", helo_name="x" * 60 + "-y"), "DUNNO")
            wait_until(lambda: hook.alerts, "an alert")
            (alert,) = hook.alerts
            self.assertEqual((alert["tier"], alert["subject"]), ("trouble", "conditions of limit odd-helo"))
            line = ("warning: limit odd-helo: the pattern for helo_name gave up (match limit exceeded): "
                    "the limit did not apply to RCPT from client.example.org[192.0.2.1], instance=")
            weir.wait_logged(line)
            metrics = samples(get(UnixConnection(weir.admin_socket), "/metrics")[1])
            self.assertEqual(metrics['weir_limit_conditions_undecided_total{limit="odd-helo"}'], 5)

    def test_command_and_mail(self):
        program = self.script("cat > HERE/input.new; mv HERE/input.new HERE/input")
        mailer = self.script('echo "$@" > HERE/arguments; cat > HERE/mail.new; mv HERE/mail.new HERE/mail')
        hostile = "evil\r\nBcc: x@example.org \u00e9@example.org"
        with WeirService(
                limits=[{**LIMIT, "key": ["helo_name"]}],
                alerts={"command": str(program), "mail": ["ops@example.org", "root"], "sendmail": str(mailer), "tiers": ["over"]}) as weir:
            for _ in range(5):
                weir.ask(sender="a@example.org", helo_name=hostile.replace("\r\n", " \x1b"))
            mail, taken = mailer.parent / "mail", program.parent / "input"
            wait_until(lambda: mail.exists() and taken.exists(), "both have run")
            self.assertEqual((mailer.parent / "arguments").read_text().strip(), "-i -- ops@example.org root")
            head, _, body = mail.read_bytes().decode().partition("\n\n")
            self.assertRegex(head, r"^Subject: Weir on \S+: over: limit per-sender, key evil \?bcc: x@example.org \?@example.org")
            # The Subject has no room for commands; the body has them whole.
            self.assertNotIn("weir limits", head)
            self.assertIn("To: ops@example.org, root\n", head)
            self.assertIn("Auto-Submitted: auto-generated", head)
            self.assertIn("\\u{1B}", body)
            self.assertIn("\n    client client.example.org[192.0.2.1]\n    weir limits show ", body)
            self.assertRegex(body, r"\nThe page is at http://127\.0\.0\.1:8045/ while this runs on your machine:\n    ssh -L 8045:\S+ \S+\n$")
            self.assertEqual(json.loads(taken.read_text())["alerts"][0]["tier"], "over")

    def test_programs_inherit_no_descriptors(self):
        """An inherited listening socket would keep the port busy, an inherited client socket the client waiting."""
        program = self.script("ls /proc/self/fd > HERE/found.new; mv HERE/found.new HERE/found")
        with WeirService(limits=[LIMIT], alerts={"command": str(program), "tiers": ["over"]}) as weir:
            for _ in range(5):
                weir.ask(sender="a@example.org")
            found = program.parent / "found"
            wait_until(found.exists, "it has run")
            # The fourth is the directory that ls reads.
            self.assertEqual(found.read_text().split(), ["0", "1", "2", "3"])

    def test_failing_channels_delay_no_answer(self):
        """A webhook without a response, a webhook with an error, a command that hangs, and a missing sendmail."""
        slow = self.script("exec sleep 60")
        with Hook(status=None) as hook, WeirService(
                limits=[LIMIT], alerts={"webhook": hook.url, "command": str(slow), "mail": ["root"], "sendmail": "/nonexistent/sendmail"}) as weir:
            for number in range(200):
                for _ in range(4):
                    weir.ask(sender=f"user{number}@example.org")
            wait_until(lambda: hook.got, "the webhook was asked")
            weir.wait_logged("alerts.mail: alert not delivered: ")
            weir.wait_logged("can't run /nonexistent/sendmail: No such file or directory; trying again for an hour")
            self.assertEqual(weir.stop(), 0)

    def test_a_notice_that_is_refused(self):
        """It would be refused again, and later alerts must not wait for it."""
        for status, words in ((404, "404"), (302, "302, a redirect, which is not followed")):
            with self.subTest(status=status), Hook(status) as hook, WeirService(
                    limits=[LIMIT], alerts={"webhook": hook.url, "interval": "1s"}) as weir:
                text = f"alerts.webhook: alert not delivered, only logged: the server answered with status {words}\n"
                for asked, notices in ((2, 1), (2, 2)):
                    for _ in range(asked):
                        weir.ask(sender="a@example.org")
                    wait_until(lambda: weir.log().count(text) == notices, weir.log)
                self.assertEqual(len(hook.got), 2)

    def test_alerts_wait_until_the_channel_is_back(self):
        with Hook(500) as hook, WeirService(limits=[LIMIT], alerts={"webhook": hook.url, "interval": "1s"}) as weir:
            for _ in range(8):
                weir.ask(sender="a@example.org")
            weir.wait_logged(
                "alerts.webhook: alert not delivered: the server answered with status 500; trying again for an hour\n")
            # On a busy machine, the first notice may have more than the warning.
            self.assertEqual([alert["tier"] for alert in hook.alerts].count("warn"), 3)
            hook.status = 200
            weir.wait_logged("alerts.webhook: delivers alerts again")
            wait_until(
                lambda: [alert["tier"] for alert in hook.alerts][-3:] == ["warn", "over", "block"],
                lambda: str(hook.alerts))
            self.assertEqual([alert["tier"] for alert in hook.alerts].count("warn"), 4)
            self.assertNotIn("only logged", weir.log())

    def test_a_second_start_sends_no_alert(self):
        with Hook() as hook, WeirService(limits=[LIMIT]) as weir:
            second = WeirService(
                port=weir.port, limits=[LIMIT], ledger={"store": f"sqlite:{weir.ledger}"}, alerts={"webhook": hook.url})
            self.addCleanup(second.__exit__)
            second.start(wait=False)
            self.assertNotEqual(second.process.wait(DEFAULT_TIMEOUT), 0)
            second.wait_logged("error: the ledger is unavailable: another weir serve")
            self.assertEqual(hook.got, [])

    def test_trouble_and_recovery(self):
        with Hook() as hook:
            directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
            self.addCleanup(shutil.rmtree, directory)
            with WeirService(limits=[LIMIT], ledger={"store": f"sqlite:{directory}/later/ledger.sqlite"},
                             alerts={"webhook": hook.url, "interval": "1s"}):
                wait_until(lambda: any(alert["tier"] == "trouble" for alert in hook.alerts), "an alert about the trouble")
                (directory / "later").mkdir()
                wait_until(lambda: any(alert["tier"] == "recovery" for alert in hook.alerts), "an alert about the recovery")
                self.assertEqual({alert["subject"] for alert in hook.alerts}, {"the ledger"})
                trouble = next(alert for alert in hook.alerts if alert["tier"] == "trouble")
                self.assertRegex(trouble["commands"][0], r"^weir check-health --config \S+$")
            closed = free_port()
            with FilterService(closed, "/^Subject: no/ REJECT\n", alerts={"webhook": hook.url}) as weir:
                with socket.create_connection(("127.0.0.1", weir.filter_port), timeout=120) as client:
                    client.recv(1000)
                    client.sendall(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n")
                    client.recv(1000)
                    wait_until(lambda: any(alert["subject"] == f"next hop inet:127.0.0.1:{closed}" for alert in hook.alerts), "an alert about the next hop")
                    # The text does not repeat the subject, and gives the system's error.
                    self.assertIn("can't connect: Connection refused", {alert["text"] for alert in hook.alerts})
                    weir.wait_logged(f"the next hop inet:127.0.0.1:{closed}: can't connect: Connection refused")

    def test_reload_and_pending_alerts_at_stop(self):
        with Hook() as hook, WeirService(limits=[LIMIT]) as weir:
            weir.configure(alerts={"webhook": hook.url, "interval": "1h"})
            weir.reload()
            weir.wait_logged("reloaded:")
            for _ in range(8):
                weir.ask(sender="a@example.org")
            wait_until(lambda: hook.got, "the first alert is sent at once")
            self.assertEqual(weir.stop(), 0)
            self.assertEqual(sorted(alert["tier"] for alert in hook.alerts), ["block", "over", "warn"])

    def test_configuration_faults(self):
        with WeirService() as weir:
            weir.configure(alerts={"webhook": "ftp://example.org", "mail": ["-oQ/tmp", "a b"], "tiers": ["shout"], "command": "relative", "interval": "400d"})
            result = command("check-config", "--config", weir.config_file, check=False)
            self.assertEqual(result.returncode, 1)
            for text in ("is not a URL", "is not a mail address", "'shout' is unknown", "is not an absolute path", "is out of range"):
                self.assertIn(text, result.stdout + result.stderr)
            weir.configure(alerts={"command": "/nonexistent/program"})
            result = command("check-config", "--config", weir.config_file)
            self.assertIn("can't execute /nonexistent/program: No such file", result.stdout + result.stderr)


class Audit(unittest.TestCase):
    def test_kept_in_the_store(self):
        with WeirService(limits=[LIMIT]) as weir:
            weir.ask(sender="a@example.org")
            at = ("--config", weir.config_file)
            command("limits", "raise", *at, "a@example.org", "500/1h", "--for", "2d", "--reason", "newsletter, asked by phone")
            command("limits", "block", *at, "nobody@example.org", check=False)
            weir.wait_logged("(500/1h, for 2d): done for per-sender: newsletter, asked by phone")
            self.assertEqual(weir.stop(), 0)
            rows = sqlite3.connect(weir.ledger).execute("SELECT user, action, key, details, reason, limits FROM audit").fetchall()
            user = f"uid {os.getuid()} (root)"
            self.assertEqual(rows, [
                (user, "raise", "a@example.org", "500/1h, for 2d", "newsletter, asked by phone", "per-sender"),
                (user, "block", "nobody@example.org", "", "", "")])
            weir.start()
            lines = command("limits", "audit", *at).stdout.splitlines()
            self.assertRegex(lines[1], r"^\S+Z uid 0 \(root\): raise a@example.org \(500/1h, for 2d\): done for per-sender: newsletter, asked by phone$")
            self.assertEqual(json.loads(command("limits", "audit", *at, "--json").stdout)[0]["action"], "block")
            result = command("limits", "reset", *at, "a@example.org", "--reason", "x" * 600, check=False)
            self.assertIn("the reason can have at most 500 bytes", result.stderr)


if __name__ == "__main__":
    unittest.main()
