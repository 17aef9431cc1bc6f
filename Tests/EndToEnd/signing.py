# SPDX-License-Identifier: Apache-2.0
"""Signs and verifies messages with dkimpy (RFC 6376), simple/simple.

Debian's python3-dkim is for Debian's own Python, which may be another one than that of the tests: so it runs as a
command.
"""
import base64
import json
import subprocess

HEADERS = ["From", "To", "Subject", "Date", "Message-Id", "MIME-Version", "Content-Type"]

# Reads a job, writes for each message its DKIM-Signature header, or whether its signature verifies.
COMMAND = r"""
import base64, dkim, json, sys
job = json.load(sys.stdin)
messages = [base64.b64decode(message) for message in job["messages"]]
if "key" in job:
    names = [name.encode() for name in job["headers"]]
    result = [dkim.sign(message, b"test", b"example.org", job["key"].encode(), canonicalize=(b"simple", b"simple"),
                        include_headers=names).decode() for message in messages]
else:
    record = ("v=DKIM1; k=rsa; p=" + job["public"]).encode()
    result = [dkim.verify(message, dnsfunc=lambda *_, **__: record) for message in messages]
json.dump(result, sys.stdout)
"""


def run(**job):
    job["messages"] = [base64.b64encode(message).decode() for message in job["messages"]]
    result = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", COMMAND], input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    return json.loads(result.stdout)


def wire(content):
    """Bytes with LF as they are on the wire, with CRLF."""
    return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


class Key:
    def __init__(self):
        def openssl(*arguments, **options):
            return subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options).stdout
        self.private = openssl("genrsa", "-traditional", "1024")
        self.public = base64.b64encode(openssl("rsa", "-pubout", "-outform", "DER", input=self.private)).decode()

    def signatures(self, messages):
        """The DKIM-Signature header of each message, with CRLF."""
        return run(messages=[wire(message) for message in messages], key=self.private.decode(), headers=HEADERS)

    def verify(self, messages):
        """Whether the signature of each message verifies."""
        return run(messages=[wire(message) for message in messages], public=self.public)
