#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables and the mail that the rules benchmark runs on; the same each time.

  corpus.py FOLDER

header-N.pcre and body-N.pcre have N rules of the kinds that people write: a third of them plain
words and addresses, a third with classes and repeats, some with `.*` at an end, one in fifty
with a back-reference or a look-around. clean-SIZE.mail are whole messages, each ended by a line
with a form feed, in which no rule matches; hits-4096.mail is the same with one body line in a
hundred matching a rule. plain-65536.mail are messages of plain text. html-65536.mail are messages of HTML in base64.
attachment-100.pcre has 100 rules for attachments.
"""
import base64
import pathlib
import random
import sys

SYLLABLES = "ba ce di fo gu ha je ki lo mu ne po qi ra su te vu wi xo zy".split()
WORDS = """time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work government
number night point home water room mother area money story fact month lot right study book eye
job word business issue side kind head house service friend father power hour game line end
member law car city community name president team minute idea body information back parent face
others level office door health person art war history party result change morning reason""".split()


def token(number):
    """A word that no message has, one for each number."""
    word = "q"
    for _ in range(4):
        word += SYLLABLES[number % 20]
        number //= 20
    return word


HEADER = [
    (r"^Subject:.*\b(offer|bargain|deal)\b.*{w}", "Subject: best deal {w}"),
    (r"^From:.*@(mail|news)[0-9]{{1,3}}\.{w}\.example>?$", "From: a@mail7.{w}.example"),
    (r"^X-Mailer:\s+{w} v?[0-9]+\.[0-9]+", "X-Mailer: {w} v2.0"),
    (r"^Received: from .* \(HELO {w}\)", "Received: from x (HELO {w})"),
    (r"name=\"?[^\"]*{w}\.(exe|scr|js)\"?", "X-File: name=\"{w}.exe\""),
    (r".*{w}.*(casino|lottery).*", "Subject: {w} lottery"),
    (r"^Reply-To:.*{w}[0-9]{{2,6}}@", "Reply-To: {w}123@example.org"),
]
BODY = [
    (r"https?://(www\.)?{w}-(shop|loans)\.example/", "see http://www.{w}-shop.example/x"),
    (r"\b{w}\s+(discount|promo)\s+code\b", "{w} promo code"),
    (r"(click|tap)\s+(here|below)\s+to\s+(claim|collect)\s+your\s+{w}", "click here to claim your {w}"),
    (r"\bwallet\s*[:=]\s*{w}[a-km-z1-9]{{20,34}}", "wallet: {w}abcdefghijkabcdefghijk"),
    (r"^TVqQ[A-Za-z0-9+\/]{{8}}{w}", "TVqQAAAAAAAA{w}"),
    (r".*unsubscribe.*{w}.*", "to unsubscribe say {w} now"),
    (r"\$[0-9,]+(\.[0-9]{{2}})?\s+from\s+{w}", "$1,000 from {w}"),
    (r"<a\s+href=[\"']?https?://[0-9]{{1,3}}(\.[0-9]{{1,3}}){{3}}/{w}", "<a href=\"http://192.0.2.3/{w}\">"),
    (r"(dear|hello)\s+(friend|winner)[,!]?\s+.*{w}", "dear winner, {w}"),
    (r"[a-z0-9._%+-]+@{w}[0-9]*\.(example|test)\b", "mail to a.b@{w}9.example"),
]
HARD = [(r"\b(\w{{3,12}})\s+\1\s+{w}", "money money {w}"), (r"(?<!not )spam{w}(?! list)", "spam{w} yes")]


def rules(kinds, count):
    for number in range(count):
        pattern, example = HARD[number // 50 % 2] if number % 50 == 49 else kinds[number % len(kinds)]
        yield pattern.format(w=token(number)), example.format(w=token(number))


def sentence(r):
    return " ".join(r.choice(WORDS) for _ in range(r.randint(4, 12))).capitalize() + "."


def body_lines(r, size):
    total = 0
    while total < size:
        dice = r.random()
        if dice < 0.08:
            line = ""
        elif dice < 0.25:
            line = "".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
                           for _ in range(76))
        elif dice < 0.4:
            line = f'<td style="width:{r.randint(1, 900)}px"><a href="https://t{r.randint(1, 99)}.example.net/' \
                   f'c/{r.randrange(1 << 40):x}">{r.choice(WORDS)}</a></td>'
        else:
            line = (sentence(r) + " " + sentence(r))[:r.choice((60, 68, 72, 76))]
        yield line
        total += len(line) + 2


def message(r, size, hits=()):
    lines = ["Received: from mail.example.net (mail.example.net [192.0.2.10])",
             "\tby mx.example.org (Postfix) with ESMTPS id 4XyZ1a2b3cz9",
             "\tfor <bob@example.org>; Thu, 01 Jan 2026 12:00:00 +0000 (UTC)",
             "Date: Thu, 01 Jan 2026 12:00:00 +0000", "From: Alice <alice@example.net>",
             "To: Bob <bob@example.org>", "Subject: " + sentence(r),
             f"Message-ID: <{r.randrange(1 << 60):x}@example.net>", "MIME-Version: 1.0",
             'Content-Type: multipart/alternative; boundary="=_part_42"', "X-Mailer: Example 7.1", "",
             "--=_part_42", "Content-Type: text/plain; charset=utf-8", ""]
    body = list(body_lines(r, size - 700))
    for index in range(len(body)):
        if hits and r.random() < 0.01:
            body[index] = r.choice(hits)
    half = len(body) // 2
    lines += body[:half] + ["--=_part_42", "Content-Type: text/html; charset=utf-8", ""] + body[half:]
    return "\r\n".join(lines + ["--=_part_42--", ""])


def single(r, size, kind):
    """A message with one part."""
    head, _, _ = message(r, 800).partition("Content-Type:")
    if kind == "plain":
        lines = [f"{head}Content-Type: text/plain; charset=utf-8", ""]
        lines += [line for line in body_lines(r, size - 600) if not line.startswith("<")]
        while len("\r\n".join(lines)) < size:
            lines.append((sentence(r) + " " + sentence(r))[:72])
        return "\r\n".join(lines + [""])
    text = "\n".join(f"<p>{line}</p>" if not line.startswith("<") else line for line in body_lines(r, size * 3 // 4 - 2500))
    encoded = base64.encodebytes(text.encode()).decode().replace("\n", "\r\n")
    return f"{head}Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}"


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for count in (10, 1_000, 10_000):
        for name, kinds in (("header", HEADER), ("body", BODY)):
            (folder / f"{name}-{count}.pcre").write_text("".join(
                f"/{pattern.replace('/', chr(92) + '/').replace(chr(92) * 2 + '/', chr(92) + '/')}/ WARN {name} {number}\n"
                for number, (pattern, _) in enumerate(rules(kinds, count))))
    (folder / "attachment-100.pcre").write_text("".join(
        f'/; name="[^"]*{token(number)}\\.(exe|scr|js)"/ WARN attachment {number}\n' for number in range(100)))
    for kind in ("plain", "html"):
        r = random.Random(kind)
        with open(folder / f"{kind}-65536.mail", "w", newline="") as file:
            for _ in range(20):
                file.write(single(r, 65_536, kind) + "\f\n")
    examples = [example for _, example in rules(BODY, 1_000)]
    for name, size, count, hits in (("clean-4096", 4096, 400, ()), ("clean-65536", 65536, 40, ()),
                                    ("hits-4096", 4096, 400, examples)):
        r = random.Random(name)
        with open(folder / f"{name}.mail", "w", newline="") as file:
            for _ in range(count):
                file.write(message(r, size, hits) + "\f\n")


if __name__ == "__main__":
    main()
