# SPDX-License-Identifier: Apache-2.0
"""The ways in which Weir gets mail, beside Postfix alone with the same rules in its own checks."""
import contextlib
import re
import shutil

from filtering import FilterService, filtered_postfix, services
from milter import milter_postfix
from postfix import PrivatePostfix, free_port, wait_until
from weir import BINARY


def pipe_service(weir, reinject):
    """The service weirpipe of conf/postfix/master.cf, with the rules of `weir`. Mail returns by SMTP to the port `reinject`.

    pipe(8) runs the command as a user without access to the private Postfix's sendmail(1).
    """
    binary, back = weir.directory / "weir", weir.directory / "back"
    shutil.copy(BINARY, binary)
    back.write_text(
        "#!/usr/bin/python3\nimport smtplib, sys\nwith smtplib.SMTP('127.0.0.1', %d) as hop:\n"
        "    hop.sendmail(sys.argv[2], sys.argv[4:], sys.stdin.buffer.read().replace(b'\\n', b'\\r\\n'), ['BODY=8BITMIME'])\n" % reinject)
    for path, mode in ((binary, 0o755), (back, 0o755), (weir.config_file, 0o644)):
        path.chmod(mode)
    line = services(reinject, ways=("weirpipe",))[0].replace("user=weir", "user=nobody")
    return line.replace("/usr/bin/weir filter", f"{binary} filter --config {weir.config_file} --to {back}")


@contextlib.contextmanager
def piped_postfix(sink_port, header, body, main, **config):
    """A Postfix that pipes its mail through `weir filter`, which hands it to a second smtpd."""
    reinject = free_port()
    weir = FilterService(free_port(), header, body, **config)
    try:
        weir.configure()
        others = services(reinject, ways=())
        postfix = PrivatePostfix(main=main, relay=sink_port, services=[pipe_service(weir, reinject), *others])
        postfix.services[0] += " -o content_filter=weirpipe:dummy"
        with postfix:
            yield postfix, weir
    finally:
        weir.__exit__()


@contextlib.contextmanager
def plain_postfix(sink_port, header, body, main):
    """Postfix alone, with the rules in its own checks."""
    postfix = PrivatePostfix(main=main, relay=sink_port)
    for name, lines in (("header", header), ("body", body)):
        (postfix.directory / name).write_text(lines)
        postfix.parameters[f"{name}_checks"] = f"pcre:{postfix.directory}/{name}"
    with postfix:
        yield postfix, None


# Each yields a Postfix and a Weir, or None. `config` adds to the configuration of Weir.
OPEN = {
    "postfix": plain_postfix,
    "milter": lambda sink, header, body, main, **config: milter_postfix(sink, header, body, main=main, **config),
    "filter": lambda sink, header, body, main, **config: filtered_postfix(sink, header, body, main=main, **config),
    "proxy": lambda sink, header, body, main, **config: filtered_postfix(
        sink, header, body, main=main, listener={"mode": "before_queue"}, before_queue=True, **config),
    "pipe": piped_postfix,
}


def wait_settled(postfix, weir, timeout=120):
    """Waits until nothing is left in the queue but mail on hold and mail that waits."""
    def is_settled():
        queue = postfix.queue()
        return all(message["queue_name"] in ("hold", "deferred") for message in queue) and queue == postfix.queue()
    wait_until(is_settled, lambda: f"the queue settled\n{postfix.log()}\n{weir.log() if weir else ''}", timeout, interval=1)


def normal(content):
    """The content with LF, and the trace headers of this run reduced to whether the first smtpd's own is there.

    Received: headers that messages bring are from old.example.org or host0.example.org and so on.
    """
    content = content.replace(b"\r\n", b"\n")
    head, _, body = content.partition(b"\n\n")
    kept = []
    for header in re.split(rb"\n(?![ \t])", head):
        if re.match(rb"Received: from (client|own)\.example\.org ", header):
            header = b"Received: of this Postfix"
        elif re.match(rb"Received: (?!from (old|host\d)\.example\.org)", header):
            continue
        elif re.match(rb"Resent-(Message-Id|Date):", header, re.I):
            continue
        elif re.match(rb"Message-Id: <\d+\.\w+@mx\.example\.org>", header, re.I):
            header = b"Message-Id: added"
        kept.append(header)
    return b"\n".join(kept) + b"\n\n" + body
