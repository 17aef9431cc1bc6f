# SPDX-License-Identifier: Apache-2.0
"""weir doctor --try at a submission service, with a login and STARTTLS."""
import base64
import json
import os
import pty
import select
import subprocess
import unittest

from postfix import DEFAULT_TIMEOUT, PrivatePostfix, free_port, run
from sasl import SASLServer
from weir import BINARY, ENVIRONMENT, WeirService, weir

USER, PASSWORD = "alice@example.org", "correct horse é"
SUBMISSION = {"sasl_username": "present", "policy_context": "submission"}
LIMITS = [{"name": "per-user", "when": SUBMISSION, "key": ["sasl_username"], "rates": ["2/1h"]}]


class Submission(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sasl = cls.enterClassContext(SASLServer({USER: PASSWORD}))
        cls.service = cls.enterClassContext(WeirService(limits=LIMITS))
        cls.submission, cls.expired, cls.broken, cls.unready, cls.clear, cls.closed, cls.no_context = (free_port() for _ in range(7))
        cls.postfix = PrivatePostfix(main={
            "smtpd_sasl_type": "dovecot", "smtpd_sasl_path": f"inet:127.0.0.1:{cls.sasl.port}", "recipient_delimiter": "+",
            "smtpd_sender_login_maps": f"inline:{{{{{USER}={USER}}}}}"})

        def service(port, *options, context="submission"):
            policy = f"check_policy_service {{ inet:127.0.0.1:{cls.service.port}, policy_context={context} }}"
            restrictions = (
                "-o smtpd_sasl_auth_enable=yes -o smtpd_client_restrictions=permit_sasl_authenticated,reject "
                "-o smtpd_sender_restrictions=reject_sender_login_mismatch "
                f"-o {{ smtpd_recipient_restrictions={policy}, permit_sasl_authenticated, reject }} "
                "-o smtpd_relay_restrictions=permit_sasl_authenticated,reject")
            return f"127.0.0.1:{port} inet n - n - - smtpd {' '.join(f'-o {option}' for option in options)} {restrictions}"

        encrypt = ("smtpd_tls_security_level=encrypt", "smtpd_tls_auth_only=yes")
        good = cls.chain("good", 2090)
        cls.postfix.services += [
            "tlsmgr unix - - n 1000? 1 tlsmgr",
            service(cls.submission, *encrypt, f"smtpd_tls_chain_files={good}"),
            service(cls.no_context, *encrypt, f"smtpd_tls_chain_files={good}", context="other"),
            service(cls.expired, *encrypt, f"smtpd_tls_chain_files={cls.chain('expired', 2020)}"),
            service(cls.broken, *encrypt, f"smtpd_tls_chain_files={cls.postfix.directory}/none.pem"),
            service(cls.unready, *encrypt, f"smtpd_tls_chain_files={good}", "tlsmgr_service_name=none"),
            service(cls.clear, "smtpd_sasl_security_options=noanonymous"),
            service(cls.closed, "smtpd_tls_auth_only=yes")]
        cls.enterClassContext(cls.postfix)
        cls.password_file = cls.service.directory / "password"
        cls.password_file.write_text(PASSWORD + "\n")

    @classmethod
    def chain(cls, name, year):
        """A file with a key and its own certificate, which expires at the end of the year."""
        folder = cls.postfix.directory / name
        folder.mkdir()
        (folder / "index").touch()
        (folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/index\nnew_certs_dir={folder}\nrand_serial=yes\ndefault_md=sha256\n"
            "policy=any\n[any]\ncommonName=supplied\n")
        run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-subj", "/CN=mx.example.org", "-keyout", folder / "key", "-out", folder / "request"])
        run(["openssl", "ca", "-batch", "-selfsign", "-notext", "-config", folder / "ca.cnf", "-keyfile", folder / "key", "-in", folder / "request",
             "-startdate", "20200101000000Z", "-enddate", f"{year}1231235959Z", "-out", folder / "certificate"])
        chain = folder / "chain.pem"
        chain.write_text((folder / "key").read_text() + (folder / "certificate").read_text())
        return chain

    def arguments(self, port, *more):
        return ("doctor", "--try", "--postfix", self.postfix.etc, "--config", self.service.config_file,
                "--smtp", f"inet:127.0.0.1:{port}", "--to", "postmaster@example.com", *more)

    def trial(self, port, *more):
        result = weir(*self.arguments(port, "--json", *more), check=False)
        self.assertIn(result.returncode, (0, 1), result.stderr)
        for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()):
            self.assertNotIn(secret, result.stdout + result.stderr + self.service.log())
        self.assertEqual(self.postfix.queue(), [])
        report = json.loads(result.stdout)
        return result.returncode, report, {reply["command"]: reply["text"] for reply in report["replies"]}

    def test_login_in_tls(self):
        """The sender is an extension of the user's address, which reject_sender_login_mismatch lets pass."""
        status, report, replies = self.trial(self.submission, "--user", USER, "--password-file", self.password_file)
        self.assertEqual((status, report["missing"]), (0, []), report)
        self.assertRegex(report["sender"], r"^alice\+weir-probe-[0-9a-f]{32}@example\.org$")
        self.assertTrue(replies["EHLO in TLS"].startswith("250 "))
        self.assertTrue(replies["AUTH PLAIN"].startswith("235 "), replies)
        self.assertEqual(report["sightings"][0]["outcome"], "DUNNO; charged to per-user, and given back")
        self.assertEqual(report["certificate"], {"subject": "CN = mx.example.org", "faults": ["self-signed certificate"]})
        self.assertEqual(self.service.used(USER, "per-user") or 0, 0)

    def test_a_service_that_no_limit_counts(self):
        status, report, _ = self.trial(self.no_context, "--user", USER, "--password-file", self.password_file)
        self.assertEqual((status, report["missing"]), (0, []), report)
        self.assertEqual(report["sightings"][0]["outcome"], "DUNNO; no limit counts it")

    def test_an_expired_certificate(self):
        status, report, replies = self.trial(self.expired, "--user", USER, "--password-file", self.password_file)
        self.assertEqual((status, report["missing"]), (1, []), report)
        self.assertIn("certificate has expired", report["certificate"]["faults"])
        self.assertTrue(replies["AUTH PLAIN"].startswith("235 "), replies)
        shown = weir(*self.arguments(self.expired, "--starttls"), check=False).stdout
        self.assertRegex(shown, "(?m)^  certificate of CN = mx.example.org: .*certificate has expired")
        self.assertIn("\n  mail clients refuse this certificate: renew it\n", shown)

    def test_without_a_login_it_is_refused(self):
        status, _, replies = self.trial(self.submission)
        self.assertEqual(status, 1)
        self.assertRegex(list(replies.values())[-2], "^530 .*STARTTLS")
        status, report, replies = self.trial(self.submission, "--starttls")
        self.assertEqual((status, report["missing"]), (1, ["policy"]))
        self.assertTrue(any(text.startswith("554 5.7.1 ") or text.startswith("553 5.7.1 ") for text in replies.values()), replies)

    def test_wrong_password(self):
        self.password_file.with_name("wrong").write_text("wrong\n")
        status, report, replies = self.trial(self.submission, "--user", USER, "--password-file", self.password_file.with_name("wrong"))
        self.assertEqual((status, report["missing"]), (1, ["policy"]))
        self.assertTrue(replies["AUTH PLAIN"].startswith("535 "), replies)
        self.assertNotIn("DATA", replies)

    def test_auth_login(self):
        """Where smtpd offers no TLS and no PLAIN."""
        with SASLServer({USER: PASSWORD}, mechanisms=["LOGIN"]) as sasl:
            self.addCleanup(self.postfix.set, smtpd_sasl_path=f"inet:127.0.0.1:{self.sasl.port}")
            self.postfix.set(smtpd_sasl_path=f"inet:127.0.0.1:{sasl.port}")
            status, _, replies = self.trial(self.clear, "--user", USER, "--password-file", self.password_file)
            self.assertEqual(status, 0, replies)
            self.assertTrue(replies["password"].startswith("235 "), replies)

    def test_password_from_the_terminal(self):
        """The terminal does not show it."""
        terminal, own = pty.openpty()
        process = subprocess.Popen(
            [BINARY, *self.arguments(self.submission, "--user", USER)], env=ENVIRONMENT, stdin=own, stdout=own, stderr=own,
            start_new_session=True, preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)))
        os.close(own)
        shown = b""
        try:
            while select.select([terminal], [], [], DEFAULT_TIMEOUT)[0]:
                try:
                    piece = os.read(terminal, 4096)
                except OSError:
                    break
                shown += piece
                if shown.endswith(f"Password of {USER}: ".encode()):
                    os.write(terminal, PASSWORD.encode() + b"\n")
            self.assertEqual(process.wait(DEFAULT_TIMEOUT), 0, shown)
        finally:
            process.kill()
            process.wait()
            os.close(terminal)
        self.assertIn(b"every stage saw the probe", shown)
        self.assertNotIn(PASSWORD.encode(), shown)

    def test_what_smtpd_does_not_offer(self):
        login = ("--user", USER, "--password-file", self.password_file)
        for port, arguments, reason in (
                (self.clear, ["--starttls"], "smtpd does not offer STARTTLS"),
                (self.broken, login, "the TLS session has failed: .*alert handshake failure"),
                (self.unready, login, "smtpd refuses STARTTLS: 454 4.7.0 TLS not available due to local problem"),
                (self.closed, login, "smtpd offers neither AUTH PLAIN nor AUTH LOGIN; it offers no login at all")):
            with self.subTest(reason):
                result = weir(*self.arguments(port, *arguments), check=False)
                self.assertEqual((result.returncode, result.stdout), (69, ""))
                self.assertRegex(result.stderr, f"^weir doctor: {reason}\n$")

    def test_wrong_arguments(self):
        at = ("--config", self.service.config_file)
        for words in (("--try", "--password-file", "/x"), ("--user", "x"), ("--starttls",)):
            self.assertEqual(weir("doctor", *at, *words, check=False).returncode, 64)
        result = weir(*self.arguments(self.submission, "--user", USER), check=False)
        self.assertEqual(result.returncode, 66)
        self.assertIn("there is no terminal to ask for the password; use --password-file", result.stderr)
        result = weir(*self.arguments(self.submission, "--user", USER, "--password-file", "/nonexistent/x"), check=False)
        self.assertEqual((result.returncode, result.stderr), (66, "weir doctor: can't read /nonexistent/x: No such file or directory\n"))


if __name__ == "__main__":
    unittest.main()
