# SPDX-License-Identifier: Apache-2.0
"""weir import postfwd over a grammar of its rules: check-config takes all that is printed, and the limits apply to the
requests to which postfwd 1.35 applies the rules."""
import ipaddress
import json
import pathlib
import random
import re
import shutil
import tempfile
import unittest

from weir import ATTRIBUTES, weir

ATTRIBUTE_VALUES = {
    "client_address": ["192.0.2.1", "192.0.2.200", "198.51.100.7", "2001:db8::1", "2001:db8::12"],
    "client_name": ["unknown", "mx.example.org", "dyn-1-2-3-4.example.com", ""],
    "helo_name": ["localhost", "mx.example.org", "a+b.example.org", ""],
    "sender": ["alice@example.org", "Alice@Example.org", "bob@example.com", "a.b@example.org", ""],
    "sasl_username": ["alice", "bob", ""],
    "policy_context": ["submission", ""],
}
EXACT = ["unknown", "mx.example.org", "a+b.example.org", "alice@example.org", "alice", "bob", "submission", "ALICE", "<>"]
PATTERNS = ["^unknown$", r"@example\.org$", "/^alice/", "/^(.+)$", "(bob|alice)", "^<>$", "^$", r"(\-\d){4}", "dyn", ".*", "example.org", "a/b", r"^a\+b"]
NETWORKS = ["192.0.2.0/24", "192.0.2.1", "192.0.2.0/25", "198.51.100.0/24"] * 3 + [ "2001:db8::1", "2001:db8::/32", "0.0.0.0/0", "203.0.113.0/33"]
OPERATORS = ["=", "==", "=~", "~=", "!=", "!~"]


class Ruleset:
    """Rules as text, and as lists of items: attribute, operator, value."""

    def __init__(self, seed, count=60):
        self.dice = random.Random(seed)
        self.rules = []
        self.text = "# rules\n"
        self.macros = {}
        for number in range(3):
            items = [self.item() for _ in range(self.dice.randint(1, 3))]
            self.macros[f"&&M-{number}"] = items
            self.text += f"&&M-{number} {{{self.pick(' ', chr(10) + '  ')}" + self.pick("; ", "\n  ").join(map(self.written, items)) + self.pick(" }\n", ";\n};\n", "\n}\n")
        for number in range(count):
            self.add(f"R{number}")

    def pick(self, *choices):
        return self.dice.choice(choices)

    def item(self):
        name = self.pick(*ATTRIBUTE_VALUES)
        operator = self.pick(*OPERATORS)
        if name == "client_address":
            values = [self.negated(self.pick(*NETWORKS)) for _ in range(self.pick(1, 1, 2))]
            return name, operator, self.pick(",", ", ").join(values)
        return name, operator, self.negated(self.pick(*(EXACT if operator in ("==", "!=") else PATTERNS)))

    def negated(self, value):
        return self.pick(value, value, value, f"!!{value}", f"!! {value}", f"!!({value})", f"!!( {value} )")

    def written(self, item):
        name, operator, value = item
        return f"{name}{self.pick('', ' ')}{operator}{self.pick('', ' ')}{value}"

    def add(self, name):
        items = [self.item() for _ in range(self.pick(0, 1, 1, 1, 2, 3))]
        texts = list(map(self.written, items))
        if self.pick(True, *[False] * 5):
            macro = self.pick(*self.macros)
            items = items + self.macros[macro]
            texts.append(macro)
        # A state that Weir takes, or not; it decides by itself when it counts.
        if (state := self.pick(*[None] * 16, "=RCPT", "==RCPT", "=~^RCPT$", "!=RCPT", "=~RCPT|DATA")):
            texts.append("protocol_state" + state)
        texts.append("action=" + self.action())
        self.text += f"id={name}{self.pick(';', ' ; ', chr(10) + '   ')}" + self.pick("; ", " ;\\\n ", "\n\t").join(texts) + self.pick("\n", " ;\n", "  # comment\n", "\r\n")
        self.rules.append((name, items))

    def action(self):
        kind = self.pick(*["rate"] * 9, "rate5321", "size", "rcpt", "REJECT")
        number, window = self.pick(*["1000"] * 12, "0", "x", "9" * 18), self.pick("3600", "86400", "60", "7")
        answer = self.pick(*["450 4.7.1 sorry"] * 8, "REJECT $$client_address", 'REJECT "so"', "PREPEND X-A: b", "$$ratecount", "DUNNO", "", "score(5)", "450 4.7.1 $$(ratecount) | a\\b 'c' {d} é")
        return kind if kind == "REJECT" else f"{kind}(client_address/{number}/{window}/{answer})"


