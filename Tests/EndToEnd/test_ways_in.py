# SPDX-License-Identifier: Apache-2.0
"""The milter, the SMTP filter and the pipe give identical results, except for trace headers."""
import os
import pathlib
import re
import subprocess
import unittest

from filtering import FilterService, filtered_postfix
from milter import milter_postfix
from postfix import SMTP, SMTPSink, free_port, wait_until
from public_forms import Forms
from ways_in import OPEN, normal, wait_settled
from weir import BINARY, ENVIRONMENT, ROOT

HEADER = """\
/^To: undisclosed/ WARN
/^X-Old: (.*)/ REPLACE X-New: $1
/^X-Gone:/ IGNORE
/^X-Mark:/ PREPEND X-Above: put in
/^Content-Disposition: (.*)evil(.*)/ REPLACE Content-Disposition: ${1}good${2}
/^X-Nested-Gone:/ IGNORE
"""
BODY = "/^drop/ IGNORE\n/^replace (.*)/ REPLACE replaced $1\n/^before/ PREPEND put in\n"
# Lines that identify a message and are never changed.
NUMBER = "X-Number"


def corpus():
    """Plain, folded and MIME messages with matches in each place; then the messages of the scanner's fixtures."""
    plain = "From: a@example.org\nTo: b@example.com\nX-Old: 1\nX-Gone: 2\nX-Gone: 3\nX-Mark: 4\nSubject: folded\n\tand more\n\n"
    yield plain + "keep\ndrop it\nreplace this\nbefore\n.\n..\n.dots\n\nlast\n"
    yield "From: a@example.org\nTo: undisclosed-recipients:;\nSubject: none\n\nbody\n"
    yield "From: a@example.org\nTo: b@example.com\nSubject: no body\n\n"
    yield "From: a@example.org\nTo: b@example.com\nX-Gone: last header\n\n" + "x" * 900 + "\n" + "drop\n" * 50
    yield (
        "From: a@example.org\nTo: b@example.com\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b1\n\npreamble\n--b1\n"
        "Content-Type: text/plain\nContent-Disposition: attachment; filename=evil.txt\n\ndrop\nkeep\n--b1\n"
        "Content-Type: message/rfc822\n\nFrom: c@example.org\nX-Nested-Gone: x\nSubject: nested\n\nreplace nested\n--b1--\nbefore the end\n")
    yield "From: a@example.org\nTo: b@example.com\nSubject: long\n\n" + "".join(f"line {n} " + "y" * 70 + "\n" for n in range(8_000)) + "drop\nend\n"
    for file in sorted((ROOT / "Tests" / "Fixtures" / "mime").rglob("*.eml")):
        text = file.read_bytes()
        # Leave out messages that sendmail(1) or SMTP would change.
        is_plain = text.isascii() and not re.search(rb"[\0\r]", text) and len(max(text.split(b"\n"), key=len)) < 900
        if is_plain and re.match(rb"[!-9;-~]+:", text):
            yield text.decode()


def by_number(messages):
    found = {}
    for message in messages:
        content = message["content"].replace(b"\r\n", b"\n")
        number = re.search(rb"^" + NUMBER.encode() + rb": (\d+)$", content, re.M)
        found[int(number[1])] = without_trace(content)
    return found


def without_trace(content):
    """Removes Received: and the headers that Postfix adds to mail without them."""
    head, _, body = content.partition(b"\n\n")
    headers = re.split(rb"\n(?![ \t])", head)
    return b"\n".join(h for h in headers if not re.match(rb"(Received|Message-Id|Date|From):", h)) + b"\n\n" + body


