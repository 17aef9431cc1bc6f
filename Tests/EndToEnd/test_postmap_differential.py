# SPDX-License-Identifier: Apache-2.0
"""weir query against postmap -q: same output, exit status and warnings on generated tables.

Environment: WEIR names the binary (default .build/release/weir), WEIR_TABLES how many tables
to generate for each type, WEIR_SEED where to start.
"""
import os
import pathlib
import random
import re
import subprocess
import tempfile
import unittest
import unittest.mock
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEIR = os.environ.get("WEIR_BINARY", str(ROOT / ".build/release/weir"))
TABLES = int(os.environ.get("WEIR_TABLES", "1000"))
SEED = int(os.environ.get("WEIR_SEED", "1"))
FIXTURES = ROOT / "Tests/Fixtures/rules"
ENVIRONMENT = {**os.environ, "SWIFT_BACKTRACE": "enable=no", "LC_ALL": "C"}


def run(command, keys):
    done = subprocess.run(command, input=keys, capture_output=True, timeout=120, env=ENVIRONMENT)
    return done.returncode, done.stdout, diagnostics(done.stderr)


# weir prints the location of these, Postfix doesn't; compare the text after it.
UNPLACED = re.compile(
    rb"(?:pcre|regexp) map \S+, line \d+: "
    rb"(?=truncated macro|empty macro|logical line)|^\S+: (?=logical line)")


def diagnostics(stderr):
    """The warnings without the program's name, in order."""
    lines = []
    for line in stderr.splitlines():
        line = re.sub(rb"^(?:postmap|weir query): ", b"", line)
        # Postfix has this warning since 3.9.
        if line.endswith(b"text after null byte may be ignored"):
            continue
        kind, _, text = line.partition(b": ")
        lines.append(kind + b": " + UNPLACED.sub(b"", text))
    return lines