def postfwd_matches(items, request):
    """compare_rule of postfwd 1.35: of the items of each attribute, one must match."""
    return all(any(matches(name, operator, value, request[name]) for other, operator, value in elements(items) if other == name)
               for name in {name for name, _, _ in items})


def elements(items):
    for name, operator, value in items:
        for element in value.split(",") if name == "client_address" else [value]:
            yield name, operator, element.strip()


def matches(name, operator, value, given):
    if name == "sender":
        given = given or "<>"
    found = re.match(r"^!!\s*\(?\s*(.+?)\s*\)?$", value)
    value = found[1] if found else value
    result = compare_address(operator, value, given) if name == "client_address" else compare(operator, value, given)
    return result != bool(found)


def compare(operator, value, given):
    operator = {"~=": "=~"}.get(operator, operator)
    if operator in ("==", "!="):
        return bool(given) and (given.lower() == value.lower()) == (operator == "==")
    value = re.sub(r"^/?(.*?)/?$", r"\1", value)
    return bool(re.search(value, given, re.I)) == (operator != "!~")


def compare_address(operator, value, given):
    if value == "0.0.0.0/0":
        return operator != "!="
    if ":" in given:
        return compare(operator, value, given)
    try:
        network = ipaddress.IPv4Network(value, strict=False)
        return (ipaddress.IPv4Address(given) in network) == (operator != "!=")
    except ValueError:
        return operator == "!="