class SameResult(unittest.TestCase):
    def test_every_way_in(self):
        messages = [f"{NUMBER}: {number}\n{text}" for number, text in enumerate(corpus())]
        self.assertGreater(len(messages), 6)
        main = {"message_size_limit": "20000000"}
        results = {}
        for name, way in (("milter", milter_postfix), ("filter", filtered_postfix)):
            with SMTPSink() as sink, way(sink.port, HEADER, BODY, main=main) as (postfix, weir):
                for text in messages:
                    postfix.sendmail("a@example.org", ["b@example.com"], text)
                wait_until(lambda: len(sink.messages()) == len(messages), lambda: f"{name}\n{postfix.log()}\n{weir.log()}", timeout=120)
                postfix.wait_drained()
                results[name] = by_number(sink.messages())
                if name == "filter":
                    taken = weir.directory / "taken"
                    command = pathlib.Path(weir.directory / "take")
                    command.write_text(f"#!/bin/sh\nexec cat > {taken}\n")
                    command.chmod(0o755)
                    results["pipe"] = {}
                    for number, text in enumerate(messages):
                        subprocess.run(
                            [BINARY, "filter", "--config", weir.config_file, "--to", command, "-f", "a@example.org", "--", "b@example.com"],
                            input=text.encode(), check=True, timeout=120, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
                        results["pipe"][number] = without_trace(taken.read_bytes())
        for number, text in enumerate(messages):
            with self.subTest(number=number):
                self.assertEqual(results["milter"][number], results["filter"][number])
                self.assertEqual(results["milter"][number], results["pipe"][number])
        self.assertIn(b"X-Above: put in\nX-Mark: 4", results["milter"][0])
        self.assertIn(b"keep\nreplaced this\nput in\nbefore\n.\n..\n.dots\n\nlast\n", results["milter"][0])
        self.assertNotIn(b"undisclosed", results["milter"][1])
        self.assertIn(b"filename=good.txt\n\nkeep\n", results["milter"][4])

    def test_long_headers_are_passed_on_whole(self):
        """If Postfix's own limit is larger. The log says that Weir has not checked all of the header."""
        header = "X-Long: begin" + "".join(f"\n {number} " + "x" * 900 for number in range(150)) + "\n end"
        message = f"To: b@example.com\n{header}\nSubject: x\n\nbody\n"
        for way in ("after_queue", "before_queue"):
            with self.subTest(way=way), SMTPSink() as sink, filtered_postfix(
                    sink.port, "/^X-Long:/ WARN\n", listener={"mode": way}, before_queue=way == "before_queue",
                    main={"header_size_limit": "300000"}) as (postfix, weir):
                with SMTP(postfix.port) as client:
                    self.assertEqual(client.mail("a@example.org", ["b@example.com"], message)[-1][0], 250)
                wait_until(sink.messages, postfix.log)
                self.assertIn(header.encode(), sink.messages()[0]["content"])
                weir.wait_logged("headers longer than header_size_limit (102400), at offset ")
        weir = FilterService(free_port(), "/^X-Long:/ WARN\n")
        self.addCleanup(weir.__exit__)
        weir.configure()
        taken, command = weir.directory / "taken", weir.directory / "take"
        command.write_text(f"#!/bin/sh\nexec cat > {taken}\n")
        command.chmod(0o755)
        subprocess.run(
            [BINARY, "filter", "--config", weir.config_file, "--to", command, "-f", "a@example.org", "--", "b@example.com"],
            input=message.encode(), check=True, timeout=120, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        self.assertEqual(taken.read_text(), message)


def lines(content):
    return content.decode("latin-1").splitlines(keepends=True)


class AsPostfix(unittest.TestCase):
    """Messages in public forms arrive with the same bytes as with Postfix's own checks.

    Environment: WEIR_SEED where to start, WEIR_MESSAGES how many.
    """

    HEADER = (
        "/^X-Number:/ DUNNO\n/^(Received|X-Mailer|X-Spam-[^:]*):.*(host3|\\[v1\\]|ham)/ IGNORE\n/^Subject: (.*)winner(.*)/ REPLACE Subject: $1[spam]$2\n"
        "/^Content-(Type|Disposition):(.*)name=\"?([^\"]*\\.(exe|scr))\"?(.*)/ REPLACE Content-$1:${2}name=\"$3.txt\"$5\n"
        "/^List-Id:/ PREPEND X-List: yes\n/^Auto-Submitted:/ WARN automatic\n/^(Errors-To|X-Empty|X-Blank):/ IGNORE\n"
        "/^Content-Description: Delivery/ REPLACE Content-Description: delivery report\n/^DKIM-Signature:/ INFO signed\n")
    BODY = (
        "/^> (.*)invoice/ REPLACE > ${1}bill\n/unknown/ PREPEND [a bounce]\n/^(\\.|-- )$/ IGNORE\n/example\\.com\\/u/ WARN link\n"
        "/^SUMMARY:/ REPLACE SUMMARY:hidden\n/^[A-Za-z0-9+\\/]{60,}$/ DUNNO\n/free .*budget/ IGNORE\n")

    def test_public_forms(self):
        seed, count = int(os.environ.get("WEIR_SEED", "1")), int(os.environ.get("WEIR_MESSAGES", "300"))
        forms = Forms(seed)
        messages = [forms.message(number) for number in range(count)]
        results = {}
        for way, open_way in OPEN.items():
            with SMTPSink() as sink, open_way(sink.port, self.HEADER, self.BODY, {}) as (postfix, weir):
                with SMTP(postfix.port) as client:
                    for number, message in enumerate(messages):
                        client.command(f"MAIL FROM:<{number}@example.org> BODY=8BITMIME", 250)
                        client.command("RCPT TO:<b@example.com>", 250)
                        client.command("DATA", 354)
                        if not message.endswith(b"\n"):
                            message += b"\n"
                        client.socket.sendall(re.sub(rb"(?m)^\.", b"..", message).replace(b"\n", b"\r\n") + b".\r\n")
                        client.expect(250)
                wait_until(lambda: len(sink.messages()) >= count, lambda: f"{way}\n{postfix.log()}", timeout=120, interval=1)
                wait_settled(postfix, weir)
                delivered = [(message["sender"], normal(message["content"])) for message in sink.messages()]
            self.assertEqual(len(delivered), count, way)
            results[way] = dict(delivered)
        for sender, alone in results["postfix"].items():
            for way in OPEN:
                self.assertEqual(lines(results[way][sender]), lines(alone), f"{way}, seed {seed}, message {sender}")
        # The rules found something.
        changed = b"".join(results["postfix"].values())
        for text in (b"[spam]", b".exe.txt", b"X-List: yes", b"[a bounce]", b"SUMMARY:hidden", b"bill"):
            self.assertIn(text, changed)


if __name__ == "__main__":
    unittest.main()
