#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs tests as `python3 -m unittest --verbose` does, but a test that is skipped has failed.

    python3 run_tests.py NAME...

Tests/run installs what the tests need, so there is no reason to skip one, except where a user who is not root runs
them: those that need root are then run with sudo. Exit status 0 when every test has passed.
"""
import os
import subprocess
import sys
import unittest

from postfix import NEEDS_ROOT, as_root


class Result(unittest.TextTestResult):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.for_root = []

    def addSkip(self, test, reason):
        if reason == NEEDS_ROOT and os.geteuid() != 0:
            self.for_root.append(test.id())
            return super().addSkip(test, reason)
        try:
            raise AssertionError(f"skipped: {reason}") from None
        except AssertionError:
            return self.addFailure(test, sys.exc_info())


def main():
    runner = unittest.TextTestRunner(verbosity=2, resultclass=Result)
    result = unittest.main(module=None, testRunner=runner, exit=False).result
    status = 0 if result.wasSuccessful() and result.testsRun > 0 else 1
    if result.for_root:
        # sudo keeps neither.
        kept = [f"{name}={value}" for name, value in os.environ.items() if name == "PATH" or name.startswith("WEIR_")]
        again = subprocess.run(as_root(["env", *kept, sys.executable, __file__, *result.for_root]), check=False)
        status = status or again.returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
