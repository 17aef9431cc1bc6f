# SPDX-License-Identifier: Apache-2.0
"""The admin listener: metrics, health checks, keys, and access control."""
import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.parse

from filtering import FilterService, NextHop, dialogue
from postfix import DEFAULT_TIMEOUT, NEEDS_ROOT, SMTP, children, free_port, wait_until
from weir import BINARY, ROOT, UnixConnection, WeirService, get, samples
from weir import weir as cli

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["3/1h"]}


class Tags(unittest.TestCase):
    def test_a_tag_is_seen_everywhere(self):
        """In the log line of the hit, /metrics, /overview and /snapshot, for the tables of all classes."""
        part = "Content-Type: text/plain; name=part\n\nbad line\n--b\nContent-Type: message/rfc822\n\nX-Nested: 1\n\nx\n--b--\n"
        message = f"Subject: =?utf-8?B?Y2FzaW5v?=\nX-Raw: 1\nContent-Type: multipart/mixed; boundary=b\n\n--b\n{part}"
        tables = {
            "header": ("header_checks", "/^X-Raw:/ WARN"), "mime_header": ("mime_header_checks", "/name=part/ WARN"),
            "nested_header": ("nested_header_checks", "/^X-Nested:/ WARN"), "decoded_header": ("decoded_header", "/casino/ WARN"),
            "body": ("body_checks", "/^bad/ WARN")}
        with NextHop(dialogue({})) as hop, FilterService(hop.port) as weir:
            for checks, (_, rule) in tables.items():
                (weir.directory / checks).write_text(f"# tag: of-{checks}\n{rule}\n/never/ WARN\n")
            weir.configure(checks={checks: [f"pcre:{weir.directory}/{checks}"] for checks in tables})
            weir.restart()
            with SMTP(weir.filter_port) as client:
                client.mail("a@example.org", ["b@example.com"], message)
            for checks, (word, _) in tables.items():
                weir.wait_logged(f": {word} pcre:{weir.directory}/{checks}:2, tag of-{checks}: WARN: ")
            found = samples(get(UnixConnection(weir.admin_socket), "/metrics")[1])
            self.assertEqual({name: value for name, value in found.items() if name.startswith("weir_rule_tag_hits_total")},
                             {f'weir_rule_tag_hits_total{{tag="of-{checks}"}}': 1 for checks in tables})
            for path in ("/overview", "/snapshot"):
                data = json.loads(get(UnixConnection(weir.admin_socket), path)[1])
                self.assertCountEqual(data["tags"], [{"tag": f"of-{checks}", "rules": 1, "hits": 1} for checks in tables])
                self.assertEqual({rule["tag"] for rule in data["rules"]}, {f"of-{checks}" for checks in tables})