class Generator:
    """Generates tables and keys: mostly valid, and with every kind of mistake."""

    WORDS = ["foo", "bar", "spam", "Subject:", "x@example.org", "a", "B", "1", "$", "\\", "ok", "é"]

    def __init__(self, seed, kind):
        self.random = random.Random(f"{seed} {kind}")
        self.kind = kind

    def pick(self, *choices):
        return self.random.choice(choices)

    def chance(self, probability):
        return self.random.random() < probability

    def atom(self):
        common = [
            "foo", "bar", "a", "B", "spam", ".", "^", "$", "[a-f]", "[^x]", "[[:digit:]]", "(b)",
            "(a|b)", "(foo)?", "(x(y)?)", " ", "@", "1", "\\.", "\\$", "\\/", "", "()", "[]a]",
            "[^]a]", "[a-]", "(^a|b$)", "a{2}", "b{1,2}", "o{0,}",
        ]
        perl = [
            "\\s", "\\d", "\\w+", "\\bfoo", "(?i)a", "(?-i)a", "(?:q|r)", "(?=f)", "(?!f)",
            "(?<=o)b", "\\Qa.b\\E", "\\x41", "(.)\\1", "a++", "a*?", "\\A", "\\z", "\\Z", "(?#c)",
            "(?<n>a)", "a#b", "{", "a{,2}", "(?>a+)b", "\\h", "\\R", "(?s)b.", "(?m)^b",
            "(a|)", "(?:b|)", "(?:foo|o|)", "(?i:B|)", "(a\\b|)", "(b)*+", "(a|b)++", "(o)?+", "\\b", "\\B", "\\K", "(?<!b)",
            "[^a]+", "\\S*", "a??", "b+?", "(?(1)a|b)", "(?|(a)|b)", "(?>a+?)", "(?:.a?){2}", "(*SKIP)", "(*COMMIT)", "(a(?1)?b)",
        ]
        posix = ["\\<foo", "o\\>", "\\w", "(a)\\1", "a**", "a{1,2}{2}", "[[=a=]]", "a|b|", "\\("]
        return self.pick(*(common + (perl if self.kind == "pcre" else posix)))

    def pattern(self):
        text = ""
        for _ in range(self.random.randint(0, 4)):
            text += self.atom()
            if self.chance(0.25):
                text += self.pick("*", "+", "?", "|")
        if self.chance(0.04):
            text += self.pick("(", ")", "[", "\\", "*", "[[:foo:]]", "[b-a]", "{2}")
        return text

    def delimited(self):
        delimiter = self.pick("/", "/", "/", "/", "!", "|", ",", "#", "\"", "~", " ")
        if delimiter in "! #":
            delimiter = self.pick("/", delimiter) if delimiter != " " else "/"
        body = self.pattern().replace(delimiter, self.pick("", "\\" + delimiter))
        flags = self.pick(*["", ""] + list("imsxAEUX" if self.kind == "pcre" else "imx")) \
            + (self.pick("i", "z", "m", "!") if self.chance(0.06) else "")
        negation = self.pick("!", "! ", "!!", "!! !") if self.chance(0.12) else ""
        if delimiter in "!":
            negation = ""
        closing = "" if self.chance(0.02) else delimiter
        text = negation + delimiter + body + closing + flags
        if self.kind == "regexp" and self.chance(0.06):
            text += "!/" + self.pattern().replace("/", "") + "/" + self.pick("", "i")
        return text

    def action(self):
        words = [self.pick(
            "REJECT", "OK", "DUNNO", "text", "$1", "${1}", "$(1)", "$2", "$1x", "$$", "$$1", "$",
            "${", "${1", "$0", "$9", "$100", "${}", "$(1}", "é", "", "a\tb", "${{1}}", "$1$2")
            if self.chance(0.45) else self.pick("REJECT no", "OK", "one two", "STRIP")
            for _ in range(self.random.randint(0 if self.chance(0.1) else 1, 3))]
        return self.pick(" ", "\t", "  ").join(words)

    def line(self):
        dice = self.random.random()
        if dice < 0.10:
            return self.pick("if ", "IF ", "if", "If\t") + self.delimited() + \
                (self.pick(" junk", " ") if self.chance(0.1) else "")
        if dice < 0.20:
            return self.pick("endif", "ENDIF", "endif ", "endif junk", "endif/")
        if dice < 0.24:
            return self.pick("# comment", "", "   ", "  # indented", "word", "iffy /x/ y", "\f", "endifx")
        if dice < 0.27:
            return self.pick(" ", "\t") + self.pick("continued", "$1", "/x/ y", "# no")
        return self.delimited() + self.pick(" ", "\t", "") + self.action()

    def table(self):
        lines = [self.line() for _ in range(self.random.randint(1, 12))]
        text = "\n".join(lines)
        if self.chance(0.9):
            text += "\n"
        data = text.encode()
        if self.chance(0.03):
            at = self.random.randint(0, len(data))
            data = data[:at] + self.pick(b"\0", b"\r", b"\xff") + data[at:]
        return data

    def keys(self):
        keys = []
        for _ in range(25):
            key = "".join(
                self.pick(*self.WORDS, " ", "b", "ab", "aab", "oo", "b.") for _ in range(self.random.randint(0, 4)))
            keys.append(key.encode())
        keys.append(self.pick(b"", b"\xff", b"caf\xc3\xa9", b"a\rb", b"a.b", b"AA", b"q\0foo"))
        # postmap treats a last line that ends in \xff without a newline as the end of the file.
        return b"\n".join(keys) + (b"\n" if keys[-1].endswith(b"\xff") else self.pick(b"\n", b""))


