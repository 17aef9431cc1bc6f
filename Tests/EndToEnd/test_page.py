# SPDX-License-Identifier: Apache-2.0
"""The page of the admin listener."""
import re
import shutil
import socket
import subprocess
import threading
import unittest

from browser import Browser
from postfix import free_port
from weir import ROOT, WeirService

LIMIT = {"name": "per-sender", "key": ["sender"], "count": "recipients", "rates": ["3/1h"]}
HOSTILE = "<script>alert(1)</script>@example.org"
FILES = ROOT / "Sources/Service/Admin/Page"


class Files(unittest.TestCase):
    @unittest.skipUnless(shutil.which("node"), "needs node")
    def test_scripts_parse(self):
        for script in FILES.glob("*.js"):
            checked = subprocess.run(["node", "--check", script], capture_output=True, text=True, check=False)
            self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def test_scripts_use_ids_of_the_page(self):
        """Every id that a script or the style sheet uses is in the page, and no id is there twice."""
        ids = re.findall(r'\bid="([^"]+)"', (FILES / "page.html").read_text())
        self.assertEqual(len(ids), len(set(ids)))
        script = (FILES / "page.js").read_text() + (FILES / "dom.js").read_text()
        used = set(re.findall(r'\b(?:element|rows|figures)\("([^"]+)"', script))
        used |= set(re.findall(r"#([a-z]+)[ ,{]", re.sub(r"{[^{}]*}", "{}", (FILES / "page.css").read_text())))
        self.assertGreater(len(used), 10)
        self.assertLessEqual(used, set(ids))


