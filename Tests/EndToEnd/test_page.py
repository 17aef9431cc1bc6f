# SPDX-License-Identifier: Apache-2.0
"""The page of the admin listener."""
import json
import pathlib
import re
import shlex
import signal
import socket
import sys
import threading
import unittest
import zipfile

from browser import Browser
from postfix import free_port, run
from weir import ROOT, UnixConnection, WeirService, get

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["3/1h"]}
HOSTILE = "<script>alert(1)</script>@example.org"
FILES = ROOT / "Sources/Service/Admin/Page"
AXE = "0.1.8"


class Files(unittest.TestCase):
    def test_scripts_parse(self):
        with Browser() as browser:
            browser.call("Runtime.enable")
            for script in FILES.glob("*.js"):
                compiled = browser.call(
                    "Runtime.compileScript", expression=script.read_text(), sourceURL=script.name, persistScript=False)
                self.assertNotIn("exceptionDetails", compiled, script.name)

    def test_scripts_use_ids_of_the_page(self):
        """Every id that a script or the style sheet uses is in the page, and no id is there twice."""
        ids = re.findall(r'\bid="([^"]+)"', (FILES / "page.html").read_text())
        self.assertEqual(len(ids), len(set(ids)))
        script = "".join(file.read_text() for file in FILES.glob("*.js"))
        used = set(re.findall(r'\b(?:element|rows|figures|lines)\("([^"]+)"', script))
        used |= set(re.findall(r"#([a-z]+)[ ,{]", re.sub(r"{[^{}]*}", "{}", (FILES / "page.css").read_text())))
        self.assertGreater(len(used), 10)
        self.assertLessEqual(used, set(ids))


