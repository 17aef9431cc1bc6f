# SPDX-License-Identifier: Apache-2.0
"""weir check-health against a running service."""
import unittest

from weir import WeirService, weir

LIMITS = [{"name": "per-sender", "key": ["sender"], "rates": ["2/1h"], "block": {"after": 2, "for": "1h"}},
          {"name": "trial", "key": ["client_address"], "rates": ["1/1h"], "mode": "shadow"}]


def health(config, *arguments):
    """The exit status and the line."""
    result = weir("check-health", "--config", config, *arguments, check=False)
    if result.stdout.count("\n") != 1:
        raise AssertionError(result.stdout + result.stderr)
    return result.returncode, result.stdout


class Health(unittest.TestCase):
    def test_states(self):
        with WeirService(limits=LIMITS) as service:
            for number in range(5):
                service.ask(sender="a@example.org", client_address="192.0.2.1")
            # A debug build is slow.
            status, line = health(service.config_file, "--slow", "10000")
            self.assertEqual(status, 0, line)
            self.assertRegex(line, r"^WEIR OK: 2 limits \(1 in shadow mode\), 2 keys \| requests=5c connections=\d+ "
                             r"keys=2;2000000;;0;2000000 refusals=\d+c blocks=1c answer_p99=\d+us;10000000;100000000;0 journal=\d+B\n$")
            # Each item as the plugin interface has it.
            for item in line.split("| ")[1].split():
                self.assertRegex(item, r"^[a-z_0-9]+=\d+(us|B|c)?(;\d*){0,4}$")
            # The running service keeps its configuration, and would not start with this one.
            service.configure(mode="enforced")
            status, line = health(service.config_file)
            self.assertEqual(status, 1)
            self.assertRegex(line, r"^WEIR WARNING: a restart would fail: \S*weir\.yaml:\d+:\d+: mode: [^|]* \| requests=5c ")
            service.reload()
            service.wait_logged("was rejected; the service keeps its current configuration")
            status, line = health(service.config_file)
            self.assertEqual(status, 1)
            self.assertRegex(line, r"^WEIR WARNING: the last reload was rejected; a restart would fail: \S*weir\.yaml:\d+:\d+: mode: ")
            del service.config["mode"]
            service.configure()
            service.reload()
            service.wait_logged("reloaded: ")
            self.assertEqual(health(service.config_file, "--slow", "10000")[0], 0)
            service.stop()
            status, line = health(service.config_file)
            self.assertEqual(status, 2)
            self.assertRegex(line, r"^WEIR CRITICAL: unix:.* is unreachable: [^|]*\n$")
            service.config_file.write_text("listen: { admin: 1 }\n")
            status, line = health(service.config_file)
            self.assertEqual(status, 3)
            self.assertRegex(line, r"^WEIR UNKNOWN: \S*weir\.yaml:\d+:\d+: listen\.admin: .*\n$")
            service.config_file.unlink()
            status, line = health(service.config_file)
            self.assertEqual(status, 3)
            self.assertRegex(line, r"^WEIR UNKNOWN: .*weir\.yaml.*does not exist; weir setup writes one")
