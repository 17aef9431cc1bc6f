#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test module here, two at a time, and prints what each took.

    python3 every_module.py [--jobs N]

Most tests wait for Postfix or for a clock, so two at once take little more than half the time. Each module is a
process of its own, with its own range of ports (see `free_port`). The output of a module is printed when it ends.
Exit status 0 when every module passed. A test that is skipped fails (see run_tests.py).
"""
import argparse
import concurrent.futures
import os
import pathlib
import queue
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
# The longest modules begin first, so that none of them runs alone at the end.
FIRST = ["test_doctor", "test_dkim", "test_fidelity", "test_headers", "test_filter_postfix", "test_benchmarks"]
MODULE_TIMEOUT = 1_500
PORTS = range(20_000, 32_000)


def run(module, ports):
    """Runs one module. Returns its exit status, seconds and output."""
    started = time.monotonic()
    try:
        result = subprocess.run(
            [sys.executable, "run_tests.py", module], cwd=HERE, timeout=MODULE_TIMEOUT, text=True,
            errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "WEIR_TEST_PORTS": f"{ports.start}-{ports.stop}"})
        status, output = result.returncode, result.stdout
    except subprocess.TimeoutExpired as expired:
        status, output = None, (expired.stdout or b"").decode(errors="replace")
    return status, time.monotonic() - started, output


def main():
    parser = argparse.ArgumentParser(description="Runs every end-to-end test module.")
    parser.add_argument("--jobs", type=int, default=2, help="modules at a time (default 2)")
    jobs = parser.parse_args().jobs
    modules = sorted(path.stem for path in HERE.glob("test_*.py"))
    modules.sort(key=lambda module: FIRST.index(module) if module in FIRST else len(FIRST))

    share = len(PORTS) // jobs
    free = queue.SimpleQueue()
    for job in range(jobs):
        free.put(PORTS[job * share:(job + 1) * share])

    def with_ports(module):
        ports = free.get()
        try:
            return run(module, ports)
        finally:
            free.put(ports)

    failed, tests, lines = [], 0, []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(with_ports, module): module for module in modules}
        for done in concurrent.futures.as_completed(running):
            module = running[done]
            status, seconds, output = done.result()
            print(output, end="", flush=True)
            ran = re.search(r"^Ran (\d+) tests? in", output, re.MULTILINE)
            count = int(ran[1]) if ran else 0
            tests += count
            # A module that has no test is one that did not load, or was emptied by mistake.
            if status != 0 or count == 0:
                failed.append(module)
            ended = "not within its time" if status is None else "ok" if status == 0 else f"exit status {status}"
            lines.append((seconds, f"{seconds:6.0f} s  {count:3} tests  {module}: {ended}"))
    print()
    for _, line in sorted(lines, reverse=True):
        print(line)
    print(f"{tests} tests in {len(modules)} modules" + (f"; FAILED: {', '.join(failed)}" if failed else "; all passed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