class Page(unittest.TestCase):
    """In a headless Chromium, by keyboard alone."""

    USER = {"name": "per-user", "key": ["sasl_username"], "count": "recipients", "rates": ["3/1h", "100/1d"]}
    TRIAL = {"name": "trial", "key": ["sasl_username"], "count": "recipients", "rates": ["1/1h"], "mode": "shadow"}

    def setUp(self):
        self.weir = self.enterContext(WeirService(limits=[LIMIT, self.USER, self.TRIAL]))
        self.port = free_port()
        threading.Thread(target=tunnel, args=(self.port, self.weir.admin_socket), daemon=True).start()

    def browser(self, hash=""):
        browser = self.enterContext(Browser())
        browser.open(f"http://127.0.0.1:{self.port}/{hash}")
        browser.wait(f'{text("state")} === "OK"')
        return browser

    def search(self, browser, searched):
        browser.press_until("Tab", 'document.activeElement.name === "text"')
        browser.run("document.activeElement.select()")
        browser.type(searched)
        browser.press("Enter")

    def push(self, browser, name):
        browser.press_until("Tab", f'document.activeElement.getAttribute("aria-label") === "{name}"')
        browser.press("Enter")

    def row(self, table, key):
        """The script that finds the row of a key."""
        return f"""[...document.querySelectorAll('#{table} tbody tr')].find(row => row.textContent.includes('{key}'))"""

    def test_head(self):
        browser = self.browser()
        browser.wait(f'{text("host")} === {json.dumps(socket.gethostname())}')
        self.assertRegex(browser.run(text("about")), r"^Weir [0-9.]+[^ ]*, up [0-9]+s$")
        browser.wait(f'{text("age")} === "live"')
        self.assertEqual(browser.run("document.title"), f"{socket.gethostname()}: Weir")

    def test_empty_states(self):
        """Without mail, the page says what main.cf and weir.yaml need."""
        browser = self.browser()
        browser.wait(f'{text("hookup")}.includes("check_policy_service inet:127.0.0.1:{self.weir.port}")')
        self.assertIn("smtpd_milters = ", browser.run(text("hookup")))
        self.assertIn("No request has come yet", browser.run(text("now-text")))
        self.assertEqual(browser.run(text("no-refusals")), "Nothing was refused since the service started.")

    def test_now(self):
        """A spammer comes first, with refusals and client. Keys of shadow limits are apart."""
        self.weir.ask(sasl_username="bob", sender="")
        for _ in range(8):
            self.weir.ask(sasl_username="alice", sender="")
        browser = self.browser()
        browser.wait(f"{self.row('now', 'per-user')} !== undefined")
        first = browser.run("document.querySelector('#now tbody tr').innerText")
        self.assertRegex(first, r"^alice\s+per-user\s+over\s")
        self.assertIn("3 / 3 per 1h", first)
        self.assertIn("client.example.org[192.0.2.1]", first)
        self.assertEqual(browser.run(f"{self.row('now', 'per-user')}.cells[3].textContent"), "5")
        self.assertNotIn("trial", browser.run(text("now")))
        self.assertIn("trial, shadow", browser.run(f"{self.row('now-shadow', 'alice')}.textContent"))
        self.assertRegex(browser.run(text("now-text")), "^1 key over, 2 over shadow limits$")

    def test_hostile_key(self):
        """Markup from a peer appears as text."""
        for _ in range(5):
            self.weir.ask(sender=HOSTILE)
        browser = self.browser()
        browser.wait(f"{self.row('refusals', HOSTILE)} !== undefined")
        page = browser.run("document.documentElement.outerHTML")
        self.assertIn("&lt;script&gt;alert(1)&lt;/script&gt;@example.org", page)
        self.assertNotIn("<script>alert", page)
        self.assertIn(str(self.weir.ledger), browser.run(text("ledger")))

    def test_refusals_are_grouped(self):
        """One row per key and limit, with count, times and answer; shadow limits apart."""
        for _ in range(7):
            self.weir.ask(sender="", sasl_username="alice")
        browser = self.browser()
        browser.wait("document.querySelectorAll('#refusals tbody tr').length === 1")
        row = browser.run(f"[...{self.row('refusals', 'per-user')}.cells].map(cell => cell.innerText)")
        self.assertEqual(row[:2], ["alice\nper-user", "4"])
        self.assertRegex(row[2], r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\nfirst \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertIn("DEFER", row[3])
        self.assertRegex(row[4], r"^over: recipients 3/3 per 1h, 3/100 per 1d, room in (1h|[0-9]+m)")
        self.assertEqual(browser.run("document.querySelectorAll('#shadow-refusals tbody tr').length"), 1)
        self.assertEqual(browser.run(f"{self.row('shadow-refusals', 'trial')}.cells[1].textContent"), "6")

    def test_rates(self):
        """The arrow keys read the rates of a moment; p50 and p99 have their names."""
        self.weir.ask()
        browser = self.browser()
        browser.wait(f'{text("rate-text")}.includes("DUNNO ")')
        self.assertRegex(browser.run(text("rate-text")), r"^\d\d:\d\d:\d\dZ: DUNNO [0-9.]+/s")
        browser.press_until("Tab", 'document.activeElement.id === "rate"')
        browser.press("ArrowLeft")
        browser.wait(f'{text("rate-text")}.includes("Z, 5s ago: DUNNO ")')
        self.assertEqual(browser.run('document.getElementById("rate").getAttribute("aria-valuenow")'), "-5")
        self.assertIn("p50 of the last minute", browser.run(text("figures")))
        self.assertIn("p99 of the last minute", browser.run(text("figures")))
        self.assertEqual(browser.run(text("rate-scale")), "1/s0.5/s0/s")

    def test_numbers(self):
        browser = self.browser()
        self.assertEqual(
            browser.run("[0, 0.25, 9999, 12345, 999949, 999999, 2e8, 18446744073709551615].map(count)"),
            ["0", "0.3", "9999", "12.3 k", "1 M", "1 M", "200 M", "18.4 E"])
        self.assertEqual(
            browser.run("[0, 35, 90, 3900, 86400, 90001].map(duration)"), ["1s", "35s", "1m 30s", "1h 5m", "1d", "1d 2h"])

    def test_block_and_undo(self):
        """In the row: what was done stands beside the key, with the way back, and focus stays."""
        for _ in range(2):
            self.weir.ask(sasl_username="alice", sender="")
        browser = self.browser()
        browser.wait(f"{self.row('now', 'per-user')} !== undefined")
        self.push(browser, "Block alice, per-user")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes('Blocked for 1d')")
        self.assertEqual(browser.run("document.activeElement.textContent"), "Unblock")
        self.assertNotEqual(self.weir.ask(sasl_username="alice", sender=""), "DUNNO")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes('blocked for 1d')")
        self.push(browser, "Undo: alice, per-user")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes('Undone')")
        self.assertEqual(self.weir.ask(sasl_username="alice", sender=""), "DUNNO")
        self.assertRegex(self.weir.limits("audit").stdout, r"unblock alice .*undo block")

    def test_a_browser_with_another_clock(self):
        """Times until a block ends are those of the mail server, also in what an undo writes."""
        self.weir.limits("block", "alice", "--limit", "per-user", "--for", "12h")
        self.weir.ask(sasl_username="alice", sender="")
        browser = self.enterContext(Browser())
        browser.call("Page.addScriptToEvaluateOnNewDocument", source="{ const now = Date.now; Date.now = () => now() + 6 * 3600e3; }")
        browser.open(f"http://127.0.0.1:{self.port}/")
        browser.wait(f"{self.row('now', 'per-user')} !== undefined")
        self.assertRegex(browser.run(f"{self.row('now', 'per-user')}.textContent"), "blocked for (12h|11h 59m)")
        self.push(browser, "Unblock alice, per-user")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes('Unblocked')")
        self.push(browser, "Undo: alice, per-user")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes('Undone')")
        self.assertRegex(self.weir.limits("show", "alice").stdout, r"per-user alice: .*; blocked for (12h|11h 59m)\b")

    def test_raise_and_undo(self):
        """The dialogue proposes twice the rates in force. Undo brings the configured ones back."""
        for _ in range(3):
            self.weir.ask(sasl_username="alice", sender="")
        browser = self.browser()
        browser.wait(f"{self.row('now', 'per-user')} !== undefined")
        self.push(browser, "Raise alice, per-user")
        self.assertEqual(browser.run('document.querySelector("#ask [name=rates]").value'), "6/1h 200/1d")
        browser.press("Enter")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes('Raised to 6/1h, 200/1d for 1d')")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes('3 / 6 per 1h')")
        self.push(browser, "Undo: alice, per-user")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes('3 / 3 per 1h')")
        self.assertNotEqual(self.weir.ask(sasl_username="alice", sender=""), "DUNNO")

    def test_refused_action(self):
        """An intervention that the service refuses is reported beside the key."""
        self.weir.ask(sasl_username="alice", sender="")
        browser = self.browser()
        browser.wait(f"{self.row('now', 'per-user')} !== undefined")
        self.push(browser, "Raise alice, per-user")
        browser.run('document.querySelector("#ask [name=rates]").value = "many"')
        browser.press("Enter")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes(\"Not done: 'many' is not a rate\")")

    def test_search_lists(self):
        """A part of a key lists what contains it, with its use, and opens nothing."""
        for _ in range(2):
            self.weir.ask(sasl_username="alice", sender="alice@example.org")
        browser = self.browser()
        self.search(browser, "lic")
        browser.wait(f'{text("found-title")} === "2 keys contain lic"')
        self.assertIn("per-user: 2 / 3 per 1h, 2 / 100 per 1d", browser.run(text("hits")))
        self.assertIn("trial: 1 / 1 per 1h; shadow", browser.run(text("hits")))
        self.assertIs(browser.run('document.getElementById("key").hidden'), True)
        browser.press_until("Tab", 'document.activeElement.textContent === "alice"')
        browser.press("Enter")
        browser.wait(f'!document.getElementById("key").hidden && {text("key-title")} === "alice"')

    def test_search_opens_an_exact_hit(self):
        self.weir.ask(sasl_username="alice", sender="alice@example.org")
        browser = self.browser()
        self.search(browser, "alice@Example.org")
        browser.wait(f'!document.getElementById("key").hidden && {text("key-title")} === "alice@example.org"')
        self.assertIs(browser.run('document.getElementById("found").hidden'), True)

    def test_unknown_key(self):
        """A key that nothing has counted yet can be blocked in advance."""
        browser = self.browser()
        self.search(browser, "Mallory")
        browser.wait(f'{text("hits")}.includes("not counted yet")')
        browser.press_until("Tab", 'document.activeElement.textContent === "Mallory"')
        browser.press("Enter")
        browser.wait("""document.querySelector('[aria-label="Block per-user"]') !== null""")
        self.push(browser, "Block per-user")
        browser.wait('document.getElementById("ask").open')
        browser.press("Enter")
        browser.wait(f'{text("key-limits")}.includes("Blocked for 1d")')
        self.assertNotEqual(self.weir.ask(sasl_username="mallory"), "DUNNO")

    def test_key_page(self):
        """Opened by its address: history of each window, refusals, clients, queue ids, and what administrators did."""
        for number in range(5):
            self.weir.ask(sasl_username="alice", queue_id=f"4FZ{number}xyz", sender="")
        self.weir.limits("block", "alice", "--limit", "per-user", "--reason", "asked by phone")
        browser = self.browser("#key=alice")
        browser.wait('!document.getElementById("key").hidden')
        self.assertEqual(browser.run("[...document.querySelectorAll('#key-limits h3')].map(title => title.textContent)"), ["per-user", "trial", "per-sender"])
        labels = browser.run("[...document.querySelectorAll('#key-limits svg.history')].map(svg => svg.getAttribute('aria-label'))")
        self.assertEqual(labels[:2], ["recipients in each 1m of the last 1h; peak 3", "recipients in each 24m of the last 1d; peak 3"])
        self.assertRegex(browser.run(text("key-refusals")), "per-user: 2 requests, first .*; answer: DEFER")
        self.assertIn("trial (shadow, has passed): 4 requests", browser.run(text("key-refusals")))
        self.assertEqual(browser.run(text("key-clients")), "client.example.org[192.0.2.1]")
        self.assertIn("block alice (limit per-user", browser.run(text("key-audit")))
        self.assertIn("asked by phone", browser.run(text("key-audit")))
        commands = browser.run("[...document.querySelectorAll('#key-commands code')].map(code => code.textContent)")
        self.assertIn("postqueue -j | grep -E '4FZ4xyz|4FZ3xyz|4FZ2xyz|4FZ1xyz'", commands)
        self.assertIn("grep -F -- alice /var/log/mail.log | tail -n 50", commands)
        # Not by the sender, which a spammer chooses.
        self.assertIn("grep -iE -- 'client=.*sasl_username=alice(,|$)' /var/log/mail.log", "\n".join(commands))
        self.assertGreaterEqual(
            browser.run("document.getElementById('key-title').getBoundingClientRect().top"),
            browser.run("document.querySelector('header').getBoundingClientRect().bottom"))

    def test_commands_are_quoted(self):
        """A key that a peer has chosen is one word of the commands."""
        browser = self.browser()
        for key in ("a'b; rm -rf *", "$(reboot)", "-rf", 'x"y'):
            with self.subTest(key=key):
                for command in browser.run(f"commandsOf({json.dumps(key)}, [], []).map(([, command]) => command)"):
                    words = shlex.split(command.split(" | ")[0])
                    if words[:2] == ["grep", "-iE"]:
                        self.assertRegex(f"from=<{key}>", f"^{words[3]}$")
                        self.assertEqual(words[4], "/var/log/mail.log")
                    elif words[0] == "grep":
                        self.assertEqual(words[:5], ["grep", "-F", "--", key, "/var/log/mail.log"])

    def test_hang(self):
        """A service that hangs is seen within two seconds, and all controls are off until it answers."""
        for _ in range(3):
            self.weir.ask(sasl_username="alice")
        browser = self.browser()
        browser.wait(f"{self.row('now', 'per-user')} !== undefined")
        self.weir.process.send_signal(signal.SIGSTOP)
        try:
            browser.wait(f'{text("state")} === "No answer"')
            self.assertLess(browser.run("mostSilence * 1000 + watchMilliseconds"), 2001)
            self.assertGreater(browser.run("ageOfData()"), browser.run("mostSilence"))
            self.assertTrue(browser.run("""[...document.querySelectorAll("main button, main input, main select")]
                .filter(one => !one.closest("#token")).every(one => one.matches(":disabled"))"""))
            self.assertIn("systemctl status weir", browser.run(text("troubles")))
        finally:
            self.weir.process.send_signal(signal.SIGCONT)
        browser.wait(f'{text("state")} === "OK"')
        self.assertFalse(browser.run("""document.querySelector("#now button").matches(":disabled")"""))
        self.assertIs(browser.run('document.getElementById("trouble").hidden'), True)

    def test_a_rejected_reload(self):
        browser = self.browser()
        self.weir.configure(text="limits: [\n")
        self.weir.reload()
        browser.wait(f'{text("state")} === "Trouble"')
        self.assertRegex(browser.run(text("troubles")), r"^The reload at .* was rejected: .*weir\.yaml:\d+:.* stays in use\.")
        self.weir.configure()
        self.weir.reload()
        browser.wait(f'{text("state")} === "OK"')

    def test_unreachable_service(self):
        browser = self.browser()
        self.weir.stop()
        browser.wait(f'{text("state")} === "No answer"')
        self.assertTrue(browser.run('document.body.classList.contains("stale")'))
        self.assertRegex(browser.run("document.title"), "^! ")
        self.weir.start()
        browser.wait(f'{text("state")} === "OK"')
        self.assertFalse(browser.run('document.body.classList.contains("stale")'))

    def test_a_selection_survives(self):
        """Selected text stays selected while the rows around it change."""
        for _ in range(5):
            self.weir.ask(sender="a@example.org")
        browser = self.browser()
        browser.wait("document.querySelectorAll('#refusals tbody tr').length === 1")
        browser.run('getSelection().selectAllChildren(document.querySelector("#refusals tbody tr").cells[4])')
        selected = browser.run("getSelection().toString()")
        self.assertIn("recipients 3/3", selected)
        for _ in range(3):
            self.weir.ask(sender="a@example.org")
        browser.wait("document.querySelector('#refusals tbody tr').cells[1].textContent === '5'")
        self.assertEqual(browser.run("getSelection().toString()"), selected)

    def test_any_width(self):
        """Only tables scroll sideways, inside their frames. Every frame, table and field has an accessible name."""
        for number in range(60):
            self.weir.ask(sender=f"a-long-name-that-goes-on-and-on@{'sub.' * 20}example.org", sasl_username="alice")
        browser = self.browser("#key=alice")
        browser.wait('!document.getElementById("key").hidden')
        for size in ((360, 740), (1280, 900), (3840, 2160)):
            for dark in (False, True):
                with self.subTest(size=size, dark=dark):
                    browser.resize(*size, dark)
                    self.assertLessEqual(browser.run("document.documentElement.scrollWidth"), size[0])
                    self.assertEqual(browser.run("""[...document.querySelectorAll("table, [role=group], svg[role=img]")].filter(one =>
                        !one.getAttribute("aria-label") && !document.getElementById(one.getAttribute("aria-labelledby"))).length"""), 0)
                    self.assertGreater(len(browser.screenshot()), 10_000)
                    # Contrast of graphics with their background (WCAG 2.2, 1.4.11).
                    for name in ("--bar", "--warn", "--bad"):
                        colours = browser.run(f"""["{name}", "--card", "--ground"].map(name =>
                            getComputedStyle(document.documentElement).getPropertyValue(name).trim())""")
                        for ground in colours[1:]:
                            self.assertGreaterEqual(contrast(colours[0], ground), 3, (name, ground))

    def test_axe(self):
        """axe-core finds nothing, light and dark, with a key, a search, feedback and the dialogue open, and while stale."""
        for _ in range(8):
            self.weir.ask(sasl_username="alice", sender="alice@example.org")
        script = axe_script()
        browser = self.browser("#key=alice")
        browser.wait('!document.getElementById("key").hidden')
        self.search(browser, "exam")
        browser.wait('!document.getElementById("found").hidden')
        self.push(browser, "Block alice, per-user")
        browser.wait(f"{self.row('now', 'per-user')}.textContent.includes('Blocked for 1d')")
        browser.run(script + "; 0")

        def violations():
            # axe takes nothing in a disabled fieldset for focusable, which browsers do. `is_scrollable_by_keyboard` looks.
            return browser.run("""axe.run({ rules: { "scrollable-region-focusable": { enabled: !controls.disabled } } })
                .then(result => result.violations.map(one =>
                    [one.id, one.nodes.map(node => node.html + ": " + node.failureSummary)]))""")

        def is_scrollable_by_keyboard():
            return browser.run("""[...document.querySelectorAll(".wide")].filter(one => one.checkVisibility()).every(one => {
                one.focus();
                return document.activeElement === one;
            })""")

        for width in (390, 1024, 1600):
            for dark in (False, True):
                with self.subTest(width=width, dark=dark):
                    browser.resize(width, 900, dark)
                    self.assertEqual(violations(), [])
        self.push(browser, "Raise alice, per-user")
        self.assertEqual(violations(), [])
        self.weir.stop()
        browser.wait(f'{text("state")} === "No answer"')
        self.assertEqual(violations(), [])
        browser.resize(390, 900, False)
        self.assertEqual(violations(), [])
        self.assertTrue(is_scrollable_by_keyboard())


