# SPDX-License-Identifier: Apache-2.0
"""`weir check` on files, mbox files, Maildirs, directories and standard input."""
import json
import os
import pathlib
import tempfile
import unittest

from weir import weir

MESSAGE = b"Subject: spam\n\nbody\n"


class Check(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="weir-test-")))
        (self.directory / "header").write_text("/^Subject: (.*)/ REPLACE Subject: [$1]\n")
        (self.directory / "weir.yaml").write_text(json.dumps({"checks": {"header": [f"pcre:{self.directory}/header"]}}))

    def file(self, name, content=MESSAGE):
        path = self.directory / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def check(self, *arguments, **options):
        return weir("check", "--config", self.directory / "weir.yaml", *arguments, check=False, **options)

    def names(self, *arguments, **options):
        done = self.check("--json", *arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertTrue(all(message["edits"] for message in found), found)
        return [message["name"].removeprefix(f"{self.directory}/") for message in found]

    def test_mbox_with_either_line_end(self):
        for end in (b"\n", b"\r\n"):
            mbox = b"From a\n" + MESSAGE + b"\nFrom b\n" + MESSAGE + b"From no separator\n\nFrom c\n" + MESSAGE
            path = self.file("mbox", mbox.replace(b"\n", end))
            self.assertEqual(self.names(path), ["mbox:1", "mbox:2", "mbox:3"])

    def test_maildir_with_its_folders(self):
        for name in ("cur/1:2,S", "new/2", "tmp/3", ".Sub/cur/4:2,", ".Sub/new/5", ".Sub/tmp/6", ".Sub/dovecot.index", "dovecot.index",
                     "dovecot-uidlist", ".hidden"):
            self.file(f"mail/{name}")
        for name in ("mail/.Sub/new", "mail/.Other/cur", "mail/.Other/new"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        expected = ["mail/cur/1:2,S", "mail/new/2", "mail/.Sub/cur/4:2,", "mail/.Sub/new/5"]
        self.assertEqual(self.names(self.directory / "mail"), expected)
        # The same in a directory of Maildirs.
        (self.directory / "mail").rename(self.directory / "user")
        (self.directory / "home").mkdir()
        (self.directory / "user").rename(self.directory / "home/user")
        self.assertEqual(self.names(self.directory / "home"), [name.replace("mail/", "home/user/", 1) for name in expected])

    def test_tag(self):
        """In the text and in the JSON; a bad one is a warning of check-config with file and line."""
        (self.directory / "header").write_text("/^X:/ WARN\n# tag: spam\n/^Subject: (.*)/ REPLACE Subject: [$1]\n# tag: a b\n/^Y:/ WARN\n")
        path = self.file("one", b"X: 1\n" + MESSAGE)
        (found,) = [json.loads(line) for line in self.check("--json", path).stdout.splitlines()]
        self.assertEqual([match.get("tag") for match in found["matches"]], [None, "spam"])
        self.assertIn(f"header_checks offset 5 pcre:{self.directory}/header:3, tag spam: REPLACE", self.check(path).stdout)
        done = weir("check-config", "--config", self.directory / "weir.yaml", check=False)
        self.assertIn("/header:4: warning: checks: tag \"a b\" has spaces, or characters that are not printable", done.stdout + done.stderr)

    def test_folder(self):
        for name in ("a", "b/c", "b/tmp/d", "tmp/e", ".f"):
            self.file(f"folder/{name}")
        self.assertEqual(self.names(self.directory / "folder"), ["folder/a", "folder/b/c", "folder/b/tmp/d"])

    def test_folder_without_messages(self):
        empty = self.directory / "empty"
        empty.mkdir()
        self.assertEqual(self.check(empty).stdout, "0 messages, 0 with findings\n")

    def test_missing_file_is_named_and_the_others_checked(self):
        done = self.check(self.directory / "missing", self.file("there"))
        self.assertEqual(done.returncode, 66)
        self.assertIn(f"{self.directory}/missing: No such file or directory", done.stderr)
        self.assertIn(f"{self.directory}/there: changed", done.stdout)

    def test_many_bytes_are_checked_by_the_fast_pass(self):
        """However few files there are. Without it, the rule is tried where its keyword does not occur, and gives up."""
        (self.directory / "header").write_text("/^X: (a+)+needleD/ WARN\n")
        (self.directory / "weir.yaml").write_text(json.dumps(
            {"checks": {"header": [f"pcre:{self.directory}/header"], "match_limit": 1000, "cache": str(self.directory / "cache")}}))
        message = b"X: " + b"a" * 40 + b" D\n\n" + 20 * (49 * b"x" + b"\n")

        def gave_up(content):
            done = self.check("--json", self.file("mbox", content))
            self.assertEqual(done.returncode, 0, done.stderr)
            return [bool(json.loads(line)["notes"]) for line in done.stdout.splitlines()]
        self.assertEqual(gave_up(3 * (b"From a\n" + message + b"\n")), [True] * 3)
        many = gave_up(200 * (b"From a\n" + message + b"\n"))
        self.assertEqual(len(many), 200)
        self.assertEqual((many[0], many[100:]), (True, [False] * 100))
        self.assertEqual(gave_up(message + 3000 * (49 * b"x" + b"\n")), [False])

    def test_standard_input(self):
        self.assertEqual(self.names("-", input=MESSAGE.decode()), ["-"])

    def test_name_that_is_not_utf8(self):
        path = self.file(b"\xff\xe9.eml")
        self.assertEqual(self.names(path), ["\ufffd\ufffd.eml"])
        self.assertEqual(self.names(self.file(b"of/\xe9.eml").parent), ["of/\ufffd.eml"])

    def test_change_without_a_match_is_shown(self):
        done = self.check(self.file("verdict", b"X-Weir-Verdict: HOLD\nX-A: b\n\nbody\n"))
        self.assertIn("-X-Weir-Verdict: HOLD", done.stdout)

    # What each way in shows of a message that came from own.example.org.
    STORED = (
        b"Return-Path: <a@example.org>\nReceived: from own.example.org by mx.example.org\n\t(Postfix) with ESMTPSA\n"
        b"Received: from old.example.org by own.example.org\nBcc: c@example.org\nSubject: x\nX-Long: begin\n "
        + b"y" * 60_000 + b"\n end\n\nbody\n")
    RULES = (
        "/^Return-Path:/ WARN path\n/^Received:.*ESMTPSA/ IGNORE\n/^Received: from old/ REPLACE Received: new\n"
        "/^Bcc:/ HOLD\n/^X-Long:(?s:.*)end$/ PREPEND X-End: seen\n/^Subject: (.*)/ FILTER smtp:[192.0.2.1]\n")

    def check_as(self, way, *arguments):
        (self.directory / "header").write_text(self.RULES)
        return self.check("--as", way, *arguments, self.file("stored", self.STORED))

    def test_what_a_way_in_does_not_see(self):
        for way, lines in {"milter": [1, 2, 4, 5], "filter": [1, 4], "proxy": [], "pipe": [1, 4]}.items():
            with self.subTest(way=way):
                done = self.check_as(way, "--json")
                self.assertEqual(done.returncode, 0, done.stderr)
                found = json.loads(done.stdout)
                self.assertEqual([rule["line"] for header in found["unseen"] for rule in header["rules"]], lines)
                applied = [match["line"] for match in found["matches"]]
                self.assertEqual(sorted(applied + lines), [1, 2, 3, 4, 5, 6])
                # Offsets are those of the message.
                for match in found["matches"]:
                    self.assertTrue(self.STORED[match["offset"]:].startswith(match["content"][:10].encode()), match)
                for header in found["unseen"]:
                    self.assertTrue(self.STORED[header["offset"]:].startswith(header["content"].encode()), header)
                self.assertEqual(len(found["impossible"]), {"milter": 1, "filter": 0, "proxy": 0, "pipe": 1}[way])

    def test_as_in_words(self):
        done = self.check_as("milter")
        table = f"pcre:{self.directory}/header"
        for text in (
                "  not seen: offset 29: Postfix adds it, and does not show it to a milter\n    Received: from own.example.org by mx.example.org\n"
                f"    can't apply: {table}:2: IGNORE\n",
                "Postfix shows a milter only the first 60,000 bytes of a header\n",
                "  impossible: a milter can't carry out FILTER",
                f"as milter, {table}:5 can't apply to 1 message\n",
                "with ESMTPSA\n-Received: from old.example.org by own.example.org\n+Received: new\n"):
            self.assertIn(text, done.stdout)
        self.assertNotIn("-Received: from own", done.stdout)
        self.assertNotIn("not seen", self.check_as("proxy").stdout)

    def test_unknown_way(self):
        done = self.check_as("sieve")
        self.assertEqual(done.returncode, 64)
        self.assertIn("sieve", done.stderr)

    def test_difference_of_many_edits(self):
        lines = "".join(f"Subject: {number}\n" for number in range(3))
        done = self.check(self.file("many", (lines + "X-A: 1\nX-B: 2\nX-C: 3\nX-D: 4\nX-E: 5\nSubject: last\n\nbody\n").encode()))
        difference = done.stdout[done.stdout.index("@@"):].splitlines()
        self.assertEqual(difference, [
            "@@ line 1 @@", "-Subject: 0", "+Subject: [0]", "-Subject: 1", "+Subject: [1]", "-Subject: 2", "+Subject: [2]",
            " X-A: 1", " X-B: 2", "@@ line 7 @@", " X-D: 4", " X-E: 5", "-Subject: last", "+Subject: [last]", " ", " body"])


if __name__ == "__main__":
    unittest.main()
