# SPDX-License-Identifier: Apache-2.0
"""Runs the milter: `weir serve` with a milter listener, a Postfix that uses it, and an MTA in Python."""
import contextlib
import socket
import struct
import threading

from postfix import DEFAULT_TIMEOUT, PrivatePostfix, connect, end_listening, free_port
from weir import WeirService

# All SMFIF_* and SMFIP_* flags that Postfix 3.7 offers.
ACTIONS = 0x1FF
OPTIONS = 0x1FFFFF


class ForeignMilter:
    """A milter of another program. Subclasses have `answer(message, command, payload, send)`, for each packet of the MTA.

    `send(command, payload)` sends a packet. `message` is a list that belongs to the connection.
    """

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"inet:127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        end_listening(self.listener)

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, connection):
        def send(command, payload=b""):
            connection.sendall(struct.pack(">I", len(payload) + 1) + command + payload)
        message = []
        with contextlib.suppress(OSError, struct.error), connection, connection.makefile("rb") as stream:
            while packet := stream.read(struct.unpack(">I", stream.read(4))[0]):
                if packet[:1] == b"Q":
                    return
                self.answer(message, packet[:1], packet[1:], send)


class MilterService(WeirService):
    """`weir serve` with a milter on a port and a UNIX socket, and these lines as header and body checks."""

    def __init__(self, header="", body="", checks=None, **config):
        super().__init__(**config)
        self.milter_port = free_port()
        self.milter_socket = self.directory / "milter"
        self.directory.chmod(0o755)
        for name, lines in (("header.pcre", header), ("body.pcre", body)):
            (self.directory / name).write_text(lines)
        self.config["listen"]["milter"] = [f"inet:127.0.0.1:{self.milter_port}", f"unix:{self.milter_socket}"]
        self.config["filter"] = {"spool": str(self.directory)}
        self.config["checks"] = {
            **({} if "sets" in (checks or {}) else {
                "header": [f"pcre:{self.directory}/header.pcre"], "body": [f"pcre:{self.directory}/body.pcre"]}),
            "cache": f"{self.directory}/cache", **(checks or {})}

    def mta(self, **options):
        return MTA(self.milter_port, **options)


@contextlib.contextmanager
def milter_postfix(sink_port, header="", body="", main=None, over_tcp=True, **config):
    """Yields a Postfix and the Weir that is its milter, for smtpd and sendmail(1)."""
    with MilterService(header, body, **config) as weir:
        milter = f"inet:127.0.0.1:{weir.milter_port}" if over_tcp else f"unix:{weir.milter_socket}"
        parameters = {
            "smtpd_milters": milter, "non_smtpd_milters": milter, "milter_default_action": "tempfail", **(main or {})}
        with PrivatePostfix(main=parameters, relay=sink_port) as postfix:
            yield postfix, weir


class MTA:
    """An MTA's side of the milter protocol: sends packets, reads replies as (command, payload)."""

    def __init__(self, target, version=6, actions=ACTIONS, options=OPTIONS, negotiate=True, timeout=DEFAULT_TIMEOUT):
        self.socket = connect(target, timeout)
        self.buffer = b""
        if negotiate:
            self.send("O", struct.pack(">III", version, actions, options))
            command, payload = self.reply()
            assert command == "O", command
            self.version, self.actions, self.options = struct.unpack(">III", payload[:12])
            self.macros = payload[12:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, command, payload=b""):
        self.raw(self.packet(command, payload))

    @staticmethod
    def packet(command, payload=b""):
        return struct.pack(">I", len(payload) + 1) + command.encode() + payload

    def raw(self, data):
        self.socket.sendall(data)

    def reply(self):
        """The next reply; None if the milter closed the connection."""
        while len(self.buffer) < 4 or len(self.buffer) < 4 + struct.unpack(">I", self.buffer[:4])[0]:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                assert not self.buffer, self.buffer
                return None
            self.buffer += data
        length = struct.unpack(">I", self.buffer[:4])[0]
        packet, self.buffer = self.buffer[4:4 + length], self.buffer[4 + length:]
        return chr(packet[0]), packet[1:]

    def replies(self):
        """All replies up to the final one."""
        replies = []
        while True:
            reply = self.reply()
            if reply is None:
                return replies + [None]
            replies.append(reply)
            if reply[0] in "cardt4y":
                return replies

    def connect(self, name="client.example.org", address="192.0.2.1", port=40000):
        self.send("C", text(name) + b"4" + struct.pack(">H", port) + text(address))
        self.answer(0x1000)

    def answer(self, option):
        """Reads the reply to an event, unless the negotiation excluded it."""
        if not self.options & option:
            assert self.reply() == ("c", b""), "expected to go on"

    def mail(self, sender="a@example.org", recipients=("b@example.com",), parameters=(), **macros):
        """Sends the envelope; returns the replies to the recipients."""
        self.send("D", b"M" + b"".join(text(name) + text(value) for name, value in {"i": "4ABC", **macros}.items()))
        self.send("M", text(f"<{sender}>") + b"".join(map(text, parameters)))
        self.answer(0x4000)
        replies = []
        for recipient in recipients:
            self.send("R", text(f"<{recipient}>"))
            replies.append(("c", b"") if self.options & 0x8000 else self.reply())
        return replies

    def content(self, headers, body=b""):
        """Sends headers (pairs) and body; returns the replies to the end of the message."""
        for name, value in headers:
            value = value if self.options & 0x100000 else value.removeprefix(" ")
            self.send("L", text(name) + text(value))
            self.answer(0x80)
        if not self.options & 0x40:
            self.send("N")
            self.answer(0x40000)
        if not self.options & 0x10:
            for start in range(0, len(body), 65535):
                self.send("B", body[start:start + 65535])
                self.answer(0x80000)
        self.send("E")
        return self.replies()

    def is_closed(self):
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            return self.socket.recv(1) == b""
        return True


def text(value):
    return (value.encode() if isinstance(value, str) else value) + b"\0"
