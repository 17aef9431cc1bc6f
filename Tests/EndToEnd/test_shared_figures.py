# SPDX-License-Identifier: Apache-2.0
"""Any of the hosts that share limits tells of all: lists, the page, top, metrics; and each event makes one alert."""
import contextlib
import json
import re
import socket
import time
import unittest

from postfix import DEFAULT_TIMEOUT, free_port, wait_until
from test_alerts import Hook
from test_shared import HOSTS, IN_USE, MOST, Engine, admitted, admitted_by_all, host
from test_top import OnTerminal
from weir import ROOT, UnixConnection, get, samples, weir


@contextlib.contextmanager
def running(limit=None, hosts=HOSTS, engine=None, shared=None, **config):
    """An engine, and the services that use it."""
    with contextlib.ExitStack() as stack:
        engine = engine or stack.enter_context(Engine())
        services = []
        for name in hosts:
            service = host(engine.port, name, hosts, limit, **(shared or {}))
            service.config.update(config)
            services.append(stack.enter_context(service))
        for service in services:
            service.wait_logged(IN_USE)
            wait_until(lambda service=service: "fault" not in asked(service, "/hosts"), "it can ask the others")
        yield engine, services


def asked(service, path):
    status, body, _ = get(UnixConnection(service.admin_socket), path)
    if status != 200:
        raise AssertionError(f"{path}: {status} {body}")
    return json.loads(body)


def shown(service, key):
    """What `weir limits show` says of a key of the only limit."""
    [standing] = json.loads(service.limits("show", key, "--json").stdout)
    return standing


def parts(standing):
    """What each host has used of the only window; None without an answer."""
    return {part["host"]: part.get("used", [None])[0] for part in standing["hosts"]}


def fill(services, key):
    """Uses all of the limit. Returns how many requests each of the services has refused."""
    refused, used = [0] * len(services), 0
    end = time.monotonic() + DEFAULT_TIMEOUT
    # What a host was granted is free for others a while after it was not spent.
    while used < MOST and time.monotonic() < end:
        for place, service in enumerate(services):
            count = admitted(service, key, 5)
            used += count
            refused[place] += 5 - count
    if used != MOST:
        raise AssertionError(f"{used} of {MOST} were admitted")
    return refused