class Metrics(unittest.TestCase):
    def test_counters(self):
        began = time.time()
        with NextHop(dialogue({})) as hop, FilterService(
                hop.port, "/^Subject: no/ REJECT\n/^Subject: never/ REJECT\n/^X-Old:/ IGNORE\n", limits=[LIMIT]) as weir:
            for number in range(5):
                weir.ask(sender="a@example.org")
            for subject in ("yes", "no", "no", "old\nX-Old: 1"):
                with SMTP(weir.filter_port) as client:
                    client.mail("a@example.org", ["b@example.com"], f"Subject: {subject}\n\nbody\n")
            status, text, headers = get(UnixConnection(weir.admin_socket), "/metrics")
            self.assertEqual((status, headers["Content-Type"]), (200, "text/plain; version=0.0.4"))
            found = samples(text)
            self.assertEqual(found['weir_policy_answers_total{answer="dunno"}'], 3)
            self.assertEqual(found['weir_policy_answers_total{answer="defer"}'], 2)
            self.assertEqual(found['weir_limit_refusals_total{limit="per-sender",mode="enforce"}'], 2)
            self.assertEqual(found['weir_limit_blocks_total{limit="per-sender",mode="enforce"}'], 0)
            self.assertEqual(found["weir_policy_answer_seconds_count"], 5)
            self.assertEqual(found['weir_policy_answer_seconds_bucket{le="+Inf"}'], 5)
            self.assertEqual(found["weir_ledger_up"], 1)
            self.assertAlmostEqual(found["process_start_time_seconds"], time.time(), delta=300)
            self.assertGreater(found["weir_ledger_journal_bytes"], 0)
            self.assertGreater(found["weir_ledger_checkpoint_time_seconds"], found["process_start_time_seconds"] - 60)
            for name in ("weir_ledger_keys_evicted_total", "weir_alerts_failed_total", "weir_log_lines_dropped_total"):
                self.assertEqual(found[name], 0)
            way = f'listener="filter inet:127.0.0.1:{weir.filter_port}"'
            counts = {outcome: found[f'weir_messages_total{{{way},outcome="{outcome}"}}'] for outcome in ("passed", "edited", "refused")}
            self.assertEqual(counts, {"passed": 1, "edited": 1, "refused": 2})
            self.assertEqual(found[f'weir_rule_hits_total{{checks="header",rule="pcre:{weir.directory}/header.pcre:1"}}'], 2)
            rules = {rule["location"].rpartition(":")[2]: rule for rule in json.loads(get(UnixConnection(weir.admin_socket), "/snapshot")[1])["rules"]}
            self.assertEqual(set(rules), {"1", "3"})
            for rule in rules.values():
                self.assertTrue(began - 1 <= rule["lastHit"] <= time.time() + 1, rule)
            unused = json.loads(get(UnixConnection(weir.admin_socket), "/rules/unused")[1])
            self.assertEqual(unused, [{"checks": "header", "location": f"pcre:{weir.directory}/header.pcre:2"}])
            # A peer's text never appears in metrics.
            self.assertNotIn("example.org", text)
            # The dashboard uses only existing metrics.
            dashboard = json.loads((ROOT / "deploy/grafana/weir.json").read_text())
            asked = {name for panel in dashboard["panels"] for target in panel["targets"]
                     for name in re.findall(r"\b(?:weir|process)_\w+", target["expr"])}
            self.assertGreater(len(asked), 10)
            self.assertLessEqual(asked, set(re.findall(r"^# TYPE (\S+)", text, re.M)) | {"weir_policy_answer_seconds_bucket"})

    def test_a_table_in_two_lists(self):
        """Each list has its own counters, and no series appears twice."""
        with NextHop(dialogue({})) as hop, FilterService(hop.port, "/^X-Odd:/ WARN odd\n") as weir:
            table = f"pcre:{weir.directory}/header.pcre"
            weir.configure(checks={**weir.config["checks"], "nested_header": [table, table]})
            weir.restart()
            nested = ("X-Odd: 1\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n"
                      "X-Odd: 2\n\nbody\n--b--\n")
            with SMTP(weir.filter_port) as client:
                client.mail("a@example.org", ["b@example.com"], nested)
            found = samples(get(UnixConnection(weir.admin_socket), "/metrics")[1])
            hits = {name: value for name, value in found.items() if name.startswith("weir_rule_hits_total")}
            self.assertEqual(hits, {f'weir_rule_hits_total{{checks="{checks}",rule="{table}:1"}}': 1 for checks in ("header", "nested_header")})

    def test_a_next_hop_that_is_down(self):
        """Each failed attempt counts once, and so does the message that is deferred because of it."""
        down = free_port()
        with FilterService(down) as weir:
            def found():
                return samples(get(UnixConnection(weir.admin_socket), "/metrics")[1])

            way = f'listener="filter inet:127.0.0.1:{weir.filter_port}"'
            self.assertEqual((found()[f"weir_next_hop_failures_total{{{way}}}"], found()[f"weir_next_hop_up{{{way}}}"]), (0, 1))
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", weir.filter_port), 20) as client:
                    reader = client.makefile("rb")
                    reader.readline()
                    client.sendall(b"EHLO client.example.org\r\n")
                    self.assertRegex(reader.readline(), b"^421 ")
            self.assertEqual(found()[f"weir_next_hop_failures_total{{{way}}}"], 3)
            self.assertEqual(found()[f'weir_messages_total{{{way},outcome="deferred"}}'], 3)
            self.assertEqual(found()[f"weir_next_hop_up{{{way}}}"], 0)
            hop = json.loads(get(UnixConnection(weir.admin_socket), "/snapshot")[1])["ways"][0]["values"]["nextHop"]
            self.assertEqual((hop["address"], hop["connections"], hop["idle"]), (f"inet:127.0.0.1:{down}", 0, 0))
            self.assertIn("can't connect", hop["trouble"]["cause"])
            # In words, also where only the line is seen.
            health = cli("check-health", "--config", weir.config_file, check=False)
            self.assertRegex(health.stdout, r"^WEIR WARNING: next hop of [^|;]*: can't connect: [\w ]+ \| ")
            for name in "main.cf", "master.cf":
                (weir.directory / name).write_text("")
            doctor = cli("doctor", "--postfix", weir.directory, "--config", weir.config_file, "--json", check=False)
            [finding] = [one for one in json.loads(doctor.stdout)[-1]["findings"] if one["kind"] == "next-hop-down"]
            self.assertIn(f"can't reach its next hop inet:127.0.0.1:{down}, so mail waits: can't connect", finding["text"])

    def test_age_allows_cached_answers(self):
        with WeirService(limits=[LIMIT]) as weir:
            def used(path):
                return [one["rates"][0]["used"] for one in json.loads(get(UnixConnection(weir.admin_socket), path)[1])]

            def passed(path):
                return json.loads(get(UnixConnection(weir.admin_socket), path)[1])["answers"][0]["total"]

            weir.ask(sender="a@example.org")
            self.assertEqual((used("/limits?age=60"), passed("/snapshot?age=60")), ([1], 1))
            weir.ask(sender="a@example.org")
            self.assertEqual((used("/limits?age=60"), passed("/snapshot?age=60")), ([1], 1))
            self.assertEqual((used("/limits"), passed("/snapshot")), ([2], 2))

    def test_wrong_requests_say_what_is_wrong(self):
        with WeirService(limits=[LIMIT]) as weir:
            def ask(*arguments, **options):
                status, text, _ = get(UnixConnection(weir.admin_socket), *arguments, **options)
                return status, json.loads(text)["error"] if text else ""
            for method, path in (("GET", "/nope"), ("POST", "/metrics"), ("DELETE", "/limits/key"), ("GET", "/limits/block")):
                self.assertEqual(ask(path, method), (404, f"nothing here answers {method} {path}; docs/operation.md lists the paths"))
            self.assertEqual(ask("/nope", "HEAD"), (404, ""))
            for path in ("/snapshot?age=x", "/limits?age=-1", "/rules/unused?age=1.5"):
                self.assertEqual(ask(path), (400, "age must be a whole number of seconds"))
            self.assertEqual(ask("/limits/key", "POST", body="x" * 70_000), (413, "the body has more than 65536 bytes"))

    def test_probes(self):
        with WeirService(limits=[LIMIT]) as weir:
            for path in ("/healthz", "/readyz", "/metrics"):
                for method in ("GET", "HEAD"):
                    status, text, _ = get(UnixConnection(weir.admin_socket), path, method)
                    self.assertEqual((status, text == ""), (200, method == "HEAD"), (path, method))
        directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, directory)
        with WeirService(limits=[LIMIT], ledger={"store": f"sqlite:{directory}/none/ledger.sqlite"}) as weir:
            self.assertEqual(get(UnixConnection(weir.admin_socket), "/healthz")[0], 200)
            status, text, _ = get(UnixConnection(weir.admin_socket), "/readyz")
            self.assertEqual(status, 503)
            self.assertIn("the ledger is not open, and requests are answered DUNNO: ", text)
            self.assertEqual(samples(get(UnixConnection(weir.admin_socket), "/metrics")[1])["weir_ledger_up"], 0)
            audit = weir.limits("audit", check=False)
            self.assertEqual((audit.returncode, audit.stdout), (75, ""))
            self.assertIn("can't read the audit trail: the ledger is not open", audit.stderr)


