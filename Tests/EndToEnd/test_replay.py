# SPDX-License-Identifier: Apache-2.0
"""weir replay: logs of a real Postfix in each format give the counts of the live ledger; bad logs are reported."""
import gzip
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import time
import unittest

from postfix import PrivatePostfix, SMTP, SMTPSink, run, wait_until
from weir import BINARY, ENVIRONMENT, WeirService, weir

LIMITS = [
    {"name": "recipients", "key": ["sender"], "count": "recipients", "rates": ["100000/1d"]},
    {"name": "messages", "key": ["client_address"], "count": "messages", "rates": ["100000/1d"]},
    {"name": "bytes", "key": ["sender_domain"], "count": "bytes", "rates": ["100G/1d"]},
]
YEAR = time.gmtime().tm_year


def line(moment, tag, text):
    return f"{time.strftime('%b %e %H:%M:%S', time.gmtime(moment))} mx {tag}: {text}\n"


def message(moment, number, sender="a@example.org", login="a", count=1, service="postfix/smtpd", address="192.0.2.1", removed=True):
    """The log lines of a message."""
    queue_id = f"{number:010X}"
    return (line(moment, f"{service}[7]", f"{queue_id}: client=client.example.org[{address}]" + (f", sasl_method=PLAIN, sasl_username={login}" if login else ""))
            + line(moment, "postfix/cleanup[8]", f"{queue_id}: message-id=<{number}@example.org>")
            + line(moment, "postfix/qmgr[9]", f"{queue_id}: from=<{sender}>, size=1000, nrcpt={count} (queue active)")
            + (line(moment, "postfix/qmgr[9]", f"{queue_id}: removed") if removed else ""))


