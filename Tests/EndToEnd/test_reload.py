# SPDX-License-Identifier: Apache-2.0
"""A reload: what the unit of systemd runs, and what operators see of a rejected one."""
import json
import shlex
import socket
import subprocess
import tempfile
import time
import unittest

from postfix import DEFAULT_TIMEOUT, free_port, wait_until
from test_alerts import Hook
from weir import BINARY, ENVIRONMENT, ROOT, UnixConnection, WeirService, get, samples, weir

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["3/1h"]}
BAD = "limits:\n  - name: x\n    keey: [sender]\n"


def unit(key):
    """The values of a key in weir.service."""
    lines = (ROOT / "deploy/systemd/weir.service").read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


class Unit(unittest.TestCase):
    def reload(self, service):
        """Runs the commands of ExecReload as systemd does: one after the other, until one fails."""
        replaced = {"/usr/bin/weir": BINARY, "/etc/weir/weir.yaml": service.config_file, "$MAINPID": str(service.pid)}
        for command in unit("ExecReload"):
            words = [replaced.get(word, word) for word in shlex.split(command)]
            result = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=30)
            if result.returncode:
                return result
        return result

    def test_a_reload_fails_if_the_file_has_errors(self):
        service = self.enterContext(WeirService(limits=[LIMIT]))
        service.configure(text=BAD)
        result = self.reload(service)
        self.assertEqual(result.returncode, 1)
        self.assertIn("weir.yaml:3:", result.stderr)
        service.configure(limits=[{**LIMIT, "name": "another"}])
        self.assertEqual(self.reload(service).returncode, 0)
        service.wait_logged("reloaded: 1 limit (another)")
        # The service was not sent the bad file.
        self.assertNotIn("was rejected", service.log())

    def test_a_start_that_fails_again_is_not_repeated(self):
        prevented = unit("RestartPreventExitStatus")[0].split()
        service = WeirService()
        self.addCleanup(service.__exit__)
        service.configure(text=BAD)
        service.start(wait=False)
        self.assertIn(str(service.process.wait(30)), prevented, service.log())
        self.assertIn(str(weir("serve", "--no-such-option", check=False).returncode), prevented)
        # A port that is in use may be free later.
        running = self.enterContext(WeirService())
        service.configure(text=json.dumps({**service.config, "listen": {"policy": f"inet:127.0.0.1:{running.port}", "admin": f"unix:{service.admin_socket}"}}))
        service.start(wait=False)
        self.assertNotIn(str(service.process.wait(30)), prevented, service.log())


class Limits(unittest.TestCase):
    def test_a_limit_that_comes_back_starts_empty(self):
        other = {**LIMIT, "name": "other", "rates": ["5/1h"]}
        service = self.enterContext(WeirService(limits=[LIMIT, other]))
        self.assertEqual(service.ask(sender="alice@example.org"), "DUNNO")
        for limits in ([other], [LIMIT, other]):
            count = service.log().count("reloaded: ")
            service.configure(limits=limits)
            service.reload()
            wait_until(lambda: service.log().count("reloaded: ") > count, service.log)
        # The turn of the loop that reloads writes. This answer comes after it, and has nothing to write.
        self.assertEqual(service.ask(protocol_state="EHLO", sender="", recipient="", instance="1"), "DUNNO")
        service.kill()
        service.start()
        self.assertIsNone(service.used("alice@example.org", "per-sender"))
        self.assertEqual(service.used("alice@example.org", "other"), 1)


class Patterns(unittest.TestCase):
    def test_a_stop_does_not_wait_for_patterns(self):
        service = WeirService(listen={"milter": f"inet:127.0.0.1:{free_port()}"})
        self.addCleanup(service.__exit__)
        service.config["listen"] |= {"policy": f"inet:127.0.0.1:{service.port}", "admin": f"unix:{service.admin_socket}"}
        table = service.directory / "body_checks"
        table.write_text("/nothing/ WARN\n")
        service.configure(checks={"body": [f"pcre:{table}"], "cache": str(service.directory / "cache")})
        notify = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(service.directory / "notify"))
        notify.settimeout(DEFAULT_TIMEOUT)
        service.environment = {"NOTIFY_SOCKET": str(service.directory / "notify")}
        service.start()
        # They take about half a minute to compile.
        table.write_text("".join(f"/a{number}.{{1,250}}b.{{1,250}}c/ WARN\n" for number in range(1000)))
        service.reload()
        while "RELOADING=1" not in notify.recv(4096).decode():
            pass
        self.assertEqual(service.stop(), 0)
        service.wait_logged("stopped")
        self.assertNotIn("reloaded", service.log())


class Figures(unittest.TestCase):
    def setUp(self):
        self.began = time.time()

    def test_a_rejected_reload_is_seen(self):
        with Hook() as hook, WeirService(limits=[LIMIT], alerts={"webhook": hook.url, "interval": "1s"}) as service:
            self.check(service, None)
            elsewhere = json.dumps({**service.config, "log": {"to": f"file:{self.enterContext(tempfile.TemporaryDirectory())}/log"}})
            for text, fault in ((BAD, "weir.yaml:2:"), (elsewhere, "is out of reach: ")):
                service.configure(text=text)
                service.reload()
                self.check(service, fault)
            wait_until(lambda: hook.alerts, "an alert about the reload")
            alert = hook.alerts[0]
            self.assertEqual((alert["tier"], alert["subject"]), ("trouble", "the configuration"))
            self.assertRegex(alert["text"], r"^rejected, the current one stays in use: .*weir\.yaml:2:")
            service.configure()
            service.reload()
            self.check(service, None)
            wait_until(lambda: [alert["tier"] for alert in hook.alerts] == ["trouble", "recovery"], "an alert about the recovery")

    def check(self, service, fault):
        """The metrics, the page and weir top say how the last reload ended. `fault` is part of the reason, or None."""
        def of(path):
            return get(UnixConnection(service.admin_socket), path)[1]

        wait_until(lambda: (fault or "none") in json.loads(of("/overview"))["reload"].get("fault", "none"), "the page says so")
        found = samples(of("/metrics"))
        self.assertEqual(found["weir_reload_successful"], 0 if fault else 1)
        self.assertTrue(self.began - 1 <= found["weir_reload_time_seconds"] <= time.time() + 1)
        reader = service.directory / "reader.yaml"
        reader.write_text(json.dumps(service.config))
        self.assertEqual("reload=rejected" in weir("top", "--config", reader, "--count", "1").stdout, fault is not None)


if __name__ == "__main__":
    unittest.main()