class Grammar(unittest.TestCase):
    REQUESTS = 250

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        dice = random.Random(7)
        self.requests = [{name: dice.choice(values) for name, values in ATTRIBUTE_VALUES.items()} for _ in range(self.REQUESTS)]
        with open(self.directory / "capture", "w", encoding="utf-8") as capture:
            for number, request in enumerate(self.requests):
                attributes = {**ATTRIBUTES, **request, "instance": f"1.{number}", "recipient": "r@example.com"}
                capture.write(f"time={1790000000 + number}.000000\n" + "".join(f"{name}={value}\n" for name, value in attributes.items()) + "\n")

    def test_what_is_printed_is_taken_and_applies_to_the_same(self):
        limits, compared = 0, 0
        for seed in range(6):
            ruleset = Ruleset(seed)
            (self.directory / "postfwd.cf").write_bytes(ruleset.text.encode())
            result = weir("import", "postfwd", self.directory / "postfwd.cf", check=False)
            self.assertIn(result.returncode, (0, 1), result.stderr)
            config = self.directory / "weir.yaml"
            config.write_text(result.stdout)
            checked = weir("check-config", "--config", config, check=False)
            self.assertEqual(checked.returncode, 0, f"seed {seed}: {checked.stderr}")
            report = json.loads(weir("replay", "--json", "--config", config, self.directory / "capture").stdout)
            items_of = dict(ruleset.rules)
            for limit in report["limits"]:
                limits += 1
                if limit["count"] != "recipients":
                    continue
                compared += 1
                items = items_of[limit["name"]]
                wanted = sum(postfwd_matches(items, request) for request in self.requests)
                self.assertEqual(limit["counted"], wanted, f"seed {seed}: {limit['name']}: {items}\n{result.stdout}")
            # Every rule is a limit, or is named.
            named = set(re.findall(r"left out: (R\d+):", result.stderr)) | {limit["name"] for limit in report["limits"]}
            self.assertEqual(named, set(items_of), result.stderr)
        # The grammar is not so wild that all is left out.
        self.assertGreater(limits, 100)
        self.assertGreater(compared, 80)

    def test_negated_forms(self):
        """What postfwd makes of exceptions, which is not always what their authors meant."""
        several = "client_address has several values, one of them negated, of which postfwd needs only one"
        for item, taken, left_out in (
                ("client_address!=192.0.2.0/24", '{ not: { in: ["192.0.2.0/24"] } }', None),
                ("client_address=!!(192.0.2.0/24)", '{ not: { in: ["192.0.2.0/24"] } }', None),
                ("client_address!=!!192.0.2.0/24", '{ in: ["192.0.2.0/24"] }', None),
                ("client_address!=192.0.2.0/24,198.51.100.0/24", None, several),
                ("client_address=!!(192.0.2.0/24,198.51.100.0/24)", None, several),
                ("client_address!~^10", None, "postfwd does not compare client_address with patterns"),
                ("client_address==2001:db8::/32", None, "2001:db8::/32: postfwd compares IPv6 addresses as text"),
                ("client_address==0.0.0.0/0", None, "0.0.0.0/0 is every address"),
                # postfwd's null sender.
                ("sender==<>", r'{ matches: "/(?:^\\<\\>$)|^$/" }', None),
                ("sender=!!(<>)", '{ not: { matches: "/(?:<>)|^$/" } }', None),
                ("sender=~^$", '{ matches: "/(?!^$)(?:^$)/" }', None),
                ("sender!=bob@example.org", r'{ not: { matches: "/^bob@example\\.org$/" } }', None),
                # Not true without a login.
                ("sasl_username!=bob", '{ not: { matches: "/^(?:bob)?$/" } }', None),
                ("sasl_username==!!bob", '{ not: { matches: "/^bob$/" } }', None),
                ("sasl_username!~^bob$", '{ not: { matches: "/^bob$/" } }', None),
                ("sasl_username=~!!( (bob|alice) )", '{ not: { matches: "/(bob|alice)/" } }', None),
                ("sasl_username!=bob; sasl_username!=alice", None, "sasl_username has several values"),
                ("protocol_state!=RCPT", None, "only one protocol_state can be required"),
                ("protocol_state==RCPT; protocol_state==DATA", None, "only one protocol_state can be required")):
            with self.subTest(item):
                (self.directory / "postfwd.cf").write_text(f"id=A; {item}; action=rate(client_address/2/3600/450 4.7.1 x)\n")
                result = weir("import", "postfwd", self.directory / "postfwd.cf", check=False)
                self.assertEqual(result.returncode, 0 if taken else 1)
                self.assertIn(f": {taken}\n" if taken else "limits: []", result.stdout)
                self.assertIn(f"left out: A: {left_out}" if left_out else "", result.stderr)

    def test_lines(self):
        """Quotation marks, comments and continued lines, as postfwd reads them."""
        for text, taken in (
                ('id=A; action=rate(client_address/2/3600/450 4.7.1 "so" much) # too much\n', 'over: "450 4.7.1 so much"'),
                ("id=A; action=rate(client_address/2/3600/450 4.7.1 so\\\n   much)\n", 'over: "450 4.7.1 so   much"'),
                ("id=A\n\n  # between\n  helo_name==x\n  action=rate(client_address/2/3600/450 x)\n", 'helo_name: { matches: "/^x$/" }'),
                ("&&X { helo_name==x }\n&&Y { &&X; client_name==y }\nid=A; &&Y; action=rate(client_address/2/3600/450 x)\n", 'client_name: { matches: "/^y$/" }'),
                ("&&X { ==x }\nid=A; helo_name &&X; action=rate(client_address/2/3600/450 x)\n", 'helo_name: { matches: "/^x$/" }'),
                ("id=A; action=rate(client_address/2/3600/450 x)\r\n", 'over: "450 x"')):
            with self.subTest(text):
                (self.directory / "postfwd.cf").write_bytes(text.encode())
                result = weir("import", "postfwd", self.directory / "postfwd.cf", check=False)
                self.assertIn(taken, result.stdout, result.stderr)

    def test_names(self):
        """Many rules may have one name, and a name may be something else in YAML."""
        names = ["A", "A", "A-2", "A", "\u00dc\u00dc", "-x", "null", "~", "1", "true", "A-2"]
        (self.directory / "postfwd.cf").write_text("".join(f"id={name}; action=rate(client_address/2/3600/450 x)\n" for name in names))
        result = weir("import", "postfwd", self.directory / "postfwd.cf")
        self.assertEqual(re.findall(r"- name: (.*)", result.stdout), ["A", "A-2", "A-2-2", "A-3", "limit", "x", '"null"', "limit-2", "1", "true", "A-2-3"])
        (self.directory / "weir.yaml").write_text(result.stdout)
        weir("check-config", "--config", self.directory / "weir.yaml")

    def test_windows_are_seconds(self):
        """For postfwd, 1h is one second."""
        (self.directory / "postfwd.cf").write_text("id=A; action=rate(client_address/2/1h/450 x)\n")
        result = weir("import", "postfwd", self.directory / "postfwd.cf", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("limits: []", result.stdout)
        self.assertIn("left out: A: 1h is not a number of seconds", result.stderr)

    def test_what_differs_is_said(self):
        for rule, said in (
                ("action=rate(sender/2/3600/450 x)", ["the null sender", "ignores case in the local part"]),
                ("action=rate5321(sender/2/3600/450 x)", ["the null sender"]),
                ("sender==<>; action=rate5321(sender/2/3600/450 x)", ["the null sender"]),
                ("sender=~@; action=rate5321(sender/2/3600/450 x)", []),
                ("protocol_state==RCPT; action=rcpt(client_address/2/3600/450 x)", ["rcpt() counts nothing at RCPT"]),
                ("protocol_state==DATA; action=rcpt(client_address/2/3600/450 x)", []),
                ("protocol_state==RCPT; action=rate(client_address/2/3600/450 x)", []),
                ("protocol_state==RCPT; action=rate(client_address/2/3600)", ["it has no answer"]),
                ("action=rate(sasl_username/2/3600/450 x)", ["also counts mail without a login, as one key"]),
                ("sasl_username=~.; action=rate(sasl_username/2/3600/450 x)", []),
                ("sasl_username=!!(bob); action=rate(sasl_username/2/3600/450 x)", ["also counts mail without a login, as one key"]),
                ("action=rate(client_name/2/3600/450 x)", ["also counts all clients without a name, as one key"]),
                ("action=size(client_address/200/3600/450 x)", ["size() adds the size at each request"]),
                ("protocol_state==END-OF-MESSAGE; action=size(client_address/200/3600/450 x)", [])):
            with self.subTest(rule):
                (self.directory / "postfwd.cf").write_text(f"id=A; {rule}\n")
                stderr = weir("import", "postfwd", self.directory / "postfwd.cf").stderr
                notes = [line for line in stderr.splitlines() if "rate() counts requests" not in line]
                self.assertEqual(len(notes), len(said), stderr)
                for line, text in zip(notes, said):
                    self.assertIn(text, line)

    def test_lines_of_main_cf(self):
        """A line that sets a limit again counts. Lines may end as on Windows, but not with a form feed."""
        for end in ("\n", "\r\n"):
            with self.subTest(end=end):
                text = end.join(["# page 1\f", "mynetworks = 127.0.0.1", "smtpd_client_connection_rate_limit = 10", "smtpd_client_connection_rate_limit = 20", ""])
                (self.directory / "main.cf").write_bytes(text.encode())
                result = weir("import", "anvil", self.directory / "main.cf")
                self.assertIn("  # line 4\n", result.stdout)
                self.assertIn("rates: [20/1m]", result.stdout)
                self.assertRegex(result.stderr, r"main\.cf:4: note: limit per-client-connections: anvil counts all connections")


if __name__ == "__main__":
    unittest.main()