class Figures(unittest.TestCase):
    def test_each_host_tells_of_all(self):
        with running() as (_, services):
            for count, service in enumerate(services, 1):
                self.assertEqual(admitted(service, "a", count), count)
            admitted(services[1], "b", 4)
            for service in services:
                standing = shown(service, "a")
                self.assertEqual(standing["rates"][0]["used"], 6)
                self.assertEqual(parts(standing), {"mx1": 1, "mx2": 2, "mx3": 3})
                self.assertEqual({part["host"] for part in standing["hosts"] if part["age"] < 30}, set(HOSTS))
                # It has not counted this key, or counts it with others.
                self.assertEqual(parts(shown(service, "b")), {"mx1": 0, "mx2": 4, "mx3": 0})
                text = service.limits("show", "a").stdout
                self.assertRegex(text, rf"(?m)^user a: recipients 6/{MOST} per 1h$")
                self.assertRegex(text, r"(?m)^  mx1: 1 per 1h")
                self.assertRegex(text, r"(?m)^  mx3: 3 per 1h")
                lines = service.limits("list").stdout.splitlines()
                self.assertEqual(lines[:2], [
                    f"user a: recipients 6/{MOST} per 1h", f"user b: recipients 4/{MOST} per 1h"])
                self.assertRegex(lines[2], r"^figures of .*mx1 .*mx2 .*mx3")
                self.assertEqual(len(lines), 3)

    def test_lists_compare_the_sum(self):
        with running() as (_, services):
            fill(services, "a")
            admitted(services[0], "b", 10)
            one = services[0]
            self.assertRegex(
                one.limits("list", "--over", "90").stdout,
                rf"^user a: recipients {MOST}/{MOST} per 1h, room in [0-9hm ]+\nfigures")
            found = asked(one, "/limits/selection?state=90")
            self.assertEqual((found["count"], [key["key"] for key in found["keys"]]), (1, ["a"]))
            search = asked(one, "/search?text=a")
            self.assertEqual([key["standing"]["rates"][0]["used"] for key in search["found"]], [MOST])
            page = asked(one, "/key?key=a")
            self.assertEqual(page["limits"][0]["standing"]["rates"][0]["used"], MOST)

    def test_a_list_that_is_cut_says_so(self):
        with running(hosts=["mx1", "mx2"]) as (_, (one, two)):
            with one.client() as client:
                for number in range(1010):
                    self.assertEqual(client.ask(sasl_username=f"user{number}"), "DUNNO")
            for service in one, two:
                text = service.limits("list", "--over", "1", "--most", "5").stdout
                self.assertIn("... and at least 1005 more: each host tells of 1000 keys at most", text)
                text = service.limits("list", "--match", "user1*", "--most", "5").stdout
                # 1, 10 to 19, 100 to 199, 1000 to 1009.
                self.assertIn("\n... and 116 more\n", text)

    def test_page_top_and_metrics(self):
        with running() as (_, services):
            refused = fill(services, "a")
            # All are refused.
            refused = [count + 2 - admitted(service, "a", 2) for service, count in zip(services, refused)]
            one = services[0]

            def page():
                overview = asked(one, "/overview")
                [standing] = overview["standings"]
                return overview if standing["rates"][0]["used"] == MOST and overview["limits"][0].get("hosts") else None

            overview = wait_until(page, "the page has the sum")
            self.assertEqual([name["name"] for name in overview["hosts"]["hosts"] if name["hasAnswered"]], HOSTS)
            self.assertEqual([part["refusals"] for part in overview["limits"][0]["hosts"]], refused)
            self.assertEqual([group["count"] for group in overview["refusals"]], [sum(refused)])
            top = weir("top", "--count", "1", "--config", one.config_file).stdout
            self.assertIn(" hosts=3/3", top)
            self.assertIn(f"user a: recipients {MOST}/{MOST} per 1h", top)
            self.assertRegex(top, "refused .*Z: .*, on mx[23]")
            found = samples(get(UnixConnection(one.admin_socket), "/metrics")[1])
            for name, count in zip(HOSTS, refused):
                self.assertEqual(found[f'weir_shared_host_answered{{host="{name}"}}'], 1)
                self.assertLess(found[f'weir_shared_host_age_seconds{{host="{name}"}}'], 30)
                self.assertEqual(found[f'weir_shared_limit_keys{{limit="user",host="{name}"}}'], 1)
                self.assertEqual(
                    found[f'weir_shared_limit_refusals_total{{limit="user",mode="enforce",host="{name}"}}'], count)

    def test_a_host_that_does_not_answer_and_no_engine(self):
        with running() as (engine, services):
            one, two, three = services
            for service in services:
                admitted(service, "a", 2)
            self.assertEqual(shown(one, "a")["rates"][0]["used"], 6)
            three.kill()
            self.assertEqual(parts(shown(one, "a")), {"mx1": 2, "mx2": 2, "mx3": None})
            self.assertRegex(one.limits("show", "a").stdout, r"(?m)^  mx3: no answer, last heard \S+ ago$")
            self.assertRegex(one.limits("list").stdout, r"; mx3: no answer, last heard \S+ ago\n$")
            found = samples(get(UnixConnection(one.admin_socket), "/metrics")[1])
            self.assertEqual(found['weir_shared_host_answered{host="mx3"}'], 0)
            self.assertIn(" hosts=2/3", weir("top", "--count", "1", "--config", one.config_file).stdout)
            engine.kill()
            wait_until(lambda: "fault" in asked(one, "/hosts"), "the engine is missed")
            self.assertEqual(parts(shown(one, "a")), {"mx1": 2, "mx2": None, "mx3": None})
            self.assertIn("the other hosts can't be asked: the engine can't be used", one.limits("list").stdout)
            engine.start()
            three.start()
            for service in services:
                wait_until(
                    lambda service=service: list(parts(shown(service, "a")).values()) == [2, 2, 2],
                    "all hosts answer again")

    def test_an_outage_of_the_engine_is_told_everywhere(self):
        with running() as (engine, services):
            one = services[0]

            def up():
                return samples(get(UnixConnection(one.admin_socket), "/metrics")[1])["weir_shared_engine_up"]

            def health():
                return weir("check-health", "--slow", "10000", "--config", one.config_file, check=False)

            def refusal(reason):
                one.wait_logged(f"key b: {reason}, recipients")
                return [line for line in one.log().splitlines() if f"key b: {reason}, recipients" in line][-1]

            fill(services, "a")
            admitted(one, "a", 1)
            one.wait_logged("key a: over, ")
            self.assertIn(", room in ", [line for line in one.log().splitlines() if "key a: over, " in line][-1])
            self.assertEqual(up(), 1)
            self.assertEqual(health().returncode, 0, health().stdout)
            engine.kill()
            one.wait_logged("can't use the engine")
            while admitted(one, "b", 1):
                pass
            # The limit has room: only the engine is missing.
            self.assertRegex(refusal("no engine"), rf"key b: no engine, recipients \d+/{MOST} per 1h, more than this host's share, ")
            self.assertNotIn("room in", refusal("no engine"))
            self.assertEqual(up(), 0)
            result = health()
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stdout, "^WEIR WARNING: shared limits: can't use the engine .*; each host goes on with its share ")
            self.assertIn("each host goes on with its share", asked(one, "/overview")["engineTrouble"]["effect"])
            self.assertIn(" engine=trouble", weir("top", "--count", "1", "--config", one.config_file).stdout)
            with OnTerminal(one.config_file, columns=120) as top:
                top.read_until(b"NO ENGINE: each host goes on with its share")
                self.assertIn("figures of this host alone", top.screen()[0])
                self.assertNotIn("without mx2", top.screen()[0])
            engine.start()
            wait_until(lambda: up() == 1, "the engine is in use again")

    def test_limits_that_are_not_shared(self):
        with running({"shared": False}, hosts=["mx1", "mx2"]) as (_, (one, two)):
            admitted(one, "a", 2)
            admitted(two, "a", 3)
            standing = shown(one, "a")
            self.assertEqual(standing["rates"][0]["used"], 2)
            self.assertNotIn("hosts", standing)
            self.assertIn(f"user a: recipients 2/{MOST} per 1h", one.limits("list").stdout)

    def test_messages_that_are_none(self):
        with running(hosts=["mx1", "mx2"]) as (engine, (one, two)):
            admitted(two, "a", 3)
            prefix = "{weir:shared}:0:hosts-1:"
            answer = {"id": 1, "from": "mx2", "age": 0, "standings": [], "count": 0, "isCut": False, "limits": {},
                      "refusals": []}
            with socket.create_connection(("127.0.0.1", engine.port)) as client:
                for channel, message in [
                    ("questions", b"x"), ("questions", b"[" * 100_000), ("answers:mx1", b"\xff\x00"),
                    ("questions", json.dumps({"id": 1, "from": "mx9", "subject": {"figures": {}}}).encode()),
                    ("answers:mx1", json.dumps({**answer, "from": "mx9"}).encode()),
                    # An answer to no question.
                    ("answers:mx1", json.dumps(answer).encode()), ("answers:mx1", b"{" + b" " * (2 << 20) + b"}"),
                ]:
                    name = (prefix + channel).encode()
                    client.sendall(b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
                        len(name), name, len(message), message))
                    # One host listens to a channel of answers, both to that of questions.
                    self.assertIn(client.recv(100), (b":1\r\n", b":2\r\n"))
            one.wait_logged("ignored ")

            def tells_all():
                # Without an answer in time, it knows no such key.
                standings = json.loads(one.limits("show", "a", "--json").stdout)
                return [parts(standing) for standing in standings] == [{"mx1": 0, "mx2": 3}]

            wait_until(tells_all, one.log)
            # A message that is too long ends the connection, which is made again.
            def listeners():
                return set(re.findall(r"(?m)^id=(\d+)", engine.command("CLIENT", "LIST", "TYPE", "pubsub")))

            before = listeners()
            client = socket.create_connection(("127.0.0.1", engine.port))
            with client:
                name = (prefix + "answers:mx1").encode()
                message = b"x" * (8 << 20)
                client.sendall(b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
                    len(name), name, len(message), message))
                self.assertEqual(client.recv(100), b":1\r\n")
            wait_until(lambda: len(listeners()) == 2 and listeners() != before, "there is a new connection")
            wait_until(lambda: "fault" not in asked(one, "/hosts"), "the hosts ask each other again")
            wait_until(tells_all, one.log)
            self.assertTrue(one.is_running and two.is_running)

    def test_the_rights_of_the_manual_suffice(self):
        text = (ROOT / "docs/shared.md").read_text()
        [rights] = re.findall("ACL SETUSER weir on >PASSWORD (.*)", text)
        with Hook() as hook, Engine("--user", *f"weir on >secret {rights}".split()) as engine:
            login = {"user": "weir", "password": "secret"}
            config = {"alerts": {"webhook": hook.url, "interval": "1s"}}
            with running({"rates": ["6/1h"]}, ["mx1", "mx2"], engine, login, **config) as (_, (one, two)):
                admitted_by_all([one, two], "a", 1, 8)
                wait_until(lambda: hook.alerts, hook.got)
                self.assertEqual(parts(shown(one, "a")), parts(shown(two, "a")))
                self.assertNotIn(None, parts(shown(one, "a")).values())
                for service in one, two:
                    self.assertNotIn("can't ask the other hosts", service.log())
                    self.assertNotIn("can't claim", service.log())

    def test_a_user_that_may_not_ask(self):
        """The limits hold all the same."""
        old = "weir on >secret ~{weir:* +fcall +function|load +info +select +@hash +@sortedset +del +exists +time"
        with Engine("--user", *old.split()) as engine:
            with host(engine.port, "mx1", ["mx1"], user="weir", password="secret") as service:
                service.wait_logged(IN_USE)
                service.wait_logged("can't ask the other hosts")
                service.wait_logged("+publish +subscribe")
                self.assertEqual(admitted(service, "a", MOST + 5), MOST)
                self.assertIn(f"user a: recipients {MOST}/{MOST} per 1h", service.limits("list").stdout)

    def test_nothing_is_sent_unless_somebody_asks(self):
        with running(hosts=["mx1", "mx2"]) as (engine, (one, two)):
            admitted(one, "a", 3)

            def published():
                calls = dict(line.split(":", 1) for line in engine.command("INFO", "commandstats").splitlines() if ":" in line)
                return calls.get("cmdstat_publish")

            before = published()
            admitted(two, "a", 3)
            self.assertEqual(published(), before)
            shown(one, "a")
            self.assertNotEqual(published(), before)


