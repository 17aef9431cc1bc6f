# SPDX-License-Identifier: Apache-2.0
"""The SMTP filter between two Postfix instances with the lines of conf/postfix/master.cf, and `weir filter`."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from filtering import FilterService, filtered_postfix, services
from postfix import (
    COMMANDS, DEFAULT_TIMEOUT, NEEDS_ROOT, SMTP, PrivatePostfix, SMTPSink, free_port, is_running, run, wait_until)
from weir import BINARY, ENVIRONMENT


def submit(postfix, content, sender="a@example.org", recipients=("b@example.com",)):
    return postfix.sendmail(sender, list(recipients), content)


def smtp(postfix, content, *options):
    return postfix.swaks("--from", "a@example.org", "--to", "b@example.com", "--data", content.replace("\n", "\\n"), *options)


class AfterQueue(unittest.TestCase):
    def test_content_arrives_unchanged(self):
        content = "Subject: x\nTo: b@example.com\nX-Long: " + "y" * 900 + "\n\n.\n..\nbody\n" + "z" * 900 + "\n"
        with SMTPSink() as sink, filtered_postfix(sink.port) as (postfix, weir):
            submit(postfix, content)
            wait_until(sink.messages, "the message arrived")
            postfix.wait_drained()
            (message,) = sink.messages()
            self.assertTrue(message["content"].endswith(content.split("\n\n", 1)[1].encode().rstrip(b"\n")) or content.split("\n\n", 1)[1].encode().rstrip() in message["content"])
            for line in content.split("\n\n")[0].split("\n"):
                self.assertIn(line.encode(), message["content"])
            self.assertEqual(message["recipients"], ["b@example.com"])

    def test_undisclosed_recipients_are_not_added_again(self):
        """Even if Postfix adds the header by itself, as older versions and many sites do, and would add it again."""
        old = {"undisclosed_recipients_header": "To: undisclosed-recipients:;"}
        with SMTPSink() as sink, filtered_postfix(sink.port, main=old) as (postfix, weir):
            submit(postfix, "Subject: none\n\nbody\n")
            submit(postfix, "Subject: own\nTo: Undisclosed recipients:;\n\nbody\n")
            submit(postfix, "Subject: real\nTo: b@example.com\n\nbody\n")
            wait_until(lambda: len(sink.messages()) == 3, lambda: f"3 messages arrived\n{postfix.log()}\n{weir.log()}")
            for message in sink.messages():
                self.assertNotIn(b"undisclosed", message["content"].lower())
                self.assertEqual(b"To: b@example.com" in message["content"], b"Subject: real" in message["content"])
            weir.wait_logged("undisclosed-recipients header")

    def test_hold_and_filter(self):
        header = "/^Subject: hold/ HOLD\n/^Subject: filter/ FILTER discard:\n"
        with SMTPSink() as sink, filtered_postfix(sink.port, header) as (postfix, weir):
            submit(postfix, "Subject: hold\n\nbody\n")
            submit(postfix, "Subject: filter\n\nbody\n")
            submit(postfix, "Subject: forged\nX-Weir-Verdict: HOLD\n\nbody\n")
            wait_until(sink.messages, lambda: f"one arrived\n{postfix.log()}\n{weir.log()}")
            (held,) = wait_until(lambda: [m for m in postfix.queue() if m["queue_name"] == "hold"], postfix.log)
            self.assertNotIn("X-Weir-Verdict", postfix.message(held["queue_id"]))
            self.assertIn("Subject: hold", postfix.message(held["queue_id"]))
            wait_until(lambda: "relay=none, delay" in postfix.log() and "postfix/discard" in postfix.log(), postfix.log)
            (message,) = sink.messages()
            self.assertIn(b"Subject: forged", message["content"])
            self.assertNotIn(b"X-Weir-Verdict", message["content"])

    def test_filter_targets_match_postfix(self):
        """Postfix's own header_checks and Weir store the same target. A target that no header can carry defers the message."""
        carried = [
            b"error:5.7.1 go away", b"smtp:[127.0.0.1]:2626 # the scanner", b"smtp:a\tb", b"discard:", b":x", b"a b:c d", b"smtp:a:b:c",
            b"smtp:$$1", b"smtp:\"quoted\", 'too'; <x>", "smtp:b\u00fccher.example".encode(), b"smtp:\xff\x80", b"smtp:" + b"x" * 970]
        # One byte too long for a line, and control bytes.
        deferred = [b"smtp:" + b"x" * 971, b"smtp:" + b"x " * 5_000, b"smtp:\x01", b"smtp:a\x7f", b"smtp:\x0bx", b"smtp:\x1b[m"]
        targets = carried + deferred
        table = b"/^X-Hold:/ HOLD\n" + b"".join(b"/^X-K: %d$/ FILTER %s\n" % pair for pair in enumerate(targets))
        # A captured fold and trailing blank.
        table += b"/^X-Fold: (.*)/ FILTER smtp:$1\n"
        messages = [f"X-Hold: y\nX-K: {number}\n\nbody\n" for number in range(len(targets))]
        messages.append("X-Hold: y\nX-Fold: a \n\nbody\n")
        with SMTPSink() as sink, filtered_postfix(sink.port) as (postfix, weir):
            (weir.directory / "header.pcre").write_bytes(table)
            weir.reload()
            own = {"header_checks": f"pcre:{weir.directory}/header.pcre"}
            with PrivatePostfix(main=own, relay=sink.port) as plain:
                for content in [*messages, "X-Hold: y\nX-Fold: a\n\tb\n\nbody\n"]:
                    submit(postfix, content)
                    if not "\tb" in content:
                        submit(plain, content)

                def found(instance, queue):
                    held = [entry["queue_id"] for entry in instance.queue() if entry["queue_name"] == queue]
                    texts = [instance.command("postcat", "-q", "-e", "-h", name, encoding="latin-1").stdout for name in held]
                    return sorted(re.search(r"content_filter: (.*)$", text, re.M)[1] for text in texts)
                wait_until(lambda: len(found(plain, "hold")) == len(messages), plain.log)
                wait_until(lambda: len(found(postfix, "hold")) + len(found(postfix, "deferred")) == len(messages) + 1, postfix.log)
                ours, theirs = found(postfix, "hold"), found(plain, "hold")
            self.assertEqual(ours, sorted(target for target in theirs if target.encode("latin-1") in [*carried, b"smtp:$1", b"smtp:a "]))
            self.assertEqual(len(ours), len(carried) + 1)
            self.assertEqual(postfix.log().count("451 4.3.0 content check names a bad FILTER target"), len(deferred) + 1)
            weir.wait_logged("a FILTER target with control characters or above 975 bytes")
            self.assertEqual(sink.messages(), [])

    def test_filter_with_a_space_in_its_target(self):
        for before_queue in (False, True):
            listener = {"mode": "before_queue" if before_queue else "after_queue"}
            with self.subTest(before_queue=before_queue), SMTPSink() as sink, SMTPSink() as scanner:
                # Postfix reads the words after a destination as more destinations.
                table = f"/^X-K: a/ FILTER error:5.7.1 go away\n/^X-K: b/ FILTER smtp:[127.0.0.1]:{scanner.port} # the scanner\n"
                with filtered_postfix(sink.port, table, listener=listener, before_queue=before_queue) as (postfix, weir):
                    for key in ("a", "b"):
                        self.assertIn("250 2.0.0 Ok: queued as", smtp(postfix, f"X-K: {key}\n\nbody\n").stdout)
                    wait_until(lambda: sink.messages() and scanner.messages(), postfix.log)
                    postfix.wait_drained()
                (bounce,), (scanned,) = sink.messages(), scanner.messages()
                self.assertEqual((bounce["sender"], scanned["sender"]), ("", "a@example.org"))
                self.assertIn(b"Diagnostic-Code: X-Postfix; go away", bounce["content"])
                self.assertIn(b"X-K: b", scanned["content"])

    def test_an_unknown_verdict_is_deferred(self):
        """With a verdict header that the table does not know, for example from a newer Weir, mail must not pass as if no rule had matched."""
        for line in ("HOLD now", "FILTER nowhere", "FILTER", "QUARANTINE", "HOLD\n x", "FILTER smtp:a\n\tb", ""):
            with self.subTest(line=line), SMTPSink() as sink, filtered_postfix(sink.port) as (postfix, _):
                reinject = int(postfix.services[1 + 1].split()[0].rpartition(":")[2])
                with SMTP(reinject) as client:
                    code, text = client.mail("a@example.org", ["b@example.com"], f"X-Weir-Verdict: {line}\nSubject: x\n\nbody\n")[-1]
                    self.assertEqual((code, text), (451, "4.3.5 the X-Weir-Verdict header is not in weir_verdict.pcre"))
                    self.assertEqual(client.mail("a@example.org", ["b@example.com"], "X-Weir-Verdict-Of: x\n\nbody\n")[-1][0], 250)
                wait_until(sink.messages, postfix.log)
                self.assertEqual(len(sink.messages()), 1)

    def test_a_rule_sees_long_lines_whole(self):
        with SMTPSink() as sink, filtered_postfix(sink.port, "", "/needle in the line/ REPLACE found\n") as (postfix, weir):
            submit(postfix, "Subject: x\n\n" + "a" * 992 + "needle in the line" + "b" * 500 + "\n")
            wait_until(sink.messages, lambda: f"{postfix.log()}\n{weir.log()}")
            self.assertTrue(sink.messages()[0]["content"].rstrip().endswith(b"\n\nfound"), sink.messages())

    def test_accepted_mail_is_not_too_large_for_reinjection(self):
        with SMTPSink() as sink, filtered_postfix(sink.port, main={"message_size_limit": "100000"}) as (postfix, weir):
            def is_taken(lines):
                with SMTP(postfix.port) as client:
                    return client.mail("a@example.org", ["b@example.com"], "Subject: x\n\n" + ("x" * 76 + "\n") * lines)[-1][0] == 250
            # The largest size that is accepted.
            self.assertTrue(any(is_taken(lines) for lines in range(1_285, 1_245, -1)))
            wait_until(sink.messages, lambda: f"{postfix.log()}\n{weir.log()}")
            self.assertEqual(sink.messages()[0]["sender"], "a@example.org", postfix.log())

    def test_fallback_relay_gets_no_unfiltered_mail(self):
        with SMTPSink() as sink, filtered_postfix(sink.port, main={"smtp_fallback_relay": f"[127.0.0.1]:{sink.port}"}) as (postfix, weir):
            weir.stop()
            submit(postfix, "Subject: x\n\nbody\n")
            wait_until(lambda: "status=deferred" in postfix.log() or sink.messages(), postfix.log)
            self.assertEqual(sink.messages(), [])

    def test_aliases_and_copies_are_made_once(self):
        for before_queue in (False, True):
            listener = {"mode": "before_queue" if before_queue else "after_queue"}
            with self.subTest(before_queue=before_queue), SMTPSink() as sink, filtered_postfix(
                    sink.port, listener=listener, before_queue=before_queue,
                    main={"virtual_alias_maps": "inline:{ { a@example.com = a@example.com, z@example.com } }", "always_bcc": "copy@example.com"},
            ) as (postfix, weir):
                # More than default_destination_recipient_limit.
                recipients = ["a@example.com", *(f"r{number}@example.com" for number in range(60))]
                with SMTP(postfix.port) as client:
                    self.assertEqual(client.mail("a@example.org", recipients)[-1][0], 250)
                wait_until(lambda: sum(len(m["recipients"]) for m in sink.messages()) >= 63, lambda: f"{postfix.log()}\n{weir.log()}")
                postfix.wait_drained()
                found = sorted(recipient for message in sink.messages() for recipient in message["recipients"])
                self.assertEqual((found.count("z@example.com"), found.count("copy@example.com"), len(found)), (1, 1, 63))

    def test_mail_waits_while_weir_is_down(self):
        with SMTPSink() as sink, filtered_postfix(sink.port, main={"minimal_backoff_time": "1s", "maximal_backoff_time": "1s", "queue_run_delay": "1s"}) as (postfix, weir):
            weir.kill()
            for _ in range(3):
                submit(postfix, "Subject: x\n\nbody\n")
            wait_until(lambda: "Connection refused" in postfix.log(), postfix.log)
            # A message that moves between queues meanwhile is listed twice or not at all.
            wait_until(lambda: len({message["queue_id"] for message in postfix.queue()}) == 3, postfix.log)
            weir.start()
            postfix.command("postqueue", "-f")
            wait_until(lambda: len(sink.messages()) == 3, postfix.log)

    def test_no_mail_lost_while_weir_is_killed(self):
        """Hundreds of messages while the service is killed repeatedly: each arrives once, a few possibly twice."""
        main = {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s", "queue_run_delay": "1s"}
        with SMTPSink() as sink, filtered_postfix(sink.port, main=main) as (postfix, weir):
            count, kills = 400, 6
            source = subprocess.Popen(
                [COMMANDS / "smtp-source", "-s", "5", "-m", str(count), "-l", "4000", "-N", "-t", "b@example.com", f"127.0.0.1:{postfix.port}"],
                stdin=subprocess.DEVNULL)
            for _ in range(kills):
                try:
                    source.wait(0.3)
                except subprocess.TimeoutExpired:
                    pass
                weir.kill()
                weir.start()
            self.assertEqual(source.wait(60), 0)

            def is_drained():
                postfix.command("postqueue", "-f")
                return not postfix.queue()
            wait_until(is_drained, postfix.log, timeout=120, interval=1)
            recipients = {tuple(message["recipients"]) for message in sink.messages()}
            self.assertEqual(len(recipients), count)
            self.assertLessEqual(len(sink.messages()), count + kills * 20)


class BeforeQueue(unittest.TestCase):
    def test_refused_to_the_client(self):
        listener = {"mode": "before_queue"}
        with SMTPSink() as sink, filtered_postfix(sink.port, "/^Subject: spam/ REJECT 5.7.1 no spam\n", listener=listener, before_queue=True) as (postfix, weir):
            refused = smtp(postfix, "Subject: spam\n\nbody\n")
            self.assertIn("550 5.7.1 no spam", refused.stdout)
            taken = smtp(postfix, "Subject: ham\n\nbody\n")
            self.assertIn("250 2.0.0 Ok: queued as", taken.stdout)
            wait_until(sink.messages, lambda: f"arrived\n{postfix.log()}\n{weir.log()}")
            (message,) = sink.messages()
            self.assertIn(b"Subject: ham", message["content"])


    def test_clients_try_again_while_weir_is_down(self):
        """Postmaster gets a transcript of each session, as docs/content-filter.md says."""
        with SMTPSink() as sink, filtered_postfix(sink.port, listener={"mode": "before_queue"}, before_queue=True) as (postfix, weir):
            weir.kill()
            self.assertIn("451 4.3.0 Error: queue file write error", smtp(postfix, "Subject: x\n\nbody\n").stdout)
            (notice,) = wait_until(sink.messages, postfix.log)
            self.assertEqual(notice["recipients"], ["postmaster@mx.example.org"])
            weir.start()
            self.assertIn("250 2.0.0 Ok: queued as", smtp(postfix, "Subject: x\n\nbody\n").stdout)
            wait_until(lambda: len(sink.messages()) == 2, postfix.log)


class Pipe(unittest.TestCase):
    def filter(self, weir, content, *options, recipients=("b@example.com",), status=0):
        return run(
            [BINARY, "filter", "--config", weir.config_file, *options, "-f", "a@example.org", "--", *recipients],
            input=content, check=False, env={**ENVIRONMENT, "STATUS": str(status)})

    def test_in_a_running_postfix(self):
        """With the line of master.cf: changed and delivered, rejected and bounced, deferred and kept."""
        rules = "/^Subject: no/ REJECT 5.7.1 not here\n/^Subject: later/ REJECT 4.7.1 wait\n/^Subject: old/ REPLACE Subject: new\n"
        reinject = free_port()
        weir = FilterService(free_port(), rules)
        self.addCleanup(weir.__exit__)
        weir.configure()
        # pipe(8) runs it as a user without access to the test directory and to this Postfix's sendmail(1).
        binary, back = weir.directory / "weir", weir.directory / "back"
        shutil.copy(BINARY, binary)
        back.write_text(
            "#!/usr/bin/python3\nimport smtplib, sys\nwith smtplib.SMTP('127.0.0.1', %d) as hop:\n"
            "    hop.sendmail(sys.argv[2], sys.argv[4:], sys.stdin.buffer.read())\n" % reinject)
        for path, mode in ((binary, 0o755), (back, 0o755), (weir.config_file, 0o644)):
            path.chmod(mode)
        pipe, *others = services(reinject, ways=("weirpipe",))
        pipe = pipe.replace("user=weir", "user=nobody").replace("/usr/bin/weir filter", f"{binary} filter --config {weir.config_file} --to {back}")
        with SMTPSink() as sink, PrivatePostfix(relay=sink.port, services=[pipe, *others]) as postfix:
            postfix.services[0] += " -o content_filter=weirpipe:dummy"
            postfix.write()
            postfix.reload()
            for subject in ("old", "no", "later"):
                self.assertIn("250 2.0.0 Ok: queued as", smtp(postfix, f"Subject: {subject}\n\nbody\n").stdout)
            wait_until(lambda: len(sink.messages()) == 2, postfix.log)
            passed, bounce = sorted(sink.messages(), key=lambda message: message["sender"] == "")
            self.assertIn(b"Subject: new\n", passed["content"])
            self.assertIn(b"Status: 5.7.1", bounce["content"])
            self.assertIn(b"not here", bounce["content"])
            self.assertNotIn(b"header.pcre", bounce["content"])
            self.assertRegex(postfix.log(), r"relay=weirpipe,.*dsn=5\.7\.1, status=bounced")
            wait_until(lambda: [message["queue_name"] for message in postfix.queue()] == ["deferred"], postfix.log)
            self.assertRegex(postfix.log(), r"relay=weirpipe,.*dsn=4\.7\.1, status=deferred")
            # Mail from sendmail(1), which the command uses for the result, is not filtered again.
            submit(postfix, "Subject: no\n\nbody\n")
            wait_until(lambda: len(sink.messages()) == 3, postfix.log)

    def test_outcomes(self):
        rules = "/^Subject: no/ REJECT 5.7.1 not here\n/^Subject: later/ REJECT 4.7.1 wait\n/^Subject: gone/ DISCARD\n/^Subject: hold/ HOLD\n/^Subject: other/ REDIRECT r@example.com\n/^Subject: old/ REPLACE Subject: new\n"
        weir = FilterService(free_port(), rules, "/^drop$/ IGNORE\n")
        self.addCleanup(weir.__exit__)
        weir.configure()
        command = weir.directory / "take"
        taken = weir.directory / "taken"
        command.write_text(f"#!/bin/sh\necho \"$@\" > {taken}\ncat >> {taken}\nexit ${{STATUS:-0}}\n")
        command.chmod(0o755)
        to = ("--to", str(command))
        self.assertEqual(self.filter(weir, "Subject: old\nX: y\n\nbody\n", *to).returncode, 0)
        self.assertEqual(taken.read_text(), "-f a@example.org -- b@example.com\nSubject: new\nX: y\n\nbody\n")
        # A CR within a line is not a line ending.
        self.assertEqual(self.filter(weir, "X: y\nSubject: old\n\na\rb\n", *to).returncode, 0)
        self.assertEqual(taken.read_bytes().split(b"\n", 1)[1], b"X: y\nSubject: new\n\na\rb\n")
        self.assertEqual(self.filter(weir, "Subject: other\n\n", *to).returncode, 0)
        self.assertEqual(taken.read_text().split("\n")[0], "-f a@example.org -- r@example.com")
        taken.unlink()
        refused = self.filter(weir, "Subject: no\n\n", *to)
        self.assertEqual((refused.returncode, refused.stdout), (69, "5.7.1 not here\n"))
        self.assertEqual(self.filter(weir, "Subject: later\n\n", *to).returncode, 75)
        self.assertEqual(self.filter(weir, "Subject: gone\n\n", *to).returncode, 0)
        self.assertEqual(self.filter(weir, "Subject: hold\n\n", *to).returncode, 75)
        self.assertFalse(taken.exists())
        # smtpd counts a leading dot twice, but mail from sendmail(1) does not pass it.
        line = "." * 2047 + "drop\n"
        for trace, dropped in (("from client.example.org (client.example.org [192.0.2.1])\n\t", True), ("", False)):
            message = f"Received: {trace}by mx.example.org (Postfix) id 4ABC;\n\tMon, 1 Jan 2024 00:00:00 +0000\n\n{line}"
            self.assertEqual(self.filter(weir, message, "--queue-id", "4ABC", *to).returncode, 0)
            self.assertEqual(taken.read_text().endswith(line.replace("drop\n", "") if dropped else line), True, trace)
            taken.unlink()
        # A command that stops reading has its own reasons.
        large = "X: y\n\n" + "line\n" * 200_000
        command.write_text("#!/bin/sh\nexit $STATUS\n")
        for status, expected, cause in ((69, 69, ""), (78, 75, "exited with status 78"), (0, 75, "has not read the whole message")):
            done = self.filter(weir, large, *to, status=status)
            self.assertEqual((done.returncode, cause in done.stderr), (expected, True), done.stderr)
        done = self.filter(weir, "X: y\n\nbody\n", *to)
        self.assertEqual((done.returncode, "has not read the whole message" in done.stderr), (75, True), done.stderr)
        # Errors of Weir, its configuration or its command line defer the message.
        self.assertEqual(self.filter(weir, "\n", "--to", "/nonexistent").returncode, 75)
        self.assertEqual(self.filter(weir, "\n", "--time-limit", "0", *to).returncode, 75)
        self.assertEqual(self.filter(weir, "\n", "--to", "/bin/false").returncode, 75)
        self.assertEqual(self.filter(weir, "\n", "--unknown").returncode, 75)
        weir.config_file.write_text("nonsense")
        self.assertEqual(self.filter(weir, "\n", *to).returncode, 75)

    def waiting_command(self, weir):
        """A command that waits for the file `go` before it reads the message, and then writes it to `taken`."""
        command = weir.directory / "wait"
        command.write_text(
            f"#!/bin/sh\ncd {weir.directory}\necho $$ > new && mv new pid\n"
            "while [ ! -e go ]; do sleep 0.05; done\ncat > new && mv new taken\n")
        command.chmod(0o755)
        return command

    def test_a_message_is_never_cut(self):
        """The command delivers all of it, although the filter is killed before the command has read it."""
        content = b"Subject: x\n\n" + b"line\n" * 200_000
        with tempfile.TemporaryFile() as message, FilterService(free_port()) as weir:
            message.write(content)
            message.seek(0)
            process = subprocess.Popen(
                [BINARY, "filter", "--config", weir.config_file, "--to", self.waiting_command(weir), "-f", "a@example.org",
                 "--", "b@example.com"], stdin=message, env=ENVIRONMENT)
            wait_until((weir.directory / "pid").exists, "the command runs")
            process.kill()
            process.wait(DEFAULT_TIMEOUT)
            (weir.directory / "go").touch()
            wait_until((weir.directory / "taken").exists, "the command has read the message")
            self.assertEqual((weir.directory / "taken").read_bytes(), content)

    def test_a_command_that_does_not_end(self):
        """It is ended with its children, and the message is deferred. At its own limit, pipe(8) would bounce it."""
        with FilterService(free_port()) as weir:
            done = self.filter(weir, "X: y\n\nbody\n", "--time-limit", "5", "--to", str(self.waiting_command(weir)))
            self.assertEqual((done.returncode, done.stderr), (75, "weir filter: stopped after 5 seconds\n"))
            command = int((weir.directory / "pid").read_text())
            wait_until(lambda: not is_running(command), "the command ended")
            (weir.directory / "go").touch()
            self.assertFalse((weir.directory / "taken").exists())

    def test_the_time_ends_although_nobody_reads_standard_error(self):
        with FilterService(free_port()) as weir:
            weir.configure()
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, bytes(4096))
            os.set_blocking(writer, True)
            process = subprocess.Popen(
                [BINARY, "filter", "--config", weir.config_file, "--time-limit", "1", "--to", self.waiting_command(weir),
                 "-f", "a@example.org", "--", "b@example.com"], stdin=subprocess.DEVNULL, stderr=writer, env=ENVIRONMENT)
            self.assertEqual(process.wait(DEFAULT_TIMEOUT), -signal.SIGALRM)
            os.close(reader)
            os.close(writer)

    def test_what_the_command_leaves_running_is_not_waited_for(self):
        """The command has taken the message. Deferred, it would be delivered again."""
        with FilterService(free_port()) as weir:
            taken, command = weir.directory / "taken", weir.directory / "take"
            command.write_text(
                f"#!/bin/sh\ncat > {taken}\nsleep 600 < /dev/null > /dev/null 2>&1 &\necho $! > {weir.directory}/pid\n")
            command.chmod(0o755)
            done = self.filter(weir, "X: y\n\nbody\n", "--time-limit", "100", "--to", str(command))
            self.assertEqual((done.returncode, done.stderr, taken.read_text()), (0, "", "X: y\n\nbody\n"))
            left = int((weir.directory / "pid").read_text())
            self.assertTrue(is_running(left))
            os.kill(left, signal.SIGKILL)

    def test_a_command_that_waits_for_its_own_processes(self):
        """It gets their end, and its own failure is seen, although the caller blocks and ignores signals."""
        with FilterService(free_port()) as weir:
            command = weir.directory / "wait"
            command.write_text("#!/bin/sh\nsleep 0.1 &\nwait\ncat > /dev/null\nexit 1\n")
            command.chmod(0o755)
            done = run(
                ["env", "--ignore-signal=CHLD", "--block-signal=CHLD", BINARY, "filter", "--config", weir.config_file,
                 "--to", command, "-f", "a@example.org", "--", "b@example.com"],
                input="X: y\n\nbody\n", check=False, env=ENVIRONMENT)
            self.assertEqual((done.returncode, "exited with status 1\n" in done.stderr), (75, True), done.stderr)

    @unittest.skipUnless(os.geteuid() == 0, NEEDS_ROOT)
    def test_a_script_that_opens_its_standard_input(self):
        """It fails before it delivers anything: otherwise it would deliver the message at each attempt."""
        with FilterService(free_port()) as weir:
            binary, command, taken = (weir.directory / name for name in ("weir", "take", "taken"))
            shutil.copy(BINARY, binary)
            weir.configure()
            taken.touch(0o666)
            taken.chmod(0o666)
            command.write_text(f"#!/bin/sh\nset -e\ntext=$(cat /dev/stdin)\necho \"$text\" > {taken}\n")
            for path, mode in ((binary, 0o755), (command, 0o755), (weir.config_file, 0o644)):
                path.chmod(mode)
            done = run(
                ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", binary, "filter", "--config",
                 weir.config_file, "--to", command, "-f", "a@example.org", "--", "b@example.com"],
                input="X: y\n\nbody\n", check=False, env=ENVIRONMENT)
            self.assertEqual((done.returncode, taken.read_text()), (75, ""))
            self.assertIn("/dev/stdin: Permission denied\n", done.stderr)


if __name__ == "__main__":
    unittest.main()
