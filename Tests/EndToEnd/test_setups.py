# SPDX-License-Identifier: Apache-2.0
"""weir doctor on setups as public ones are: what it prints is applied until it is silent.

Afterwards Weir is asked once where it should be, and before milters that sign; what others do stays as it was; postconf
has no new warnings. Each file in setups/ has a comment, the configuration of Weir (`WEIR`), the services where Weir's
policy server and milter are asked in the end, and the parts of main.cf and master.cf that differ from Postfix's own.
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import tempfile
import unittest

from postfix import MASTER, run
from test_doctor import words_of
from weir import weir

SETUPS = pathlib.Path(__file__).parent / "setups"
LOGIN = {"name": "per-user", "when": {"sasl_username": "present"}, "key": ["sasl_username"], "rates": ["100/1h"]}
CLIENT = {"name": "per-client", "key": ["client_address"], "rates": ["1000/1h"]}
WEIR = {
    "policy": {"limits": [LOGIN, CLIENT]},
    "login": {"limits": [LOGIN]},
    "milter": {"limits": [LOGIN, CLIENT], "listen": {"milter": ["inet:127.0.0.1:10041"]}},
    "socket": {"limits": [LOGIN, CLIENT], "listen": {"policy": ["unix:/var/spool/postfix/private/weir"]}},
    "context": {"limits": [{**LOGIN, "when": {"policy_context": "submission"}}]},
    "filter": {"limits": [LOGIN, CLIENT], "listen": {"filter": [{"listen": "inet:127.0.0.1:10025", "next_hop": "inet:127.0.0.1:10026"}]}},
}
OURS = re.compile(r"\b10040\b|\b10041\b|private/weir\b")
SIGNER = re.compile(r"dkim|\b8891\b|\b11332\b")
LISTS = [f"smtpd_{stage}_restrictions" for stage in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")]
MOST_ROUNDS = 3


class Setup:
    """A directory with the main.cf, master.cf and weir.yaml of one setup."""

    def __init__(self, test, path):
        head, main, master = re.split(r"^== .*\n", path.read_text(), flags=re.M)
        self.facts = dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in head.splitlines()[1:])
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        test.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "main.cf").write_text("compatibility_level = 3.6\n" + main)
        own = {line.split()[0] for line in master.splitlines() if line[:1].strip()}
        usual = [line for line in MASTER.splitlines() if line.split()[0] not in own]
        (self.directory / "master.cf").write_text("\n".join(usual) + "\n" + master)
        config = dict(WEIR[self.facts["weir"]])
        # Without logins, a limit for them would never apply.
        if not re.search(r"smtpd_sasl_auth_enable *= *yes", main + master):
            config["limits"] = [CLIENT]
        (self.directory / "weir.yaml").write_text(json.dumps(config))

    def age(self):
        """Postfix delays reading a file that was modified just now."""
        for name in ("main.cf", "master.cf"):
            os.utime(self.directory / name, (1_700_000_000, 1_700_000_000))

    def findings(self):
        self.age()
        result = weir("doctor", "--postfix", self.directory, "--config", self.directory / "weir.yaml", "--no-service", "--json", check=False)
        if result.returncode not in (0, 1):
            raise AssertionError(result.stderr)
        found = [finding for report in json.loads(result.stdout) for finding in report["findings"]]
        return [finding for finding in found if finding["severity"] != "note"]

    def postconf(self, *arguments):
        self.age()
        return run(["postconf", "-c", self.directory, *arguments])

    def warnings(self):
        lines = {line for arguments in (["-n"], ["-M"], ["-P"]) for line in self.postconf(*arguments).stderr.splitlines()}
        # A variable that named only Weir may be left over. The doctor says so in a note.
        return {line for line in lines if not ("unused parameter" in line and OURS.search(line))}

    def stages(self):
        """For each smtpd and for sendmail: the policy services of its lists and its milters, in their order."""
        values = dict(line.split(" = ", 1) if " = " in line else (line.removesuffix(" ="), "")
                      for line in self.postconf("-x").stdout.splitlines())
        overrides = {}
        for line in self.postconf("-Px").stdout.splitlines():
            name, _, value = line.partition(" = ")
            service, parameter = name.rsplit("/", 1)
            overrides.setdefault(service, {})[parameter.removesuffix(" =")] = value
        found = {}
        for line in self.postconf("-M").stdout.splitlines():
            words = line.split()
            if words[7] == "smtpd":
                service = f"{words[0]}/{words[1]}"
                own = {**values, **overrides.get(service, {})}
                found[service] = {
                    "policy": [one for name in LISTS for one in policies(own[name], own)],
                    "milter": [] if "no_milters" in own["receive_override_options"] else elements(own["smtpd_milters"])}
        found["sendmail"] = {"policy": [], "milter": elements(values["non_smtpd_milters"])}
        return found


def elements(text):
    """The elements of a list, of which one in braces is one."""
    return re.findall(r"\{[^{}]*\}|[^\s,{}]+", text)


def policies(text, values):
    """The policy services of a restriction list and of the classes that it names."""
    found, words = [], elements(text)
    for word, following in zip(words, [*words[1:], ""]):
        if word == "check_policy_service":
            found.append(re.sub(r"\s+", " ", following))
        elif word in elements(values["smtpd_restriction_classes"]):
            found += policies(values[word], values)
    return found


class Setups(unittest.TestCase):
    def test_all(self):
        paths = sorted(SETUPS.iterdir())
        self.assertGreaterEqual(len(paths), 30)
        # Most of the time goes into starting postconf.
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for path, result in [(path, pool.submit(self.converge, path)) for path in paths]:
                with self.subTest(path.name):
                    result.result()

    def converge(self, path):
        setup = Setup(self, path)
        warnings, before = setup.warnings(), setup.stages()
        applied = []
        for _ in range(MOST_ROUNDS):
            findings = setup.findings()
            for command in dict.fromkeys(command for finding in findings for command in finding["commands"]):
                applied.append(command)
                setup.age()
                if words := words_of(command):
                    run(words)
            if not findings:
                break
        told = "\n".join(applied)
        self.assertEqual(setup.findings(), [], told)
        self.assertEqual(setup.warnings() - warnings, set(), told)
        after = setup.stages()
        for service, stages in after.items():
            for kind, stage in stages.items():
                others = [one for one in stage if not OURS.search(one)]
                if service in before:
                    self.assertEqual(others, [one for one in before[service][kind] if not OURS.search(one)], f"{service} {kind}\n{told}")
                expected = service in setup.facts[kind].split()
                self.assertEqual(len(stage) - len(others), int(expected), f"{service} {kind}: {stage}\n{told}")
                if expected and kind == "milter":
                    signers = [index for index, one in enumerate(stage) if SIGNER.search(one)]
                    ours = next(index for index, one in enumerate(stage) if OURS.search(one))
                    self.assertLess(ours, min(signers, default=len(stage)), stage)
        self.assertLessEqual(before.keys(), after.keys())


if __name__ == "__main__":
    unittest.main()