class Bounds(unittest.TestCase):
    def test_many_limits(self):
        """What the page fetches does not grow with the number of limits."""
        sizes = []
        for number in (50, 2000):
            limits = [{**LIMIT, "name": f"limit-{one}", "when": {"sender": f"user{one}@example.org"}} for one in range(number)]
            with WeirService(limits=limits) as weir:
                for one in range(40):
                    for _ in range(5):
                        weir.ask(sender=f"user{one}@example.org")
                status, body, _ = get(UnixConnection(weir.admin_socket), "/overview")
                overview = json.loads(body)
                self.assertEqual((status, overview["limitCount"]), (200, number))
                self.assertEqual(len(overview["limits"]), min(100, number))
                self.assertEqual(len(overview["refusals"]), 40)
                self.assertLessEqual(len(overview["standings"]), 60)
                self.assertEqual(get(UnixConnection(weir.admin_socket), "/key?key=new@example.org")[0], 200)
                sizes.append(len(body))
        self.assertLess(sizes[1], sizes[0] + 20_000)


class Token(unittest.TestCase):
    def test_page_asks_for_the_token(self):
        """On a loopback port. A wrong token is refused; the right one is asked for once."""
        weir, port = WeirService(limits=[LIMIT]), free_port()
        weir.config["listen"]["admin"] = f"inet:127.0.0.1:{port}"
        weir.admin_socket = port
        self.enterContext(weir)
        browser = self.enterContext(Browser())
        browser.open(f"http://127.0.0.1:{port}/")
        state = 'document.getElementById("state").textContent'
        browser.wait(f'{state} === "missing token"')
        browser.press_until("Tab", 'document.activeElement.name === "token"')
        browser.type("x")
        browser.press("Enter")
        browser.wait(f'{state} === "wrong token"')
        browser.run("document.activeElement.select()")
        browser.type((weir.directory / "admin-token").read_text())
        browser.press("Enter")
        browser.wait(f'{state} === "OK"')
        self.assertTrue(browser.run('document.getElementById("token").hidden'))
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait(f'{state} === "OK"')