class Strangers(unittest.TestCase):
    def setUp(self):
        self.weir = WeirService(limits=[LIMIT])
        self.port = free_port()
        self.weir.config["listen"]["admin"] = f"inet:127.0.0.1:{self.port}"
        self.weir.admin_socket = self.port
        self.enterContext(self.weir)
        self.token = (self.weir.directory / "admin-token").read_text()

    def get(self, path, **options):
        return get(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120), path, **options)

    def test_access_control(self):
        bearer = f"Bearer {self.token}"
        for path in ("/snapshot", "/overview", "/key?key=x", "/metrics", "/limits", "/limits/key?key=x", "/status"):
            self.assertEqual(self.get(path)[0], 401, path)
            self.assertEqual(self.get(path)[1], '{"error":"missing token"}')
            self.assertEqual(self.get(path, Authorization="Bearer x")[:2], (401, '{"error":"wrong token"}'), path)
            self.assertEqual(self.get(path, Authorization=bearer)[0], 200, path)
            for headers in ({"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
                self.assertIn(self.get(path, Authorization=bearer, **headers)[0], (403, 421), (path, headers))
        block = json.dumps({"action": "block", "key": "a@example.org"})
        self.assertEqual(self.get("/limits/key", method="POST", body=block)[0], 401)
        self.assertEqual(self.get("/limits/key", method="POST", body=block, Authorization=bearer, Origin="http://evil.example")[0], 403)
        self.assertEqual(self.get("/limits/key", method="POST", body="x" * 10_000_000, Authorization=bearer)[0], 413)
        self.assertEqual(self.get("/limits/key", method="POST", body="nonsense", Authorization=bearer)[0], 400)
        self.assertEqual(self.weir.ask(sender="a@example.org"), "DUNNO")

    def test_page_contains_no_secrets(self):
        for path in ("/", "/page.css", *(f"/{file.name}" for file in (ROOT / "Sources/Service/Admin/Page").glob("*.js"))):
            status, text, headers = self.get(path)
            self.assertEqual(status, 200)
            self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            self.assertNotIn(self.token, text)
            self.assertNotRegex(text, r"https?://(?!www\.w3\.org/2000/svg)")

    def test_idle_connections_are_bounded(self):
        idle = []
        self.addCleanup(lambda: [connection.close() for connection in idle])
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], min(limits[1], 20_000)), limits[1]))
        for _ in range(min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)):
            connection = socket.socket()
            connection.setblocking(False)
            idle.append(connection)
            connection.connect_ex(("127.0.0.1", self.port))
        self.assertEqual(self.weir.ask(sender="a@example.org"), "DUNNO")
        descriptors = len(os.listdir(f"/proc/{self.weir.pid}/fd"))
        self.assertLess(descriptors, 600)
        self.weir.wait_logged("500 connections to the admin listener; it accepts no more until one closes")

    def test_descriptors_that_run_out(self):
        """The admin listener pauses, the others answer, and /healthz is there again afterwards."""
        descriptors = max(int(number) for number in os.listdir(f"/proc/{self.weir.pid}/fd"))
        with self.weir.client() as client:
            self.assertEqual(client.ask(sender="a@example.org"), "DUNNO")
            resource.prlimit(self.weir.pid, resource.RLIMIT_NOFILE, (descriptors + 4, descriptors + 4))
            waiting = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(20)]
            # It has paused and tried again. The log has that every 10 seconds.
            text = "can't accept connections to the admin listener: Too many open files"
            wait_until(lambda: self.weir.log().count(text) >= 2, f"twice in the log: {text}")
            wait_until(self.is_idle, "the service uses little processor time")
            self.assertNotEqual(client.ask(sender="a@example.org"), "")
            for connection in waiting:
                connection.close()
            self.assertEqual(self.get("/healthz")[0], 200)

    def is_idle(self):
        """Whether the service does next to nothing for half a second."""
        before = self.cpu_seconds()
        time.sleep(0.5)
        return self.cpu_seconds() - before < 0.05

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.weir.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def test_refused_requests_free_their_connection(self):
        """The service does not wait for the rest of a refused request."""
        for host, status in (("localhost", b"401"), ("evil.example", b"421")):
            with socket.create_connection(("127.0.0.1", self.port), timeout=120) as client:
                client.sendall(f"POST /limits/key HTTP/1.1\r\nHost: {host}\r\nContent-Length: 60000\r\n\r\nx".encode())
                received = b""
                # An idle connection would stay open for a minute.
                while data := client.recv(65536):
                    received += data
                self.assertIn(b"HTTP/1.1 " + status, received)

    def test_the_audit_trail_names_the_address(self):
        block = json.dumps({"action": "block", "key": "a@example.org", "limit": "per-sender"})
        self.assertEqual(self.get("/limits/key", method="POST", body=block, Authorization=f"Bearer {self.token}")[0], 200)
        self.weir.wait_logged(" with the token: block a@example.org")
        self.assertRegex(self.weir.log(), r"\baudit: 127\.0\.0\.1:\d+ with the token: block a@example\.org\b")

    def test_partly_written_token_is_removed(self):
        """A token that can't be written completely is removed: the next start would use the short one."""
        self.weir.stop()
        token = self.weir.directory / "admin-token"
        token.unlink()
        self.weir.wrapper = ["prlimit", "--fsize=10"]
        self.weir.start(wait=False)
        self.assertNotEqual(self.weir.process.wait(20), 0)
        self.assertFalse(token.exists())


