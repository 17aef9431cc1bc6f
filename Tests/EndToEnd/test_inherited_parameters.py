# SPDX-License-Identifier: Apache-2.0
"""What the services to the filter and back take from main.cf, although it is for other mail.

The table inherited-parameters.tsv has a decision for each parameter. It must agree with conf/postfix/master.cf, with
`weir doctor` and with the installed Postfix. Then main.cf gets what the table calls usual, in random combinations:
mail must arrive as it does without a filter, except for the header that Weir adds once.

    python3 -m unittest test_inherited_parameters

WEIR_COMBINATIONS is the number of combinations (default 8), WEIR_SEED the seed of the first (default 1).
WEIR_COMBINATIONS=alone tries each parameter by itself, from number WEIR_SEED of the table on, and prints each. That
takes half an hour; inherited-parameters.result has the last result.
"""
import contextlib
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import tempfile
import unittest

from filtering import CONF, FilterService, NextHop, dialogue, services
from postfix import MAIN, MASTER, PrivatePostfix, SMTP, free_port, run, wait_until
from ways_in import pipe_service
from weir import ROOT, weir

TABLE = pathlib.Path(__file__).with_name("inherited-parameters.tsv")
SERVICES = {"weir": "weir", "reinject": "127.0.0.1:10026", "weir_cleanup": "weir_cleanup", "weirpipe": "weirpipe"}


