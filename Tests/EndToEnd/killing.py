# SPDX-License-Identifier: Apache-2.0
"""Load on a `weir serve` that is killed again and again, with an exact account of what it has answered and accepted.

PolicyLoad asks the policy server itself. MailLoad is a private Postfix that asks the policy server, uses the milter and
the content filter of the same Weir, and delivers to smtp-sink.
"""
import collections
import contextlib
import itertools
import json
import random
import re
import threading
import time

from filtering import RETRY, FilterService, losses, services
from postfix import SMTP, PrivatePostfix, SMTPSink, free_port, wait_until
from weir import PolicyClient, UnixConnection, get

# No wait of a client is longer, in seconds.
LONGEST = 60

# The policy clients of the load have a login, and Postfix has none.
LIMITS = [
    {"name": "recipients", "when": {"sasl_username": "present"}, "key": ["sender"], "count": "recipients",
     "rates": ["900M/1h", "900M/1d"], "over": "DEFER later"},
    {"name": "messages", "when": {"sasl_username": "present"}, "key": ["sasl_username"], "count": "messages",
     "rates": ["900M/1d"], "over": "DEFER later"},
    {"name": "capped", "when": {"helo_name": "capped.example.org"}, "key": ["client_address"], "count": "recipients",
     "rates": ["20/1d"], "over": "DEFER later"},
    {"name": "mail", "when": {"sasl_username": "absent"}, "key": ["recipient"], "count": "messages",
     "rates": ["900M/1d"], "over": "DEFER later"},
]
CAP = 20
# The answer while the ledger is being opened. Nothing is charged for it.
NOT_READY = "DEFER_IF_PERMIT 4.3.0 Service temporarily unavailable, try again later"


def service(reinjection_port, durability):
    """A Weir with these limits, a milter and a filter, which ends with this process."""
    weir = FilterService(
        reinjection_port, header="/^X-Number:/ PREPEND X-Checked: yes\n", body="/^never$/ REJECT\n", limits=LIMITS,
        on_failure="defer")
    weir.config["ledger"]["durability"] = durability
    weir.milter_port = free_port()
    weir.config["listen"]["milter"] = [f"inet:127.0.0.1:{weir.milter_port}"]
    weir.wrapper = ["setpriv", "--pdeathsig", "KILL"]
    return weir


def standings(weir, limit):
    """The use of all keys of a limit, of which there are fewer than 1,000."""
    _, text, _ = get(UnixConnection(weir.admin_socket), f"/limits?limit={limit}&most=1000")
    found = {standing["key"]: standing["rates"][-1]["used"] for standing in json.loads(text)}
    if len(found) == 1000:
        raise AssertionError(f"there may be more keys of {limit}")
    return found