class Stop(unittest.TestCase):
    def test_clients_that_connect_meanwhile(self):
        for _ in range(5):
            with WeirService() as weir, contextlib.ExitStack() as clients:
                for number in range(240):
                    if number == 40:
                        weir.process.send_signal(signal.SIGTERM)
                    client = clients.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    with contextlib.suppress(BlockingIOError, ConnectionError, FileNotFoundError):
                        client.connect(str(weir.admin_socket))
                self.assertEqual(weir.process.wait(DEFAULT_TIMEOUT), 0)

    def test_an_answer_that_nobody_reads(self):
        with WeirService() as weir, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(weir.admin_socket))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
            weir.process.send_signal(signal.SIGTERM)
            self.assertEqual(weir.process.wait(DEFAULT_TIMEOUT), 0)


@unittest.skipUnless(os.geteuid() == 0, NEEDS_ROOT)
class Container(unittest.TestCase):
    def test_an_administrator_outside(self):
        """The service sees no process of the command, but its user."""
        with WeirService(limits=[LIMIT]) as weir:
            weir.stop()
            weir.wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
            weir.start()
            try:
                weir.limits("block", "a@example.org", "--limit", "per-sender")
                for text in weir.log(), weir.limits("audit").stdout:
                    self.assertRegex(text, r"uid 0 \(outside the container\): block a@example\.org\b")
            finally:
                # unshare(1) passes no signal on.
                os.kill(children(weir.pid)[0], signal.SIGTERM)
            self.assertEqual(weir.process.wait(DEFAULT_TIMEOUT), 0)


