# SPDX-License-Identifier: Apache-2.0
"""Messages whose parts would take much memory without bounds, through the filter. No test depends on a duration."""
import base64
import io
import pathlib
import struct
import unittest
import zipfile

from filtering import FilterService, NextHop, dialogue
from weir import check_memory
from test_filter_smtp import Client

RULES = {
    "decoded_header": "/casino/ REJECT 5.7.1 no\n", "decoded_body": "/casino/ REJECT 5.7.1 no\n",
    "attachment": "/; limit$/ WARN\n"}
# KiB: more than the bounds in docs/content-checks.md together, and less than half of the largest messages below.
MOST_MEMORY = 20 << 10
TEXT = "the text after it is not checked"
ARCHIVE = "some of its archive is not read"


def part(headers, content):
    return b"Subject: x\r\nMIME-Version: 1.0\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n"


def bomb():
    """Archives of archives, with 200 MB of zeros each."""
    content = bytes(200 << 20)
    for name in ("zeros", "a.zip", "b.zip"):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for number in range(1 if name == "zeros" else 10):
                file.writestr(f"{number}{name}", content)
        content = archive.getvalue()
    return content


def entries(count, name):
    """An archive whose entries all have the data of the first."""
    local = b"PK\x03\x04" + struct.pack("<5H3I2H", 20, 0, 0, 0, 0, 0, 2, 2, len(name), 0) + name + b"MZ"
    entry = b"PK\x01\x02" + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 0, 0, 2, 2, len(name), 0, 0, 0, 0, 0, 0) + name
    size = min(count * len(entry), 0xFFFFFFFF)
    return local + count * entry + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, count & 0xFFFF, count & 0xFFFF, size, len(local), 0)


def base64_of(content):
    return base64.encodebytes(content).replace(b"\n", b"\r\n")


def messages():
    """The name of each message, its content, and what the log says of it; nothing where no bound is reached."""
    multipart = "Content-Type: multipart/mixed; boundary=b"
    archive = "Content-Type: application/zip"
    yield "quoted-printable without a line end", part("Content-Transfer-Encoding: quoted-printable", 10_500_000 * b"=41="), f"1: {TEXT}"
    yield "HTML of any depth", part("Content-Type: text/html", 1_000_000 * b"<div>"), f"1: {TEXT}"
    yield "a tag without an end", part("Content-Type: text/html", b"<a href=" + (40 << 20) * b"x"), f"1: {TEXT}"
    yield "a character set with state", part("Content-Type: text/plain; charset=iso-2022-jp", b"\x1b$B" + 10_000_000 * b"$3$l"), f"1: {TEXT}"
    yield "a zip bomb", part(f"{archive}\r\nContent-Transfer-Encoding: base64", base64_of(bomb())), f"1: {ARCHIVE}"
    yield "a million entries", part(f"{archive}\r\nContent-Transfer-Encoding: binary", entries(1_000_000, b"a")), f"1: {ARCHIVE}"
    yield "names of 64 KiB", part(f"{archive}\r\nContent-Transfer-Encoding: binary", entries(50, 65_000 * b"n" + b".exe")), None
    yield "many parts", part(multipart, 500_000 * b"--b\r\n\r\nx\r\n"), "1001: it and the parts after it are not checked"
    yield "attached messages", part("Content-Type: message/rfc822", 300_000 * b"Content-Type: message/rfc822\r\n\r\n"), (
        "1" + 50 * ".1" + ": what it contains is checked as text")
    sections = b"".join(b";\r\n filename*%d*=aaaaaaaaaaaaaaaa" % number for number in range(500_000))
    yield "a name in sections", part(multipart, b"--b\r\nContent-Disposition: attachment" + sections + b"\r\n\r\nx\r\n--b--"), (
        "1: one of its headers is too long")
    yield "headers of a part", part(multipart, b"--b\r\n" + 1_500_000 * b"X-Header: x\r\n" + b"\r\nx\r\n--b--"), None


class Memory(unittest.TestCase):
    def test_memory_is_bounded(self):
        sent = []
        with NextHop(dialogue({}, sent)) as hop, FilterService(hop.port) as service:
            for name, table in RULES.items():
                (service.directory / name).write_text(table)
                service.config["checks"][name] = [f"pcre:{service.directory}/{name}"]
            service.config["checks"]["message_budget"] = "1h"
            service.configure()
            service.reload()
            service.wait_logged("reloaded")
            with Client(service.filter_port, timeout=900) as client:
                # Whatever any large message takes is there afterwards.
                self.deliver(service, client, part("Content-Type: text/plain", 800_000 * (50 * b"x" + b"\r\n")), sent)
                for name, content, limit in messages():
                    with self.subTest(name):
                        logged = len(service.log())
                        used = self.deliver(service, client, content, sent)
                        check_memory(self, used, MOST_MEMORY)
                        log = service.log()[logged:]
                        if limit:
                            self.assertIn(f"limit reached in part {limit}", log)
                        else:
                            self.assertNotIn("limit reached", log)
                # The rules still do their work.
                reply = client.deliver(part("Content-Type: text/html", b"ca<b>si</b>no") + b".\r\n")[-1]
                self.assertEqual(reply[0], 550)

    def deliver(self, service, client, content, sent):
        """Returns by how much the service grew at most meanwhile, in KiB."""
        process = pathlib.Path(f"/proc/{service.pid}")
        (process / "clear_refs").write_text("5")
        before = self.memory(process)
        self.assertEqual(client.deliver(content + b".\r\n")[-1][0], 250, service.log()[-2000:])
        sent.clear()
        return self.memory(process) - before

    @staticmethod
    def memory(process):
        """The largest resident size since it was cleared."""
        return next(int(line.split()[1]) for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    unittest.main()