class PostmapDifferential(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        # postmap needs a main.cf, and the machine may have none.
        directory = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="weir-test-"))
        pathlib.Path(directory, "main.cf").write_text("compatibility_level = 3.6\n")
        cls.enterClassContext(unittest.mock.patch.dict(ENVIRONMENT, MAIL_CONFIG=directory))

    def compare(self, kind, path, keys):
        postmap = run(["postmap", "-q", "-", f"{kind}:{path}"], keys)
        weir = run([WEIR, "query", f"{kind}:{path}", "-"], keys)
        return postmap, weir

    def generated(self, kind):
        with tempfile.TemporaryDirectory() as directory:
            def one(number):
                generator = Generator(SEED + number, kind)
                table, keys = generator.table(), generator.keys()
                path = f"{directory}/{number}"
                pathlib.Path(path).write_bytes(table)
                return number, table, keys, *self.compare(kind, path, keys)

            found, left_out = 0, 0
            with ThreadPoolExecutor(2) as pool:
                for number, table, keys, postmap, weir in pool.map(one, range(TABLES)):
                    if any(line.endswith(b"the system's library can end the process") for line in weir[2]):
                        # Postfix runs these patterns, which glibc may not survive.
                        left_out += 1
                        continue
                    if any(line.startswith(b"fatal") for line in postmap[2]):
                        # After a fatal error, postmap drops results that it has not written yet.
                        self.assertTrue(weir[1].startswith(postmap[1]))
                        postmap = postmap[0], weir[1], postmap[2]
                    self.assertEqual(postmap, weir, f"seed {SEED + number}\n{table!r}\n{keys!r}")
                    found += postmap[1].count(b"\n")
        # Some keys must match, or the comparison would be void.
        self.assertGreater(found, TABLES)
        self.assertLessEqual(left_out, TABLES // 50)

    def test_generated_pcre_tables(self):
        self.generated("pcre")

    def test_generated_regexp_tables(self):
        self.generated("regexp")

    def test_fixtures(self):
        tables = sorted(FIXTURES.glob("*.pcre")) + sorted(FIXTURES.glob("*.regexp"))
        self.assertTrue(tables)
        for table in tables:
            with self.subTest(table=table.name):
                keys = table.with_suffix(".keys").read_bytes()
                self.assertEqual(*self.compare(table.suffix[1:], table, keys))

    def test_single_keys(self):
        table = FIXTURES / "actions.pcre"
        for key in ["Subject: spam", "nothing of the kind", "", "café", "-spam", "--spam", "-q", "--", b"a\xff", b"\xf5\x80\xc2\x85"]:
            with self.subTest(key=key):
                name = f"pcre:{table}"
                self.assertEqual(
                    run(["postmap", "-q", key, name], b""), run([WEIR, "query", name, key], b""))

    def test_keys_that_are_not_text(self):
        pieces = [b"a", b'"', b"\x01", b"\x7f", b"\t", b"\x80", b"\xc0", b"\xc1\xbf", b"\xc2\x85", b"\xc3", b"\xe0\x80\x80", b"\xe2\x82", b"\xe2\x80\xa8",
                  b"\xed\xa0\x80", b"\xef\xbf\xbf", b"\xf0\x9f", b"\xf0\x9f\x98\x80", b"\xf4\x90\x80\x80", b"\xf5\x80", b"\xfe\x80", b"\xff"]
        source = random.Random(SEED)
        keys = b"".join(b"".join(source.choices(pieces, k=source.randint(1, 4))) + b"\n" for _ in range(1000))
        with tempfile.TemporaryDirectory() as directory:
            table = pathlib.Path(directory, "table")
            table.write_text("/a/ x\n/^.\"/\n/./ any\n")
            self.assertEqual(*self.compare("pcre", table, keys))

    def test_match_limits(self):
        """Patterns that reach PCRE2's own limits, or nearly do."""
        with tempfile.TemporaryDirectory() as directory:
            table = pathlib.Path(directory, "table")
            table.write_text("/^(a+)+$/ slow\n!/^(a|a)+$/ not slow\n!/^(a+)+x$/ not x\n/(*LIMIT_DEPTH=10)^(?:ab?)+$/ deep\n/./ any\n")
            keys = b"\n".join(b"a" * length + b"b" for length in range(17, 27)) + b"\n"
            self.assertEqual(*self.compare("pcre", table, keys))

    def test_missing_table(self):
        for command in (["postmap", "-q", "x", "pcre:/nonexistent"],
                        [WEIR, "query", "pcre:/nonexistent", "x"]):
            status, output, errors = run(command, b"")
            self.assertEqual((status, output), (1, b""))
            self.assertEqual(errors, [b"fatal: open /nonexistent: No such file or directory"])


if __name__ == "__main__":
    unittest.main()