class Page(unittest.TestCase):
    """In a headless Chromium, by keyboard alone."""

    USER = {"name": "per-user", "key": ["sasl_username"], "count": "recipients", "rates": ["3/1h", "100/1d"]}

    def setUp(self):
        self.weir = self.enterContext(WeirService(limits=[LIMIT, self.USER]))
        self.port = free_port()
        threading.Thread(target=tunnel, args=(self.port, self.weir.admin_socket), daemon=True).start()

    def browser(self):
        browser = self.enterContext(Browser())
        browser.open(f"http://127.0.0.1:{self.port}/")
        browser.wait('document.getElementById("state").textContent === "ledger OK"')
        return browser

    def search(self, browser, text):
        browser.press_until("Tab", 'document.activeElement.name === "text"')
        browser.run("document.activeElement.select()")
        browser.type(text)
        browser.press("Enter")

    def push(self, browser, name):
        browser.press_until("Tab", f'document.activeElement.getAttribute("aria-label") === "{name}"')
        browser.press("Enter")

    def test_what_it_shows(self):
        """Figures and refusals; markup from a peer appears as text."""
        for _ in range(5):
            self.weir.ask(sender=HOSTILE)
        browser = self.browser()
        browser.wait('document.querySelectorAll("#refusals tbody tr").length === 2')
        page = browser.run("document.documentElement.outerHTML")
        self.assertIn("&lt;script&gt;alert(1)&lt;/script&gt;@example.org", page)
        self.assertNotIn("<script>alert", page)
        self.assertIn("recipients 3/3 per 1h", page)
        self.assertIn("DEFER: ", browser.run('document.getElementById("legend").textContent'))
        self.assertIn("3/3, full", browser.run('document.getElementById("top").textContent'))
        self.assertIn(str(self.weir.ledger), browser.run('document.getElementById("ledger").textContent'))

    def test_any_width(self):
        """Only tables scroll sideways, inside their frames. Every frame, table and field has an accessible name."""
        for number in range(60):
            self.weir.ask(sender=f"a-long-name-that-goes-on-and-on@{'sub.' * 20}example.org", sasl_username="alice")
        browser = self.browser()
        self.search(browser, "alice")
        browser.wait('document.querySelectorAll("fieldset").length === 2')
        for size in ((360, 740), (1280, 900), (3840, 2160)):
            for dark in (False, True):
                with self.subTest(size=size, dark=dark):
                    browser.resize(*size, dark)
                    self.assertLessEqual(browser.run("document.documentElement.scrollWidth"), size[0])
                    self.assertEqual(browser.run("""[...document.querySelectorAll("table, [role=group], svg[role=img]")].filter(one =>
                        !one.getAttribute("aria-label") && !document.getElementById(one.getAttribute("aria-labelledby"))).length"""), 0)
                    names = browser.run("""[...document.querySelectorAll("fieldset button")].map(one => one.getAttribute("aria-label"))""")
                    self.assertEqual(len(set(names)), 8)
                    self.assertGreater(len(browser.screenshot()), 10_000)
                    # Contrast of graphics with their background (WCAG 2.2, 1.4.11).
                    for name in ("--bar", "--warn", "--bad"):
                        colours = browser.run(f"""["{name}", "--card", "--ground"].map(name =>
                            getComputedStyle(document.documentElement).getPropertyValue(name).trim())""")
                        for ground in colours[1:]:
                            self.assertGreaterEqual(contrast(colours[0], ground), 3, (name, ground))

    def test_keyboard(self):
        """Search, block, raise, unblock and reset: each reports its result and keeps the focus."""
        for _ in range(2):
            self.weir.ask(sasl_username="alice")
        browser = self.browser()
        self.search(browser, "lic")
        browser.wait('document.querySelector("#found button")?.textContent === "alice"')
        browser.press_until("Tab", 'document.activeElement.textContent === "alice"')
        browser.press("Enter")
        said = 'document.getElementById("said").textContent'

        def is_still_on(name):
            self.assertEqual(browser.run('document.activeElement.getAttribute("aria-label")'), name)

        browser.wait("""document.querySelector('[aria-label="Block per-user"]') !== null""")
        browser.press_until("Tab", 'document.activeElement.getAttribute("aria-label") === "Reason, per-user"')
        browser.type("spam")
        self.push(browser, "Block per-user")
        browser.wait(f'{said} === "block done for per-user: alice"')
        is_still_on("Block per-user")
        self.assertNotEqual(self.weir.ask(sasl_username="alice"), "DUNNO")
        self.assertRegex(self.weir.limits("audit").stdout, r"block alice \(limit per-user, for 86400s\).*spam")
        # The open key is refreshed, and the typed text stays.
        browser.wait('document.getElementById("key").textContent.includes("refused requests: 1")')
        self.assertEqual(browser.run("""document.querySelector('[aria-label="Reason, per-user"]').value"""), "spam")
        browser.run("document.querySelector('[aria-label=\"Rates, per-user\"]').value = '50/1h'")
        browser.run("document.querySelector('[aria-label=\"Reason, per-user\"]').focus()")
        self.push(browser, "Raise per-user")
        browser.wait(f'{said}.includes("still blocked for 23h: weir limits unblock alice")')
        is_still_on("Raise per-user")
        self.push(browser, "Unblock per-user")
        browser.wait(f'{said} === "unblock done for per-user: alice"')
        self.assertEqual(self.weir.ask(sasl_username="alice"), "DUNNO")
        browser.run("document.querySelector('[aria-label=\"Reason, per-user\"]').focus()")
        self.push(browser, "Reset per-user")
        browser.wait(f'{said} === "reset done for per-user: alice"')
        self.assertEqual(self.weir.used("alice", "per-user"), 0)

    def test_unknown_key(self):
        browser = self.browser()
        self.search(browser, "Mallory")
        browser.wait("""document.querySelector('[aria-label="Block per-user"]') !== null""")
        self.push(browser, "Block per-user")
        browser.wait('document.getElementById("said").textContent === "block done for per-user: mallory"')
        self.assertNotEqual(self.weir.ask(sasl_username="mallory"), "DUNNO")

    def test_a_selection_survives(self):
        """Selected text stays selected while the rows around it change."""
        for _ in range(5):
            self.weir.ask(sender="a@example.org")
        browser = self.browser()
        browser.wait('document.querySelectorAll("#refusals tbody tr").length === 2')
        browser.run('getSelection().selectAllChildren(document.querySelector("#refusals tbody tr").cells[3])')
        selected = browser.run("getSelection().toString()")
        self.assertIn("recipients 3/3", selected)
        for _ in range(3):
            self.weir.ask(sender="a@example.org")
        browser.wait('document.querySelectorAll("#refusals tbody tr").length === 5')
        self.assertEqual(browser.run("getSelection().toString()"), selected)

    def test_unreachable_service(self):
        browser = self.browser()
        self.weir.stop()
        browser.wait('/^no response since [0-9:]+, retrying$/.test(document.getElementById("state").textContent)')
        self.assertEqual(browser.run('document.querySelector("main").className'), "stale")
        self.weir.start()
        browser.wait('document.getElementById("state").textContent === "ledger OK"')
        self.assertEqual(browser.run('document.querySelector("main").className'), "")


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
        browser.wait(f'{state} === "ledger OK"')
        self.assertTrue(browser.run('document.getElementById("token").hidden'))
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait(f'{state} === "ledger OK"')


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