class Keys(unittest.TestCase):
    """Keys as administrators write them."""

    LIMITS = [{"name": "per-user", "key": ["sasl_username"], "count": "recipients", "rates": ["1/1h"], "block": {"after": 1, "for": "1h"}},
              {"name": "per-client", "key": ["client_address"], "count": "messages", "rates": ["1000/1h"]}]

    def test_a_key_that_was_mistyped(self):
        with WeirService(limits=self.LIMITS) as weir:
            weir.ask(sasl_username="alice@example.org")
            self.assertRegex(
                weir.limits("block", "alice", "--limit", "per-user", "--for", "12h").stdout,
                "^per-user alice: recipients 0/1 per 1h; blocked for 12h; per-user has not counted this key yet: check the spelling\n$")
            self.assertRegex(
                weir.limits("block", "alice@example.org", "--limit", "per-user").stdout, "; blocked until unblocked\n$")

    def test_a_list_that_is_cut_says_so(self):
        with WeirService(limits=self.LIMITS[:1]) as weir:
            for number in range(60):
                weir.ask(sasl_username=f"user{number}")
            lines = weir.limits("list").stdout.splitlines()
            self.assertEqual((len(lines), lines[-1]), (51, "... and 10 more"))
            self.assertEqual(weir.limits("list", "--limit", "per-user", "--most", "59").stdout.splitlines()[-1], "... and 1 more")
            self.assertNotIn("more", weir.limits("list", "--most", "60").stdout)
            # What is refused is said last, where it is seen.
            both = subprocess.run(
                [BINARY, "limits", "reset", "--all", "--config", weir.config_file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.assertEqual(both.returncode, 1)
            self.assertIn("add --yes to do it", both.stdout.splitlines()[-1])
            self.assertEqual(len(both.stdout.splitlines()), 61)

    def test_a_reload_that_drops_blocks(self):
        with WeirService(limits=self.LIMITS) as weir:
            weir.limits("block", "bob", "--limit", "per-user", "--reason", "spam")
            weir.configure(limits=[{**self.LIMITS[0], "key": ["sender"]}, self.LIMITS[1]])
            weir.reload()
            weir.wait_logged(
                "warning: limit per-user was removed or counts something else now: dropped the counts and blocks of 1 key; "
                "administrators had blocked 1 of them: bob; block them again if the limit counts these keys")
            self.assertIn(
                "reload: unblock bob: done for per-user: the limit was removed or counts something else now", weir.limits("audit").stdout)

    def test_any_spelling_finds_the_key(self):
        with WeirService(limits=self.LIMITS) as weir:
            self.assertRegex(weir.limits("block", "Bob", "--limit", "per-user").stdout, "^per-user bob: .*blocked")
            self.assertNotEqual(weir.ask(sasl_username="bob"), "DUNNO")
            self.assertRegex(weir.limits("block", "2001:db8::5", "--limit", "per-client").stdout, "^per-client 2001:db8::/64: .*blocked")
            self.assertNotEqual(weir.ask(client_address="2001:db8::77"), "DUNNO")
            self.assertRegex(weir.limits("unblock", "2001:db8::/64").stdout, "^per-client 2001:db8::/64: ")
            self.assertEqual(weir.ask(client_address="2001:db8::77"), "DUNNO")
            self.assertRegex(weir.limits("show", "BOB").stdout, "^per-user bob: ")
            for key in ("192.0.2.077", ""):
                refused = weir.limits("block", key, "--limit", "per-client", check=False)
                self.assertEqual(refused.returncode, 1)
                self.assertIn(f"'{key}' is not a valid key for per-client, which counts by client_address", refused.stderr)
            self.assertRegex(weir.limits("audit").stdout, r"block bob \(limit per-user\)")
            self.assertEqual(weir.used_by_all("per-user"), {"bob": 0})

    def test_search(self):
        with WeirService(limits=self.LIMITS) as weir:
            def search(text):
                return json.loads(get(UnixConnection(weir.admin_socket), "/search?text=" + urllib.parse.quote(text))[1])

            for user in ("alice", "malice", "bob"):
                weir.ask(sasl_username=user)
            hits = search("ALI")
            # Each with its use, but without its history.
            for standing in [hit.pop("standing") for hit in hits["found"]]:
                self.assertEqual([(rate["used"], "history" in rate) for rate in standing["rates"]], [(1, False)] * len(standing["rates"]))
            self.assertEqual(hits, {
                "meant": [{"limit": "per-user", "key": "ali", "isKnown": False}], "isCut": False,
                "found": [{"limit": "per-user", "key": key, "isKnown": True} for key in ("alice", "malice")]})
            self.assertEqual(search("2001:db8::5")["meant"], [
                {"limit": "per-user", "key": "2001:db8::5", "isKnown": False}, {"limit": "per-client", "key": "2001:db8::/64", "isKnown": False}])
            self.assertEqual(search("192.0.2.1")["meant"][1], {"limit": "per-client", "key": "192.0.2.1", "isKnown": True})
            with weir.client() as client:
                for number in range(150):
                    client.ask(sasl_username=f"user{number}")
            found = search("user")
            self.assertEqual((len(found["found"]), found["isCut"]), (100, True))
            self.assertEqual(get(UnixConnection(weir.admin_socket), "/search?text=")[0], 400)

    def test_top_keys_with_their_history(self):
        with WeirService(limits=self.LIMITS) as weir:
            weir.ask(sasl_username="bob")
            path = "/limits?limit=per-user&most=20&history=1"
            standings = json.loads(get(UnixConnection(weir.admin_socket), path)[1])
            self.assertEqual([(one["key"], sum(one["rates"][0]["history"])) for one in standings], [("bob", 1)])
            self.assertEqual(get(UnixConnection(weir.admin_socket), "/limits?most=101&history=1")[0], 400)
            status, text, _ = get(UnixConnection(weir.admin_socket), "/limits?most=1001")
            self.assertEqual((status, json.loads(text)["error"]), (400, "most must be a number from 1 to 1000"))
            self.assertEqual(get(UnixConnection(weir.admin_socket), "/limits?most=many")[:2], (status, text))

    def test_unknown_limit(self):
        with WeirService(limits=self.LIMITS) as weir:
            for arguments in (["list"], ["show", "x"], ["list", "--most", "1000"], ["reset", "x"], ["raise", "x", "5/1h"]):
                refused = weir.limits(*arguments, "--limit", "nosuch", check=False)
                self.assertEqual(refused.returncode, 1, arguments)
                self.assertIn("there is no limit nosuch (there are per-user, per-client)", refused.stderr)
            self.assertEqual(get(UnixConnection(weir.admin_socket), "/limits?limit=nosuch")[0], 404)

    def blocked(self, weir, count):
        """Has the limit block that many users, and one more user who has used nothing beyond."""
        with weir.client() as client:
            for number in range(count):
                client.ask(sasl_username=f"user{number:02}")
                client.ask(sasl_username=f"user{number:02}")
            client.ask(sasl_username="alice")
        self.assertEqual(len(self.blocked_keys(weir)), count)

    def blocked_keys(self, weir):
        listed = json.loads(weir.limits("list", "--blocked", "--most", "1000", "--json").stdout)
        return [standing["key"] for standing in listed]

    def test_a_key_that_is_not_known(self):
        """The answer says how to find the key that was meant."""
        with WeirService(limits=self.LIMITS) as weir:
            weir.ask(sasl_username="alice@example.org")
            shown = weir.limits("show", "alice").stdout
            self.assertEqual(
                shown, "no limit has counted alice recently; similar keys: weir limits list --match '*alice*'\n")
            self.assertIn("per-user alice@example.org: ", weir.limits("list", "--match", "*alice*").stdout)
            refused = weir.limits("block", "al'ice", check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertEqual(refused.stderr, (
                "weir limits: nothing changed: no limit has counted al'ice recently; similar keys: weir limits list --match "
                "'*al'\\''ice*'; for a new key, choose a limit with --limit\n"))
            refused = weir.limits("unblock", "al*ce", check=False)
            self.assertEqual(refused.stderr, "weir limits: nothing changed: no limit has counted al*ce recently\n")
            shown = weir.limits("show", "al*ce", "--limit", "per-user").stdout
            self.assertEqual(shown, "per-user has not counted al*ce recently\n")

    def test_many_keys(self):
        with WeirService(limits=self.LIMITS) as weir:
            self.blocked(weir, 12)
            self.assertIn("\n... and 9 more", weir.limits("list", "--blocked", "--most", "3").stdout)
            # The fullest come first, and of these those with the most refused requests.
            for _ in range(3):
                weir.ask(sasl_username="user07")
            self.assertEqual(weir.limits("list", "--over", "50", "--most", "1").stdout.split(":")[0], "per-user user07")
            self.assertEqual(weir.limits("list", "--over", "100", "--match", "ALI*").stdout.split(":")[0], "per-user alice")
            self.assertEqual(weir.limits("list", "--raised").stdout, "no key is raised\n")

            # Above ten keys, nothing is changed without --yes.
            refused = weir.limits("unblock", "--all", check=False)
            self.assertEqual((refused.returncode, len(refused.stdout.splitlines())), (1, 12))
            self.assertIn("nothing changed: unblock would change 12 keys; add --yes to do it", refused.stderr)
            self.assertEqual(len(self.blocked_keys(weir)), 12)
            self.assertEqual(weir.limits("unblock", "--match", "user0[1-3]", "--reason", "test").stdout.splitlines()[-1], "unblocked 3 keys")
            self.assertNotIn("user02", self.blocked_keys(weir))
            self.assertEqual(len(weir.limits("unblock", "--all", "--limit", "per-user", "--yes").stdout.splitlines()), 10)
            self.assertEqual(self.blocked_keys(weir), [])
            self.assertRegex(weir.limits("audit").stdout, r"unblock --match 'user0\[1-3\]' \(3 keys\): done for per-user: test")

            self.assertIn("blocked 1 key\n", weir.limits("block", "--match", "alice", "--for", "1h").stdout)
            self.assertTrue(weir.ask(sasl_username="alice").startswith("REJECT 5.7.1 "))
            weir.limits("raise", "alice", "9/1h")
            self.assertIn("raised", weir.limits("list", "--raised").stdout)
            self.assertNotIn("raised", weir.limits("unraise", "alice").stdout)
            weir.limits("reset", "--all", "--yes")
            self.assertEqual(set(weir.used_by_all("per-user").values()) - {0}, set())
            for arguments in (["unblock"], ["unblock", "alice", "--all"], ["unblock", "alice", "--yes"], ["list", "--blocked", "--raised"]):
                self.assertEqual(weir.limits(*arguments, check=False).returncode, 64, arguments)
            self.assertIn("is not a shell pattern", weir.limits("reset", "--match", "[a", check=False).stderr)

    def test_blocks_end_with_a_reload(self):
        for keys in (False, True):
            with self.subTest(keep_blocks=keys), WeirService(limits=self.LIMITS) as weir:
                self.blocked(weir, 3)
                weir.limits("block", "alice", "--for", "1h")
                weir.configure(limits=[{**self.LIMITS[0], "rates": ["5/1h"], "keep_blocks": keys}])
                weir.reload()
                weir.wait_logged("reloaded: ")
                if keys:
                    self.assertEqual(len(self.blocked_keys(weir)), 4)
                else:
                    weir.wait_logged("limit per-user: its rates were raised: ended 3 blocks")
                    self.assertEqual(self.blocked_keys(weir), ["alice"])
                    self.assertEqual(weir.ask(sasl_username="user00"), "DUNNO")

    def test_raise_that_lowers_a_rate(self):
        with WeirService(limits=[{"name": "per-user", "key": ["sasl_username"], "rates": ["5/1h", "9/1d"]}]) as weir:
            weir.ask(sasl_username="bob")
            self.assertTrue(weir.limits("raise", "bob", "0/1h", "20/1d").stdout.rstrip().endswith("; this is less than 5/1h"))
            self.assertNotIn("this is less", weir.limits("raise", "bob", "5/1h").stdout)
            self.assertEqual(weir.limits("list", "--over", "150").stdout, "no key has used 150 % of a window\n")
            self.assertEqual(weir.limits("list", "--blocked", "--match", "b*").stdout, "no key that matches is blocked\n")

    def test_raise_mentions_a_block(self):
        with WeirService(limits=self.LIMITS) as weir:
            for _ in range(3):
                weir.ask(sasl_username="bob")
            self.assertRegex(weir.limits("raise", "Bob", "500/1h").stdout, r"; blocked for (1h|59m 59s); raised for 1d; still blocked: weir limits unblock bob")
            weir.limits("unblock", "bob")
            self.assertEqual(weir.ask(sasl_username="bob"), "DUNNO")


if __name__ == "__main__":
    unittest.main()
