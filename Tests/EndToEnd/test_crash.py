# SPDX-License-Identifier: Apache-2.0
"""kill -9 under load: afterwards every answered request is counted exactly once, and every answered change is in force."""
import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import time
import unittest

from postfix import wait_until
from weir import BINARY, BLOCKED, ENVIRONMENT, UnixConnection, WeirService

KILLS = int(os.environ.get("WEIR_KILLS", "20"))


class Kill(unittest.TestCase):
    def test_every_answer_is_counted_exactly_once(self):
        seed = int(os.environ.get("WEIR_SEED", time.time()))
        chance = random.Random(seed)
        service = self.enterContext(WeirService(limits=[
            {"name": "recipients", "key": ["sender"], "count": "recipients", "rates": ["900M/1h", "900M/1d"],
             "over": "DEFER later"},
            {"name": "messages", "when": {"sasl_username": "present"}, "key": ["sasl_username"], "count": "messages",
             "rates": ["900M/1d"], "over": "DEFER later"},
        ]))
        account = service.directory / "account"
        kills = rounds = 0
        while kills < KILLS:
            rounds += 1
            load = subprocess.Popen(
                [BINARY, "load", "policy", "--target", f"inet:127.0.0.1:{service.port}", "--connections", "20",
                 "--rate", "2000", "--duration", "25s", "--timeout", "30s", "--reconnect", "--account", account,
                 "--senders", "40", "--recipients", "3", "--states", "rcpt,data,end-of-message",
                 "--seed", str(seed + rounds), "--json"],
                env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                kills += self.kill_while_loaded(service, load, chance, KILLS - kills)
                output, errors = load.communicate(timeout=120)
            finally:
                if load.poll() is None:
                    load.kill()
                    load.communicate()
            self.assertEqual(load.returncode, 0, f"seed {seed}: {output}{errors}")
            answered = self.compare(service, account, f"seed {seed}, after {kills} kills")
            print(f"\n  {kills} of {KILLS} kills, {answered} answers", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)

    def kill_while_loaded(self, service, load, chance, most):
        """Kills and restarts the service under load, until the load is almost done."""
        started = time.monotonic()
        kills = 0
        while kills < most and time.monotonic() - started < 22:
            wait_until(
                lambda: self.connections(service) > 0 or load.poll() is not None, "the load is connected", interval=0.01)
            time.sleep(chance.uniform(0, 0.2))
            service.kill()
            kills += 1
            service.start()
        return kills

    def connections(self, service):
        """The number of connections of the load, which reconnects a second after a kill."""
        here, established = f"0100007F:{service.port:04X}", "01"
        rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(1 for row in rows if row[1] == here and row[3] == established)

    def compare(self, service, account, when):
        """Compares the generator's account file with Weir's counts; returns the number of answers."""
        recipients, messages, answers = collections.Counter(), collections.defaultdict(set), 0
        for line in account.read_text().splitlines():
            instance, sender, state, word = line.split()
            self.assertEqual(word, "DUNNO", line)
            answers += 1
            if state == "RCPT":
                recipients[sender] += 1
            messages[sender].add(instance)
        self.assertEqual(service.used_by_all("recipients"), dict(recipients), when)
        self.assertEqual(
            service.used_by_all("messages"), {sender: len(instances) for sender, instances in messages.items()}, when)
        self.assertGreater(answers, 0)
        return answers

    def test_every_answered_change_of_an_administrator_outlives_a_kill(self):
        for durability in ("commit", "relaxed"):
            service = WeirService(
                limits=[{"name": "senders", "key": ["sender"], "count": "messages", "rates": ["900M/1h"], "over": "DEFER later"}])
            service.config["ledger"]["durability"] = durability
            self.enterContext(service)
            for kill in range(max(5, KILLS // 5)):
                key = f"key{kill}@example.org"
                connection = UnixConnection(service.admin_socket)
                connection.request("POST", "/limits/key", body=json.dumps({"action": "block", "key": key, "limit": "senders"}))
                # The first bytes of the answer are enough.
                connection.sock.recv(1)
                service.kill()
                connection.close()
                service.start()
                self.assertEqual(service.ask(sender=key), BLOCKED, f"{durability}, kill {kill}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
