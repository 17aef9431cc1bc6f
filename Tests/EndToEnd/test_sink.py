# SPDX-License-Identifier: Apache-2.0
"""The sink of the other tests shows a message once it has all of it."""
import unittest

from postfix import SMTP, SMTPSink


class Sink(unittest.TestCase):
    def test_a_message_is_there_when_it_is_complete(self):
        for lines in (0, 1, 1000):
            with self.subTest(lines=lines), SMTPSink() as sink, SMTP(sink.port) as client:
                for command, code in (("MAIL FROM:<a@example.org>", 250), ("RCPT TO:<b@example.com>", 250), ("DATA", 354)):
                    client.command(command, code)
                    self.assertEqual(sink.messages(), [])
                client.send(b"Subject: test\r\n\r\n" + b"body\r\n" * lines)
                self.assertEqual(sink.messages(), [])
                client.command(".", 250)
                (message,) = sink.messages()
                self.assertEqual((message["sender"], message["recipients"]), ("a@example.org", ["b@example.com"]))
                content = message["content"].decode()
                self.assertTrue(content.endswith("\nSubject: test\n\n" + "body\n" * lines), content)


if __name__ == "__main__":
    unittest.main()
