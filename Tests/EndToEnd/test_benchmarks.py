# SPDX-License-Identifier: Apache-2.0
"""Bounds of the rules benchmark that have so much room that no busy machine breaks them: what breaks them is a change of ours."""
import json
import tempfile
import unittest

from postfix import run
from weir import BINARY, ROOT


class Rules(unittest.TestCase):
    # Each is measured at least four times as good.
    GUARDED = (
        "1,000 body rules against PCRE2-JIT rule by rule, lines/s", "1,000 body rules against Postfix's way, lines/s",
        "heap allocations per clean 4 KiB message", "10,000+10,000 rules, cold: fast pass ready after")

    def test_bounds(self):
        with tempfile.TemporaryDirectory(prefix="weir-test-") as corpus:
            run(["python3", ROOT / "Benchmarks/rules/corpus.py", corpus])
            output = run([BINARY.parent / "RulesBenchmark", corpus], timeout=300).stdout
        rows = {row["name"]: row for row in map(json.loads, output.splitlines())}
        for name in self.GUARDED:
            with self.subTest(name):
                self.assertTrue(rows[name]["holds"], rows[name])
        # The mail with hits has as many as it was made with.
        self.assertEqual(rows["matches in the mail with hits"]["value"], 217)


if __name__ == "__main__":
    unittest.main()