class Replay(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def write(self, content, name="maillog", modified=None):
        path = self.directory / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if modified:
            subprocess.run(["touch", "-d", f"@{int(modified)}", path], check=True, timeout=120)
        return path

    def replay(self, *logs, limits=LIMITS, check=True, **options):
        (self.directory / "weir.yaml").write_text(json.dumps({"limits": limits}))
        result = weir("replay", *logs, "--config", self.directory / "weir.yaml", "--json", check=check, **options)
        return json.loads(result.stdout) if result.stdout else result

    def limit(self, *logs, limits=LIMITS):
        return self.replay(*logs, limits=limits)["limits"][0]

    @staticmethod
    def used(report, name):
        limit = next(limit for limit in report["limits"] if limit["name"] == name)
        return {key["key"]: key["peak"] for key in limit["windows"][0]["top"]}


class OfRealPostfix(Replay):
    def test_every_format_matches_the_ledger(self):
        for long_ids in ("no", "yes"):
            with self.subTest(long_ids=long_ids), WeirService(limits=LIMITS, give_back_dropped=True) as service, SMTPSink() as sink:
                policy = f"check_policy_service inet:127.0.0.1:{service.port}"
                with PrivatePostfix(relay=sink.port, main={
                        "smtpd_recipient_restrictions": f"{policy}, permit_mynetworks, reject", "smtpd_end_of_data_restrictions": policy,
                        "enable_long_queue_ids": long_ids}) as postfix:
                    senders = ["user0@example.org", "user1@example.org", '"a b"@example.org', r'"a\"b\\c"@example.org', '"needless"@example.org']
                    for number in range(12):
                        with SMTP(postfix.port) as client:
                            for turn in range(2):
                                client.mail(senders[number % 5], [f"r{recipient}@example.com" for recipient in range(1 + number % 3)],
                                            f"Subject: {turn}\n\n{'x' * 50 * number}\n")
                    postfix.wait_drained()
                    log = postfix.log()
                    live = {limit["name"]: service.used_by_all(limit["name"]) for limit in LIMITS}
                self.assertEqual(sum(live["messages"].values()), 24)
                self.check_forms(log, live)

    def check_forms(self, log, live):
        lines = log.splitlines(keepends=True)
        iso = "".join(re.sub(r"^(\w+) +(\d+) ([\d:]+) ", lambda found: time.strftime(f"%Y-%m-%dT{found[3]}.123456+02:00 ", time.strptime(f"{YEAR} {found[1]} {found[2]}", "%Y %b %d")), text) for text in lines)
        export = "".join(
            f"__CURSOR=s={number}\n__REALTIME_TIMESTAMP={1_700_000_000_000_000 + number * 1000}\n_BOOT_ID=x\nPRIORITY=6\nSYSLOG_IDENTIFIER={tag}\nMESSAGE={text}\n\n"
            for number, (tag, text) in enumerate(re.findall(r"(?m)^\w+ +\d+ [\d:]+ \S+ ([^\[]+)\[\d+\]: (.*)$", log)))
        forms = {
            "plain": [self.write(log)],
            "ISO": [self.write(iso, "iso")],
            "packed": [self.write(gzip.compress(log.encode()), "maillog.gz")],
            "journal": [self.write(export, "export")],
        }
        for name, files in forms.items():
            with self.subTest(name):
                report = self.replay(*files)
                for limit in ("recipients", "messages"):
                    self.assertEqual(self.used(report, limit), live[limit])
                # The log has the size in the queue, including added headers.
                more = self.used(report, "bytes")["example.org"] - live["bytes"]["example.org"]
                self.assertTrue(0 < more < 24 * 400, more)
                self.assertEqual((report["log"]["messages"], report["log"]["faults"], report["log"]["lines_without_time"]), (24, [], 0))
        self.check_the_order_of_files(lines, log, live)

    def check_the_order_of_files(self, lines, log, live):
        half = len(lines) // 2
        piped = subprocess.run([BINARY, "replay", "--config", self.directory / "weir.yaml", "--json", "-"], input=log, text=True, capture_output=True,
                               timeout=120, env=ENVIRONMENT)
        self.assertEqual(self.used(json.loads(piped.stdout), "recipients"), live["recipients"])
        # Rotated in the middle, and passed in the wrong order. If both halves start in the same second, their order is unknown.
        if lines[0][:15] != lines[half][:15]:
            first, second = self.write("".join(lines[:half]), "one"), self.write(gzip.compress("".join(lines[half:]).encode()), "two")
            self.assertEqual(self.used(self.replay(second, first), "recipients"), live["recipients"])


class OfACapture(Replay):
    def test_capture_matches_the_ledger(self):
        """A capture has all attributes and also refused requests."""
        limits = [
            {"name": "to", "key": ["recipient_domain"], "rates": ["6/1h"], "over": "REJECT no"},
            {"name": "helo", "key": ["helo_name"], "count": "messages", "rates": ["100/1h"]},
            {"name": "size", "key": ["sender"], "count": "bytes", "rates": ["1G/1h"]}]
        capture = self.directory / "capture"
        with WeirService(limits=limits, log={"capture": str(capture)}) as service:
            for number in range(10):
                with service.client() as client:
                    instance = f"1.{number}"
                    answers = [client.ask(instance=instance, recipient=f"r{turn}@example{number % 2}.org", helo_name=f"h{number % 3}") for turn in range(2)]
                    if "DUNNO" in answers:
                        client.ask(instance=instance, protocol_state="END-OF-MESSAGE", recipient="", recipient_count=str(answers.count("DUNNO")), size="500", helo_name=f"h{number % 3}")
            live = {limit["name"]: service.used_by_all(limit["name"]) for limit in limits}
            refused = service.log().count(": refuse: ")
            service.stop()
        self.assertEqual(capture.stat().st_mode & 0o777, 0o600)
        report = self.replay(capture, limits=limits)
        self.assertEqual(report["limits_left_out"], [])
        self.assertEqual(report["limits"][0]["refused"], refused)
        self.assertEqual(refused, 8)
        self.assertEqual(live["to"], {"example0.org": 6, "example1.org": 6})
        self.assertEqual(self.used(report, "to"), {"example0.org": 10, "example1.org": 10})
        self.assertEqual(self.used(report, "size"), live["size"])

    def test_full_disk(self):
        with WeirService(limits=LIMITS, log={"capture": "/dev/full"}) as service:
            self.assertEqual([service.ask(sender="a@example.org") for _ in range(3)], ["DUNNO"] * 3)
            service.wait_logged("can't write to /dev/full: No space left on device")
            service.configure(log={})
            service.reload()
            service.wait_logged("reloaded:")
            self.assertEqual(service.ask(sender="a@example.org"), "DUNNO")


class Figures(Replay):
    def test_refused_keys_and_times(self):
        start = 1_790_000_000
        log = "".join(message(start + number * 10, number, login="trojan" if number >= 50 else f"user{number % 10}", count=2) for number in range(100))
        limits = [{"name": "per-user", "key": ["sasl_username"], "rates": ["20/1h"], "over": "REJECT no"}]
        path = self.write(log, modified=start + 1000)
        limit = self.limit(path, limits=limits)
        self.assertEqual((limit["counted"], limit["refused"], limit["keys_refused"], limit["keys"]), (200, 80, 1, 11))
        refusal = limit["refusals"][0]
        self.assertEqual((refusal["key"], refusal["refused"], refusal["first"]), ("trojan", 80, (start + 600) * 1000))
        self.assertEqual(refusal["reason"], "over, 20/20 per 1h")
        window = limit["windows"][0]
        self.assertEqual((window["p50"], window["max"], window["top"][0]["key"]), (10, 100, "trojan"))
        self.assertEqual([key["key"] for key in window["caught"]], ["trojan"])
        self.assertTrue(10 < window["suggested"] < 100)
        shadow = self.limit(path, limits=[{**limits[0], "mode": "shadow"}])
        self.assertEqual(shadow["refused"], 80)
        (self.directory / "weir.yaml").write_text(json.dumps({"limits": limits}))
        text = weir("replay", path, "--config", self.directory / "weir.yaml", "--html", self.directory / "page.html").stdout
        self.assertIn("trojan: 80 refused, first at 2026-09-21", text)
        page = (self.directory / "page.html").read_text()
        self.assertIn("<polyline", page)
        self.assertNotRegex(page, r"https?://|<script")
        result = weir("replay", path, "--config", self.directory / "weir.yaml", "--html", self.directory / "none/page.html", check=False)
        self.assertIn(f"can't write {self.directory}/none/page.html: No such file or directory\n", result.stderr)

    def test_a_suggestion_catches_only_the_outlier(self):
        dice = random.Random(5)
        start, number, log = 1_790_000_000, 0, []
        for user in range(2000):
            for _ in range(1 + int(dice.paretovariate(1.5)) % 60):
                number += 1
                log.append((start + dice.randrange(3000), number, f"user{user}"))
        for second in range(600):
            number += 1
            log.append((start + 1000 + second, number, "trojan"))
        text = "".join(message(moment, number, login=login) for moment, number, login in sorted(log))
        window = self.limit(self.write(text, modified=start + 4000), limits=[{"name": "per-user", "key": ["sasl_username"], "rates": ["10/1h"]}])["windows"][0]
        self.assertEqual([key["key"] for key in window["caught"]], ["trojan"])
        # Without an outlier, no key is caught.
        honest = "".join(message(moment, number, login=login) for moment, number, login in sorted(log) if login != "trojan")
        window = self.limit(self.write(honest, modified=start + 4000), limits=[{"name": "per-user", "key": ["sasl_username"], "rates": ["10/1h"]}])["windows"][0]
        self.assertEqual(window["caught"], [])
        self.assertGreater(window["suggested"], window["max"])

    def test_uncounted_mail_is_reported(self):
        start = 1_790_000_000
        log = (message(start, 1) + message(start + 1, 2, service="postfix-out/submission/smtpd")
               + line(start + 2, "postfix/pickup[3]", "0000000003: uid=0 from=<root>") + line(start + 2, "postfix/qmgr[9]", "0000000003: from=<root@example.org>, size=1, nrcpt=1 (queue active)")
               + line(start + 3, "postfix/reinject/smtpd[3]", "0000000004: client=localhost[127.0.0.1], orig_queue_id=0000000001, orig_client=x[192.0.2.1]")
               + line(start + 3, "postfix/qmgr[9]", "0000000004: from=<a@example.org>, size=1, nrcpt=1 (queue active)")
               + line(start + 4, "postfix/qmgr[9]", "0000000005: from=<a@example.org>, size=1, nrcpt=1 (queue active)")
               + line(start + 5, "postfix/qmgr[9]", "0000000005: from=<a@example.org>, size=1, nrcpt=1 (queue active)")
               + line(start + 6, "sshd[1]", "Accepted publickey for root"))
        figures = self.replay(self.write(log, modified=start + 10), limits=[
            *LIMITS, {"name": "to", "key": ["recipient"], "rates": ["9/1h"]}, {"name": "helo", "key": ["sender"], "when": {"helo_name": "x"}, "rates": ["9/1h"]},
            {"name": "submission", "key": ["sender"], "when": {"policy_context": "submission"}, "rates": ["9/1h"]}])
        self.assertEqual(figures["limits_left_out"], ["to", "helo"])
        counted = {limit["name"]: limit["counted"] for limit in figures["limits"]}
        self.assertEqual((counted["recipients"], counted["submission"]), (2, 1))
        log = figures["log"]
        self.assertEqual((log["messages"], log["local_messages"], log["reinjected_messages"], log["messages_without_client"]), (2, 1, 1, 1))


class BadLogs(Replay):
    def test_a_year_ends(self):
        new_year = int(time.mktime(time.strptime("2026-01-01", "%Y-%m-%d"))) - time.timezone
        log = "".join(message(new_year - 50 + number, number) for number in range(100))
        path = self.write(log, modified=new_year + 100)
        report = self.replay(path, limits=[{"name": "a", "key": ["sender"], "rates": ["1000/1m"]}])
        self.assertEqual((report["log"]["lines_out_of_order"], report["log"]["last"] - report["log"]["first"]), (0, 99_000))
        self.assertEqual(report["log"]["last"], (new_year + 49) * 1000)
        self.assertTrue(60 <= report["limits"][0]["windows"][0]["max"] <= 62)

    def test_rubbish_between_the_lines(self):
        start = 1_790_000_000
        good = [message(start + number, number) for number in range(20)]
        dice = random.Random(1)
        rubbish = [bytes(dice.randrange(256) for _ in range(60)).replace(b"\n", b"") + b"\n" for _ in range(20)]
        other = ["Okt 12 10:00:00 mx postfix/qmgr[1]: 00000000FF: removed\n".encode(), b"\0" * 300 + b"\n", b"x" * 1_000_000 + b"\n",
                 b"Sep 21 14:13:20 mx postfix/smtpd[1]: 00000000AA: client=\n", b"Sep 21 14:13:20 mx postfix/qmgr[1]: 00000000AA: from=<\n",
                 b"Sep 21 14:13:20 mx postfix/qmgr[1]: 0000000001: from=<a>, size=99999999999999999999999, nrcpt=-4\n", b"Sep 21 14:13:20\n", b"2026-09-21T14:13:20\n", b"\n"]
        log = b"".join(text.encode() + one for text, one in zip(good, rubbish)) + b"".join(other)
        report = self.replay(self.write(log, modified=start + 30))
        self.assertEqual(report["log"]["messages"], 20)
        self.assertGreater(report["log"]["lines_without_time"], 20)
        self.assertEqual(len(report["log"]["faults"]), 1)
        # A NUL in a value, and a last line without a newline.
        log = good[0].replace("a@example.org", "a\0@example.org") + good[1].rstrip("\n")
        self.assertEqual(self.replay(self.write(log, modified=start + 30))["log"]["messages"], 2)

    def test_truncated_and_compressed(self):
        log = "".join(message(1_790_000_000 + number, number) for number in range(2000))
        packed = gzip.compress(log.encode())
        report = self.replay(self.write(packed[:len(packed) // 2], modified=1_790_003_000))
        self.assertIn("is truncated or damaged", report["log"]["faults"][0])
        self.assertTrue(100 < report["log"]["messages"] < 2000)
        self.assertEqual(self.replay(self.write(b""))["log"]["lines"], 0)

    def test_every_compression(self):
        log = message(1_790_000_000, 1) + message(1_790_000_001, 2)
        plain = self.replay(self.write(log, "plain", modified=1_790_000_100))
        for tool in ("gzip", "bzip2", "xz", "zstd", "lz4"):
            with self.subTest(tool):
                packed = subprocess.run([tool, "-c"], input=log.encode(), stdout=subprocess.PIPE, check=True, timeout=120).stdout
                path = self.write(packed, f"mail.{tool}", modified=1_790_000_100)
                self.assertEqual(self.replay(path), plain)
                cut = self.replay(self.write(packed[:-7], f"cut.{tool}", modified=1_790_000_100))
                self.assertIn("is truncated or damaged", cut["log"]["faults"][0])
                result = run([BINARY, "replay", path, "--config", self.directory / "weir.yaml"], check=False, env={**ENVIRONMENT, "PATH": "/nonexistent"})
                self.assertEqual((result.returncode, result.stderr), (66, f"weir replay: can't read {path}: {tool}(1) is not installed\n"))

    def test_a_filter_before_the_queue(self):
        """The login and the client are those of the smtpd before the filter."""
        for is_late in (False, True):
            accept = line(1_790_000_000, "postfix/submission/smtpd[7]", "proxy-accept: END-OF-MESSAGE: 250 2.0.0 Ok: queued as 01BB2FC2169; "
                          "from=<a@example.org> to=<b@example.com> proto=ESMTP helo=<h> sasl_username=<alice>")
            queued = line(1_790_000_000, "postfix/qmgr[9]", "01BB2FC2169: from=<a@example.org>, size=417, nrcpt=2 (queue active)")
            log = (line(1_790_000_000, "postfix/submission/smtpd[7]", "NOQUEUE: client=client.example.org[192.0.2.1], sasl_method=PLAIN, sasl_username=alice")
                   + line(1_790_000_000, "postfix/back/smtpd[8]", "01BB2FC2169: client=localhost[127.0.0.1], orig_client=client.example.org[192.0.2.1]")
                   + (queued + accept if is_late else accept + queued))
            limits = [{"name": name, "when": {"policy_context": "submission"}, "key": [name], "rates": ["9/1d"]} for name in ("sasl_username", "client_address")]
            report = self.replay(self.write(log, modified=1_790_000_100), limits=limits)
            self.assertEqual(report["log"]["messages"], 1)
            self.assertEqual((self.used(report, "sasl_username"), self.used(report, "client_address")), ({"alice": 2}, {"192.0.2.1": 2}))

    def test_lines_that_are_out_of_order(self):
        """Lines that are out of order are counted, and the report says so."""
        start = 1_790_000_000
        path = self.write(message(start + 100, 1) + message(start + 40, 2) + message(start + 200, 3), modified=start + 300)
        report = self.replay(path)
        self.assertEqual((report["log"]["messages"], report["log"]["lines_out_of_order"]), (3, 4))
        text = weir("replay", path, "--config", self.directory / "weir.yaml").stdout
        self.assertIn("  out of order, counted at the latest time before them: 4 lines\n", text)
        self.assertNotIn("not counted", text)

    def test_file_named_twice(self):
        path = self.write(message(1_790_000_000, 1), modified=1_790_000_100)
        link = self.directory / "link"
        link.symlink_to(path)
        for other, words in ((path, f"{path} is given twice"), (link, f"{path} and {link} are the same file")):
            result = self.replay(path, other, check=False)
            self.assertEqual((result.returncode, result.stderr), (66, f"weir replay: {words}\n"))

    def test_unreadable_files(self):
        for path in ("/nonexistent", self.directory):
            (self.directory / "weir.yaml").write_text(json.dumps({"limits": LIMITS}))
            result = weir("replay", path, "--config", self.directory / "weir.yaml", check=False)
            self.assertEqual(result.returncode, 66)
            self.assertIn("No such file" if path == "/nonexistent" else "Is a directory", result.stderr)

    def test_pipes(self):
        """What the shell's <(...) gives can be read only once."""
        first, second = message(1_790_000_000, 1), message(1_790_000_100, 2)
        (self.directory / "weir.yaml").write_text(json.dumps({"limits": LIMITS}))
        pipes = []
        for text in (first, second):
            end, other = os.pipe()
            os.write(other, text.encode())
            os.close(other)
            self.addCleanup(os.close, end)
            pipes.append(end)
        result = subprocess.run(
            [BINARY, "replay", *(f"/dev/fd/{end}" for end in pipes), "--config", self.directory / "weir.yaml", "--json"], env=ENVIRONMENT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=pipes, timeout=120, text=True)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(json.loads(result.stdout)["log"]["messages"], 2)


if __name__ == "__main__":
    unittest.main()
