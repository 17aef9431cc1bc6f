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

    def test_folder(self):
        for name in ("a", "b/c", "b/tmp/d", "tmp/e", ".f"):
            self.file(f"folder/{name}")
        self.assertEqual(self.names(self.directory / "folder"), ["folder/a", "folder/b/c", "folder/b/tmp/d"])

    def test_missing_file_is_named_and_the_others_checked(self):
        done = self.check(self.directory / "missing", self.file("there"))
        self.assertEqual(done.returncode, 66)
        self.assertIn(f"{self.directory}/missing: No such file or directory", done.stderr)
        self.assertIn(f"{self.directory}/there: changed", done.stdout)

    def test_standard_input(self):
        self.assertEqual(self.names("-", input=MESSAGE.decode()), ["-"])

    def test_name_that_is_not_utf8(self):
        path = self.file(b"\xff\xe9.eml")
        self.assertEqual(self.names(path), ["\ufffd\ufffd.eml"])
        self.assertEqual(self.names(self.file(b"of/\xe9.eml").parent), ["of/\ufffd.eml"])

    def test_change_without_a_match_is_shown(self):
        done = self.check(self.file("verdict", b"X-Weir-Verdict: HOLD\nX-A: b\n\nbody\n"))
        self.assertIn("-X-Weir-Verdict: HOLD", done.stdout)

    def test_difference_of_many_edits(self):
        lines = "".join(f"Subject: {number}\n" for number in range(3))
        done = self.check(self.file("many", (lines + "X-A: 1\nX-B: 2\nX-C: 3\nX-D: 4\nX-E: 5\nSubject: last\n\nbody\n").encode()))
        difference = done.stdout[done.stdout.index("@@"):].splitlines()
        self.assertEqual(difference, [
            "@@ line 1 @@", "-Subject: 0", "+Subject: [0]", "-Subject: 1", "+Subject: [1]", "-Subject: 2", "+Subject: [2]",
            " X-A: 1", " X-B: 2", "@@ line 7 @@", " X-D: 4", " X-E: 5", "-Subject: last", "+Subject: [last]", " ", " body"])


if __name__ == "__main__":
    unittest.main()
