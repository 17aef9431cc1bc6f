# SPDX-License-Identifier: Apache-2.0
"""Runs the content filter: `weir serve` with a filter listener, and next hops that follow a script."""
import collections
import contextlib
import re
import socket
import threading

from postfix import PrivatePostfix, end_listening, free_port
from weir import ROOT, WeirService

CONF = ROOT / "conf" / "postfix"
# Deferred mail is tried again as soon as it is flushed.
RETRY = {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s", "queue_run_delay": "1s"}
LOST = "while sending end of data -- message may be sent more than once"


class FilterService(WeirService):
    """`weir serve` with a filter to the port `next_hop`, and these lines as header and body checks."""

    def __init__(self, next_hop, header="", body="", listener=None, checks=None, bounds=None, **config):
        super().__init__(**config)
        self.filter_port = free_port()
        for name, lines in (("header.pcre", header), ("body.pcre", body)):
            (self.directory / name).write_text(lines)
        self.config["listen"]["filter"] = [{
            "listen": f"inet:127.0.0.1:{self.filter_port}", "next_hop": f"inet:127.0.0.1:{next_hop}", **(listener or {})}]
        self.config["filter"] = {"spool": str(self.directory), **(bounds or {})}
        self.config["checks"] = {
            **({} if "sets" in (checks or {}) else {
                "header": [f"pcre:{self.directory}/header.pcre"], "body": [f"pcre:{self.directory}/body.pcre"]}),
            "cache": f"{self.directory}/cache", **(checks or {})}


class NextHop:
    """An SMTP server that runs `serve(lines, connection)` for each connection; `lines` yields the received lines."""

    def __init__(self, serve):
        self.serve = serve
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = []

    def __enter__(self):
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()
        return self

    def __exit__(self, *_):
        end_listening(self.listener)
        self.acceptor.join()
        for connection in self.connections:
            connection.close()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.run, args=(connection,), daemon=True).start()

    def run(self, connection):
        with contextlib.suppress(OSError, StopIteration, ValueError), connection:
            self.serve(iter(connection.makefile("rb").readline, b""), connection)


def dialogue(replies, messages=None, before=None):
    """A server for NextHop: answers each command with the reply of its first word, or "250 Ok".

    A reply may be bytes to be sent as they are, or None: the connection is closed. "." is the reply to a message,
    which goes to `messages` as (envelope lines, content as it came over the wire). `before` is called with the word before
    each reply, and may wait.
    """
    defaults = {"": "220 hop.example.org", "EHLO": "250-hop.example.org\r\n250-PIPELINING\r\n250 8BITMIME", "DATA": "354 go", "QUIT": "221 Bye"}

    def serve(lines, connection):
        def answer(word):
            reply = replies.get(word, defaults.get(word, "250 Ok"))
            if before is not None:
                before(word)
            if reply is None:
                raise StopIteration
            connection.sendall(reply if isinstance(reply, bytes) else reply.encode() + b"\r\n")
            return reply
        answer("")
        envelope = []
        for line in lines:
            word = line.split()[0].split(b":")[0].upper().decode()
            if word in ("MAIL", "RSET", "EHLO"):
                envelope = []
            envelope.append(line.rstrip(b"\r\n").decode())
            if str(answer(word)).startswith("354"):
                content = bytearray()
                for line in lines:
                    if line == b".\r\n":
                        break
                    content += line
                else:
                    return
                # Record the message before the client learns that it was accepted.
                if messages is not None and str(replies.get(".", "250")).startswith("250"):
                    messages.append((envelope, bytes(content)))
                answer(".")
                envelope = []
            if word == "QUIT":
                return

    return serve


def lmtp_dialogue(delivered, reply=lambda number, recipient, lines: b"250 2.1.5 Ok", before=lambda word, recipients: None):
    """A server for NextHop that speaks LMTP. `reply` is the final reply for a recipient, the one with this number in its
    transaction; recipients that it accepts go to `delivered`. `before` is called before each reply to a command."""
    def serve(lines, connection):
        def say(text):
            connection.sendall(text + b"\r\n")
        say(b"220 hop.example.org")
        recipients = []
        for line in lines:
            word = line[:4].upper()
            if word == b"RCPT":
                recipients.append(line.split(b"<")[1].split(b">")[0].decode())
            elif word in (b"MAIL", b"RSET"):
                recipients = []
            before(word, recipients)
            say({b"LHLO": b"250 hop.example.org", b"DATA": b"354 go"}.get(word, b"250 Ok"))
            if word != b"DATA":
                continue
            while next(lines) != b".\r\n":
                pass
            for number, recipient in enumerate(recipients):
                text = reply(number, recipient, lines)
                if text.startswith(b"2"):
                    delivered.append(recipient)
                say(text)

    return serve


def services(reinject_port, ways=("weir",)):
    """The services of conf/postfix/master.cf with these ports, without chroot and with other paths: the `ways` to Weir, and the reinjection service."""
    lines = (CONF / "master.cf").read_text().splitlines()
    found, name = {}, None
    for line in lines:
        if line.startswith((" ", "\t")):
            if name:
                found[name] += " " + line.strip()
        elif line and not line.startswith("#"):
            name = line.split()[0]
            found[name] = line
        elif not line.startswith("#"):
            name = None
    result = []
    for service in (*ways, "127.0.0.1:10026", "weir_cleanup"):
        words = found[service].split()
        words[4] = "n"
        text = " ".join(words).replace("/etc/weir/postfix", str(CONF))
        result.append(text.replace("127.0.0.1:10026", f"127.0.0.1:{reinject_port}"))
    return result


@contextlib.contextmanager
def filtered_postfix(sink_port, header="", body="", main=None, listener=None, before_queue=False, **config):
    """Yields a Postfix and a Weir that filters its mail."""
    reinject = free_port()
    with FilterService(reinject, header, body, listener, **config) as weir:
        parameters = {} if before_queue else {
            "content_filter": f"weir:[127.0.0.1]:{weir.filter_port}", "receive_override_options": "no_address_mappings",
            "weir_destination_recipient_limit": "1000"}
        postfix = PrivatePostfix(main={**parameters, **(main or {})}, relay=sink_port, services=services(reinject))
        if before_queue:
            postfix.services[0] += f" -o smtpd_proxy_filter=127.0.0.1:{weir.filter_port} -o content_filter="
        with postfix:
            yield postfix, weir


def losses(log):
    """How often Postfix has lost the filter between the final dot and the reply: by the number in the sender's address."""
    senders = dict(re.findall(r": ([0-9A-F]+): from=<(\d+)@example\.org>", log))
    found = re.findall(r": ([0-9A-F]+): (?:to=.*status=deferred \()?lost connection with [^\n]*" + re.escape(LOST), log)
    return collections.Counter(int(senders[queue_id]) for queue_id in found)