def table():
    """The rows, as dictionaries."""
    names = ("services", "parameter", "decision", "usual", "reason")
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    rows = [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
    return [{**row, "services": row["services"].split(" ")} for row in rows]


def decided(service):
    """The overrides of a service, as the table has them."""
    rows = [row for row in table() if row["services"] == [service] and row["decision"] != "inherit"]
    return {row["parameter"]: row["decision"].replace("(empty)", "") for row in rows}


def shipped(service):
    """The overrides of a service in conf/postfix/master.cf, with those in comments, for newer versions of Postfix."""
    text = (CONF / "master.cf").read_text()
    block = re.search(rf"^{re.escape(service)} .*?(?=^\S*[^\s#]\S* |^# Mode|\Z)", text, re.M | re.S)[0]
    return dict(re.findall(r"^#?  -o (\w+)=(.*)$", block, re.M))


def main_lines(transport):
    """The lines for main.cf in the comments of conf/postfix/master.cf."""
    return dict(re.findall(rf"^#      ({transport}_\w+) = (.*)$", (CONF / "master.cf").read_text(), re.M))


def defaults_of_postfix():
    """The parameters of the installed Postfix, with their defaults."""
    with tempfile.TemporaryDirectory(prefix="weir-test-") as directory:
        for name in ("main.cf", "master.cf"):
            (pathlib.Path(directory) / name).write_text("compatibility_level = 3.6\n" if name == "main.cf" else "")
        return dict(re.findall(r"^(\w+) = ?(.*)$", run(["postconf", "-c", directory, "-d"]).stdout, re.M))


class Decisions(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "main.cf").write_text("compatibility_level = 3.6\n")
        (self.directory / "master.cf").write_text("")

    def test_every_parameter_of_this_postfix_is_decided(self):
        """Fails with a Postfix that has new parameters: decide whether the services in master.cf must override them."""
        names = {row["parameter"] for row in table()}
        prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
        undecided = [
            name for name in defaults_of_postfix()
            if not names & {name, name.replace("lmtp_", "smtp_", 1)} and not name.startswith(prefixes)]
        self.assertEqual(undecided, [])

    def test_shipped_services_follow_the_table(self):
        for service, name in SERVICES.items():
            with self.subTest(service):
                overrides = {key: value for key, value in decided(service).items() if not key.startswith("lmtp_")}
                self.assertEqual(shipped(name), overrides)
        for transport in ("weir", "weirpipe"):
            found = {f"{name} = {value}" for name, value in main_lines(transport).items()}
            self.assertEqual({line.replace("weirpipe", "weir", 1) for line in found}, set(decided("main.cf").values()))

    def test_comments_name_what_this_postfix_does_not_know(self):
        """An unknown parameter costs a warning of postconf(1), so it is in a comment."""
        known = defaults_of_postfix()
        for name in SERVICES.values():
            for parameter in shipped(name):
                is_comment = f"#  -o {parameter}=" in (CONF / "master.cf").read_text()
                self.assertTrue(is_comment or parameter in known, parameter)

    def test_doctor_prints_the_shipped_services(self):
        """With all parameters that this Postfix knows."""
        (self.directory / "main.cf").write_text("compatibility_level = 3.6\nmessage_drop_headers = bcc, x-secret\n"
                                               "smtp_tls_per_site = static:MUST\n")
        # Chrooted, as in Debian: the services that Weir adds are chrooted where those of the site are.
        chrooted = MASTER.replace("cleanup unix n - n", "cleanup unix n - y")
        (self.directory / "master.cf").write_text(chrooted + "smtp inet n - y - - smtpd\n")
        filters = [{"listen": "inet:127.0.0.1:10025", "next_hop": "inet:127.0.0.1:10026"}]
        (self.directory / "weir.yaml").write_text(json.dumps({"listen": {"filter": filters}}))
        printed = {}
        for finding in doctor(self.directory):
            for command in finding["commands"]:
                words = shlex.split(command)
                name, _, value = words[-1].partition("=")
                printed[name] = value
        known = defaults_of_postfix()
        for key in ("weir/unix", "127.0.0.1:10026/inet", "weir_cleanup/unix"):
            name = key.partition("/")[0]
            with self.subTest(name):
                expected = {parameter: value for parameter, value in shipped(name).items() if parameter in known}
                if "message_drop_headers" in expected:
                    expected["message_drop_headers"] += ",x-secret"
                line = re.search(rf"^{name} .*$", (CONF / "master.cf").read_text(), re.M)[0]
                words = printed[key].split()
                self.assertEqual(words[:8], line.split())
                self.assertEqual(dict(word.split("=", 1) for word in words[9::2]), expected)
        of_main = {name: value for name, value in printed.items() if name.startswith("weir_") and "/" not in name}
        self.assertEqual(of_main, main_lines("weir"))


def doctor(directory):
    result = weir(
        "doctor", "--postfix", directory, "--config", directory / "weir.yaml", "--no-service", "--json", check=False)
    return [finding for report in json.loads(result.stdout) for finding in report["findings"]]


# Messages: envelope parameters, recipients, headers and body.
HEAD = (
    "From: a@host.example.org\nTo: b@example.com\nMessage-Id: <1@example.org>\n"
    "Date: Mon, 1 Jan 2024 00:00:00 +0000\n")
MIME = HEAD + "MIME-Version: 1.0\nContent-Type: "
HOP = "Received: from one.example.net by two.example.net; Mon, 1 Jan 2024 00:00:00 +0000\n"
MESSAGES = {
    "plain": ("", ["b@example.com"], HEAD + "Subject: plain\n\nbody\n.\n..\nlast\n"),
    "eight bits": (
        " BODY=8BITMIME", ["b@example.com"],
        MIME + "text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nSubject: r\u00e4t\n\nbody \u00fc\n"),
    "long lines": (
        "", ["b@example.com"],
        HEAD + "Subject: long\nX-Long: " + "x" * 1200 + "\n folded " + "y" * 900 + "\n\nbody " + "z" * 3000 + "\n"),
    "recipients": (
        " RET=HDRS ENVID=id1", [f"r{number}@example.com" for number in range(9)],
        HEAD + "Subject: recipients\n\nbody\n"),
    "MIME": (
        "", ["b@example.com"],
        MIME + "multipart/mixed; boundary=b1\nSubject: MIME\n\npreamble\n--b1\nContent-Type: text/plain\n\nbody\n--b1\n"
        "Content-Type: message/rfc822\n\nSubject: nested\nX-Weir-Verdict: nested\n\nbody\n--b1--\n"),
    "hops": ("", ["b@example.com"], HOP * 4 + HEAD + "Subject: hops\n\nbody\n"),
    "quoted": ("", ['"b c"@example.com'], HEAD + "Subject: quoted\n\nbody\n"),
}


class Site:
    """A Postfix that accepts mail on `ports` and delivers it to `messages`.

    Only its services to the filter and back take from main.cf what the table calls usual for smtp(8) and smtpd(8). The
    others override it with Postfix's defaults.
    """

    def __init__(self, stack, main=None, extra=(), before_queue=None, as_command=False):
        self.messages = []
        greeting = {"EHLO": "250-hop.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN"}
        hop = stack.enter_context(NextHop(dialogue(greeting, self.messages)))
        self.postfix = PrivatePostfix(services=extra, main={
            "default_transport": f"out:[127.0.0.1]:{hop.port}", "out_destination_rate_delay": "0s",
            "out_transport_rate_delay": "0s", "out_destination_recipient_limit": "50",
            "out_destination_concurrency_limit": "20", "minimal_backoff_time": "1s", "maximal_backoff_time": "1s",
            "queue_run_delay": "1s", **(main or {})})
        self.base = self.postfix.parameters
        self.postfix.services[0] += self.defaults("reinject")
        self.ports = {"smtp": self.postfix.port}
        if before_queue:
            self.ports["before the queue"] = free_port()
            line = self.postfix.services[0].replace(str(self.postfix.port), str(self.ports["before the queue"]))
            self.postfix.services.append(f"{line} -o smtpd_proxy_filter=127.0.0.1:{before_queue} -o content_filter=")
        if as_command:
            self.ports["command"] = free_port()
            line = self.postfix.services[0].replace(str(self.postfix.port), str(self.ports["command"]))
            self.postfix.services.append(f"{line} -o content_filter=weirpipe:dummy")
        self.postfix.services.append("out unix - - n - - smtp" + self.defaults("weir"))
        stack.enter_context(self.postfix)

    def defaults(self, service):
        """Options with the default of each parameter that the test sets, except those that cleanup(8) reads."""
        rows = [row for row in table() if row["usual"] != "-"]
        names = {row["parameter"] for row in rows if service in row["services"]}
        names -= {row["parameter"] for row in rows if "weir_cleanup" in row["services"]}
        values = {**defaults_of_postfix(), **MAIN}
        return "".join(f" -o {{{name}={values[name]}}}" for name in sorted(names & set(values)))

    def configure(self, parameters):
        self.postfix.parameters = {**self.base, **parameters}
        # Not a reload: Weir keeps connections, and their smtpd processes would keep the old values.
        self.postfix.stop()
        self.postfix.start()
        self.messages.clear()

    def send(self):
        """Sends all messages by all ways; the replies to those that are not accepted."""
        refused = []
        for way, port in self.ports.items():
            with SMTP(port) as client:
                for name, (arguments, recipients, content) in MESSAGES.items():
                    client.command(f"MAIL FROM:<a@example.org>{arguments}", 250)
                    for recipient in recipients:
                        client.command(f"RCPT TO:<{recipient}>", 250)
                    client.command("DATA", 354)
                    marked = f"X-Way: {way}\nX-Name: {name}\n{content}"
                    client.send(re.sub(rb"(?m)^\.", b"..", marked.encode()).replace(b"\n", b"\r\n") + b".\r\n")
                    code, text = client.expect()
                    if code != 250:
                        refused.append((way, name, code, text))
        for name in ("plain", "MIME"):
            marked = f"X-Way: sendmail\nX-Name: {name}\n{MESSAGES[name][2]}"
            self.postfix.sendmail("a@example.org", ["b@example.com"], marked)
        return refused

    def arrived(self):
        """What has arrived: way, name, how many headers Weir has added, envelope, and content without trace headers."""
        found = []
        for envelope, content in list(self.messages):
            text = content.decode("utf-8", "surrogateescape")
            way, name = (re.search(rf"^X-{key}: (.*?)\r$", text, re.M) for key in ("Way", "Name"))
            seen = text.count("X-Seen: Weir\r\n")
            rest = re.sub(r"(?m)^(Received:.*\r\n([ \t].*\r\n)*|X-Seen: Weir\r\n|X-Way: .*\r\n)", "", text)
            # Without a filter, ORCPT of mail from sendmail(1) is the address after canonical mapping.
            lines = [re.sub(r" (SIZE=\d+|ORCPT=\S+)", "", line) for line in envelope]
            found.append((way[1] if way else "", name[1] if name else text, seen, tuple(sorted(lines)), rest))
        return sorted(found)


@contextlib.contextmanager
def sites():
    """A site without a filter, and one with Weir, after and before the queue and as a command."""
    with contextlib.ExitStack() as stack:
        reinject = free_port()
        service = FilterService(reinject, "/^Message-Id:/ PREPEND X-Seen: Weir\n")
        second = free_port()
        service.config["listen"]["filter"].append({
            "listen": f"inet:127.0.0.1:{second}", "next_hop": f"inet:127.0.0.1:{reinject}", "mode": "before_queue"})
        stack.enter_context(service)
        main = {
            "content_filter": f"weir:[127.0.0.1]:{service.filter_port}",
            "receive_override_options": "no_address_mappings", **main_lines("weir"), **main_lines("weirpipe")}
        # The command of mode 3 returns mail with sendmail(1), whose headers are always rewritten. Here it returns it to
        # an smtpd of its own, which does the same.
        returned = free_port()
        local = services(returned, ways=())[0] + " -o local_header_rewrite_clients=permit_inet_interfaces"
        to_filter, *back = services(reinject)
        # A comment in master.cf, for a main.cf that sets it.
        to_filter += " -o smtp_tls_per_site="
        extra = [to_filter, *back, local, pipe_service(service, returned)]
        yield Site(stack), Site(stack, main, extra, second, as_command=True), service


def smallest(names, is_bad):
    """A bad part of a bad combination, found by halving it. More than one name if only together they are bad."""
    while len(names) > 1:
        halves = names[:len(names) // 2], names[len(names) // 2:]
        bad = next((half for half in halves if is_bad(half)), None)
        if bad is None:
            return names
        names = bad
    return names


def passed(way, entry):
    """What arrives by way of the filter, where `entry` arrives without it."""
    _, name, _, envelope, content = entry
    if way == "command":
        # A command gets no DSN parameters, and the one of this test returns all mail as 8BITMIME.
        bare = (re.sub(r" (RET|ENVID|BODY)=\S+", "", line) for line in envelope)
        envelope = tuple(sorted(re.sub(r"^(MAIL FROM:\S+)", r"\1 BODY=8BITMIME", line) for line in bare))
    return way, name, 1, envelope, content


class EveryMainFile(unittest.TestCase):
    def test_mail_is_filtered_once_and_arrives_as_it_was(self):
        usual = {row["parameter"]: row["usual"] for row in table() if row["usual"] != "-"}
        number, seed = os.environ.get("WEIR_COMBINATIONS", "8"), int(os.environ.get("WEIR_SEED", "1"))
        with sites() as (plain, filtered, service):
            if number == "alone":
                chosen = [[name] for name in usual][seed - 1:]
            else:
                turns = (random.Random(seed + turn) for turn in range(int(number)))
                chosen = [turn.sample(sorted(usual), len(usual) // 2) for turn in turns]
            for turn, names in enumerate([[], *chosen], seed - 1):
                if number == "alone":
                    print(f"{turn} of {len(usual)}: {names}", flush=True)
                with self.subTest(names=names if len(names) < 3 else f"seed {turn}"):
                    if fault := self.difference(plain, filtered, {name: usual[name] for name in names}):
                        def differs(some):
                            return self.difference(plain, filtered, {name: usual[name] for name in some})
                        smaller = smallest(names, differs)
                        self.fail(f"{smaller}: {differs(smaller) or fault}")

    seen_lines = 0

    def difference(self, plain, filtered, parameters):
        """How mail through Weir differs from mail without it; None if it does not."""
        refused = [self.deliver(site, parameters) for site in (plain, filtered)][1]
        expected, found = plain.arrived(), filtered.arrived()
        self.assertGreater(len(expected), len(MESSAGES), plain.postfix.log())
        ways = [("smtp", "smtp"), ("before the queue", "smtp"), ("command", "smtp"), ("sendmail", "sendmail")]
        wanted = [passed(way, entry) for way, model in ways for entry in expected if entry[0] == model]
        lines = filtered.postfix.log().splitlines()
        log = [line for line in lines[self.seen_lines:] if re.search(r" (fatal|panic|error|warning):|reject:", line)][:20]
        self.seen_lines = len(lines)
        for site in (plain, filtered):
            site.postfix.command("postsuper", "-d", "ALL", check=False)
        if sorted(wanted) == found:
            return None
        missing = [entry[:4] for entry in wanted if entry not in found]
        instead = [entry[:4] for entry in found if entry not in wanted]
        return f"missing {missing}, instead {instead}, refused {refused}\n" + "\n".join(log)

    def deliver(self, site, parameters):
        """Sends all messages, and waits until they are delivered or the time is up. Returns what was refused."""
        site.configure(parameters)
        try:
            refused = site.send()
        except (AssertionError, OSError) as error:
            return str(error)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not site.postfix.queue(), "drained")
        return refused


if __name__ == "__main__":
    unittest.main()