def text(id):
    """The script for the text of an element."""
    return f'document.getElementById("{id}").textContent'


def axe_script():
    """axe-core, as the wheel of a Python package brings it along; tests keep it in the cache of the user."""
    cache = pathlib.Path.home() / ".cache" / "weir-tests"
    wheel = cache / f"axe_playwright_python-{AXE}-py3-none-any.whl"
    if not wheel.exists():
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", cache, f"axe-playwright-python=={AXE}"],
            timeout=120)
    with zipfile.ZipFile(wheel) as files:
        return files.read("axe_playwright_python/axe.min.js").decode()


def contrast(one, other):
    """The contrast of two colours, #rgb or #rrggbb (WCAG 2.2)."""
    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
        parts = [int(digits[start:start + 2], 16) / 255 for start in (0, 2, 4)]
        return sum(weight * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
                   for weight, part in zip((0.2126, 0.7152, 0.0722), parts))
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def tunnel(port, path):
    """Forwards a TCP port to a UNIX socket, like `ssh -L`."""
    listener = socket.create_server(("127.0.0.1", port))

    def copy(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def relay(client):
        with client, socket.socket(socket.AF_UNIX) as server:
            try:
                server.connect(str(path))
            except OSError:
                return
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            back.join()

    while True:
        threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    unittest.main()