class Worker(threading.Thread):
    """Repeats `step` until it is stopped, except while it is paused."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ended, self.may_go, self.in_step = threading.Event(), threading.Event(), threading.Lock()
        self.may_go.set()
        self.failure = None

    def run(self):
        try:
            while not self.ended.is_set():
                self.may_go.wait()
                with self.in_step:
                    self.step()
        except Exception as failure:
            self.failure = failure

    @contextlib.contextmanager
    def paused(self):
        # Without the event, the thread might take the lock again and again before this one gets it.
        self.may_go.clear()
        if not self.in_step.acquire(timeout=LONGEST + 5):
            raise AssertionError(f"{self} is still in its step")
        try:
            self.check()
            yield
        finally:
            self.in_step.release()
            self.may_go.set()

    def stop(self):
        self.ended.set()
        self.may_go.set()
        self.join(LONGEST + 5)
        if self.is_alive():
            raise AssertionError(f"{self} is still in its step")

    def check(self):
        if self.failure:
            raise self.failure


class Load:
    """Workers that begin and end together."""

    def __init__(self, workers):
        self.workers = workers

    def __enter__(self):
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_):
        for worker in self.workers:
            worker.ended.set()
        for worker in self.workers:
            worker.stop()

    def check(self):
        for worker in self.workers:
            worker.check()

    @contextlib.contextmanager
    def paused(self):
        """Nobody waits for an answer within this context, so all accounts are complete."""
        with contextlib.ExitStack() as stack:
            for worker in self.workers:
                stack.enter_context(worker.paused())
            yield


class PolicyLoad(Load):
    def __init__(self, port, seed, connections):
        super().__init__([PolicySender(port, seed, number) for number in range(connections)])

    @property
    def answers(self):
        return sum(worker.answers for worker in self.workers)

    def expected(self, limit):
        """What the answers so far have charged: by key."""
        return sum((worker.charged[limit] for worker in self.workers), collections.Counter())

    def compare(self, weir):
        """The counts that are lost and doubled, and keys above their limit, while the load is paused."""
        found = collections.Counter()
        with self.paused():
            for limit in ("recipients", "messages", "capped"):
                used, expected = standings(weir, limit), self.expected(limit)
                for key in {*used, *expected}:
                    difference = used.get(key, 0) - expected[key]
                    found["counts lost" if difference < 0 else "counts doubled"] += abs(difference)
                    found["keys above their limit"] += limit == "capped" and expected[key] > CAP
        return found


class PolicySender(Worker):
    """A connection of smtpd: one request at a time. A request without an answer is sent again, unchanged."""

    def __init__(self, port, seed, number):
        super().__init__()
        self.port, self.name = port, f"policy client {number}"
        self.prefix, self.chance = f"{seed:x}.{number:x}", random.Random(f"{seed} {number}")
        self.client = None
        self.answers = 0
        self.charged = collections.defaultdict(collections.Counter)
        self.requests = self.transactions()
        self.request = next(self.requests)

    def step(self):
        action = self.ask(PolicyClient.request(**self.request))
        if action is not None:
            self.answers += 1
            self.request = self.requests.send(action)

    def ask(self, request):
        """The action; None if the worker is stopped before the answer."""
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            try:
                self.client = self.client or PolicyClient(self.port, LONGEST)
                self.client.send(request)
                action = self.client.reply()
            except OSError:
                action = None
            if action not in (None, NOT_READY):
                return action
            if self.client:
                self.client.socket.close()
                self.client = None
            if self.ended.is_set():
                return None
            time.sleep(0.005)
        raise AssertionError(f"no answer within {LONGEST} s")

    def transactions(self):
        """Yields requests, takes their actions, and charges the accounts as docs/limits.md says."""
        for number in itertools.count():
            sender = f"user{self.chance.randrange(40)}@example.org"
            is_capped = self.chance.random() < 0.1
            network = f"2001:db8:0:{number // 500 + 1:x}::"
            transaction = {
                "instance": f"{self.prefix}.{number:x}.0", "sender": sender, "sasl_username": sender,
                "helo_name": "capped.example.org" if is_capped else "client.example.org",
                "client_address": f"{network}1"}
            capped_key = f"{network}/64" if is_capped else None
            accepted = 0
            for recipient in range(self.chance.randint(1, 4)):
                action = yield {**transaction, "recipient": f"{recipient}@example.com"}
                self.expect(action, "DUNNO", *["DEFER later"] * is_capped)
                if action == "DUNNO":
                    accepted += 1
                    self.charge(sender, capped_key, 1)
                    self.charged["messages"][sender] += accepted == 1
            if accepted == 0 or self.chance.random() < 0.1:
                continue
            # Postfix may have refused a recipient that Weir has accepted.
            left = accepted - (accepted > 1 and self.chance.random() < 0.2)
            for state in ("DATA", "END-OF-MESSAGE"):
                # A single recipient is named (SMTPD_POLICY_README).
                recipient = "0@example.com" if left == 1 else ""
                action = yield {
                    **transaction, "protocol_state": state, "recipient": recipient, "recipient_count": str(left)}
                self.expect(action, "DUNNO")
                self.charge(sender, capped_key, left - accepted)
                accepted = left

    def charge(self, sender, capped_key, recipients):
        self.charged["recipients"][sender] += recipients
        if capped_key:
            self.charged["capped"][capped_key] += recipients

    @staticmethod
    def expect(action, *expected):
        if action not in expected:
            raise AssertionError(f"answered {action}, not one of {expected}")


class MailLoad(Load):
    """Messages through one Postfix and all three interfaces of a Weir, to smtp-sink."""

    def __init__(self, weir, reinjection_port, clients):
        numbers = itertools.count()
        self.sink = SMTPSink()
        self.postfix = PrivatePostfix(
            main={
                "smtpd_milters": f"inet:127.0.0.1:{weir.milter_port}", "milter_default_action": "tempfail",
                "content_filter": f"weir:[127.0.0.1]:{weir.filter_port}",
                "receive_override_options": "no_address_mappings", "weir_destination_recipient_limit": "1000",
                "smtpd_recipient_restrictions":
                    f"check_policy_service {{ inet:127.0.0.1:{weir.port}, timeout=10s, default_action=DEFER }}, "
                    "permit_mynetworks, reject",
                **RETRY},
            relay=self.sink.port, services=services(reinjection_port))
        super().__init__([MailSender(self.postfix.port, number, numbers) for number in range(clients)])

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.sink)
            stack.enter_context(self.postfix)
            super().__enter__()
            self.servers = stack.pop_all()
        return self

    def __exit__(self, *_):
        with self.servers:
            super().__exit__()

    def compare(self, weir):
        """Ends the load, waits until all mail is delivered, and counts messages and charges."""
        super().__exit__()
        self.check()
        wait_until(self.is_drained, lambda: f"the queue drained\n{self.postfix.log()[-5000:]}", 120, interval=0.5)
        accepted = {number for worker in self.workers for number in worker.accepted}
        deliveries, changed = collections.Counter(), 0
        for delivered in self.sink.messages():
            number = int(re.search(rb"^X-Number: (\d+)", delivered["content"], re.M)[1])
            deliveries[number] += 1
            changed += not delivered["content"].rstrip(b"\n").endswith(
                b"X-Checked: yes\n" + message(number).encode().rstrip(b"\n"))
        logged = losses(self.postfix.log())
        found = collections.Counter({
            "messages accepted": len(accepted), "messages lost": len(accepted - deliveries.keys()),
            "messages changed": changed,
            "messages delivered but not accepted": len(deliveries.keys() - accepted)})
        for number, count in deliveries.items():
            found["messages doubled"] += count - 1
            found["messages doubled without a log line"] += max(0, count - 1 - logged[number])
        used = standings(weir, "mail")
        for worker in self.workers:
            charged = used.get(worker.recipient, 0)
            found["counts lost"] += max(0, len(worker.accepted) - charged)
            found["counts doubled"] += max(0, charged - worker.attempts)
        return found

    def is_drained(self):
        self.postfix.command("postqueue", "-f")
        return not self.postfix.queue()


class MailSender(Worker):
    """An SMTP client that sends a message until it is accepted. Its recipient is its own."""

    def __init__(self, port, number, numbers):
        super().__init__()
        self.port, self.name, self.numbers = port, f"mail client {number}", numbers
        self.recipient = f"client{number}@example.com"
        self.accepted = []
        # How often Weir may have been asked about a message.
        self.attempts = 0

    def step(self):
        number, deadline = next(self.numbers), time.monotonic() + LONGEST
        while (code := self.attempt(number)) != 250:
            if code < 400 or code >= 500:
                raise AssertionError(f"answered {code}")
            if time.monotonic() > deadline:
                raise AssertionError(f"message {number} is not accepted within {LONGEST} s")
            time.sleep(0.02)
        self.accepted.append(number)

    def attempt(self, number):
        """Sends a message once; returns the code of the last reply."""
        with SMTP(self.port, helo=None, timeout=LONGEST) as client:
            for line in (
                    "EHLO client.example.org", f"MAIL FROM:<{number}@example.org>", f"RCPT TO:<{self.recipient}>",
                    "DATA"):
                self.attempts += line.startswith("RCPT")
                code, _ = client.command(line)
                if code >= 400:
                    return code
            client.send(message(number).replace("\n", "\r\n").encode() + b".\r\n")
            return client.reply()[0]


def message(number):
    """Every tenth message is too large for the filter's memory, and goes to its spool."""
    lines = "".join(f"{number} {line} {'x' * 60}\n" for line in range(8000 if number % 10 == 0 else 40))
    return (
        f"X-Number: {number}\nFrom: a@example.org\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n"
        f"Message-Id: <{number}@example.org>\nSubject: test\n\n{lines}")