class Alerts(unittest.TestCase):
    LIMIT = {"rates": ["6/1h"], "block": {"after": 3, "for": "1h"}}

    def sent(self, hook):
        return sorted((alert["tier"], alert["key"]) for alert in hook.alerts if alert.get("key"))

    def test_one_alert_for_an_event(self):
        with Hook() as hook, running(self.LIMIT, alerts={"webhook": hook.url, "interval": "1s"}) as (_, services):
            # All of them refuse the key, and one of them blocks it.
            admitted_by_all(services, "a", 2, 8)
            for service in services:
                admitted(service, "a", 5)
                wait_until(lambda service=service: shown(service, "a").get("blockedUntil"), "the key is blocked")
            expected = [("block", "a"), ("over", "a"), ("warn", "a")]
            wait_until(lambda: set(expected) <= set(self.sent(hook)), lambda: f"{hook.got}")
            # One more key, so that further alerts before it have been sent.
            admitted(services[2], "b", 12)
            wait_until(lambda: ("block", "b") in self.sent(hook), hook.got)
            sent = [alert for alert in self.sent(hook) if alert[1] == "a"]
            self.assertEqual(sent, expected)

    def warnings(self, services):
        return [line for service in services for line in service.log().splitlines() if "% reached" in line]

    def test_one_warning_of_all_hosts(self):
        with Hook() as hook, running(alerts={"webhook": hook.url, "interval": "1s"}) as (_, services):
            def use(count):
                end = time.monotonic() + DEFAULT_TIMEOUT
                while count and time.monotonic() < end:
                    for service in services:
                        count -= admitted(service, "a", 1) if count else 0

            use(47)
            # An answer to this says that all were asked.
            self.assertEqual(shown(services[0], "a")["rates"][0]["used"], 47)
            self.assertEqual(self.warnings(services), [])
            use(1)
            wait_until(lambda: self.warnings(services), "one of them warns")
            use(8)
            wait_until(lambda: ("warn", "a") in self.sent(hook), hook.got)
            for service in services:
                admitted(service, "b", 4)
            # One key more, so that warnings before it have been logged.
            wait_until(lambda: admitted(services[0], "b", 1) == 0, "the limit is reached")
            wait_until(lambda: any("key b: 80 % reached" in line for line in self.warnings(services)), "of b, too")
            [warning] = [line for line in self.warnings(services) if "key a" in line]
            self.assertIn(f"key a: 80 % reached by all hosts together, recipients 48/{MOST} per 1h", warning)
            self.assertEqual(self.sent(hook).count(("warn", "a")), 1)

    def use(self, service, key, count):
        end = time.monotonic() + DEFAULT_TIMEOUT
        while count and time.monotonic() < end:
            count -= admitted(service, key, 1)
        self.assertEqual(count, 0)

    def test_a_reload_loses_no_warning(self):
        """The host that reloads has lost its marks, and gets new ones."""
        with running({"rates": ["100/1h"]}, ["mx1", "mx2"], shared={"share": 50}) as (_, (one, two)):
            # Marks: the more one has used, the less the other one may use without asking.
            for count in (40, 20, 10, 4):
                self.use(one, "a", count)
                time.sleep(0.5)
            self.assertEqual(parts(shown(one, "a")), {"mx1": 74, "mx2": 0})
            two.reload()
            two.wait_logged("reloaded: ")
            # An answer says that what was published before it has arrived.
            self.assertEqual(parts(shown(two, "a")), {"mx1": 74, "mx2": 0})
            self.use(two, "a", 16)
            wait_until(lambda: self.warnings([one, two]), "one of them warns")

    def test_another_warning_after_a_reset(self):
        with running({"rates": ["100/1h"]}, ["mx1", "mx2"], shared={"share": 10}) as (_, (one, two)):
            self.use(one, "a", 85)
            wait_until(lambda: self.warnings([one, two]), "the first warning")
            one.limits("reset", "a")
            # It has no account of the key.
            two.wait_logged("on mx1: reset a")
            self.use(two, "a", 85)
            wait_until(lambda: len(self.warnings([one, two])) == 2, "the second warning")

    def test_each_window_has_its_warning(self):
        with running({"rates": ["50/1h", "60/1d"]}, ["mx1", "mx2"], shared={"share": 10}) as (_, (one, two)):
            self.use(one, "a", 42)
            wait_until(lambda: self.warnings([one, two]), "that of the hour")
            [warning] = self.warnings([one, two])
            self.assertRegex(warning, r"80 % reached by all hosts together, recipients 4[0-2]/50 per 1h$")
            self.use(two, "a", 7)
            wait_until(lambda: len(self.warnings([one, two])) == 2, "that of the day")
            self.assertTrue(any(re.search("4[89]/60 per 1d$", line) for line in self.warnings([one, two])))

    def test_a_key_that_is_no_text(self):
        with running({"key": "sender", "rates": ["20/1h"]}, ["mx1", "mx2"], shared={"share": 10}) as (_, (one, _)):
            with socket.create_connection(("127.0.0.1", one.port)) as client:
                answers = client.makefile("rb")
                end = time.monotonic() + DEFAULT_TIMEOUT
                count = 0
                while count < 16 and time.monotonic() < end:
                    client.sendall(
                        b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\n"
                        b"sender=m\xfcller@example.org\nrecipient=a@example.com\n\n")
                    count += b"DUNNO" in answers.readline()
                    answers.readline()
            one.wait_logged("80 % reached, recipients 16/20 per 1h")

    def test_a_host_that_is_alone_warns_of_what_it_knows(self):
        with host(free_port(), "mx1", ["mx1", "mx2"], on_cut_off="open") as service:
            service.wait_logged("on_cut_off: open")
            admitted(service, "a", MOST)
            service.wait_logged("80 % reached by all hosts together, recipients ")
            service.wait_logged(", without mx2, which did not answer")

    def test_without_the_engine_each_host_sends_its_own(self):
        with Hook() as hook, running(self.LIMIT, alerts={"webhook": hook.url, "interval": "1s"}) as (engine, services):
            engine.kill()
            for service in services:
                wait_until(lambda service=service: "fault" in asked(service, "/hosts"), "the engine is missed")
                admitted(service, "a", 3)
            wait_until(lambda: self.sent(hook).count(("over", "a")) == 3, hook.got)


if __name__ == "__main__":
    unittest.main()
