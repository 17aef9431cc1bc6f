# SPDX-License-Identifier: Apache-2.0
"""What Tests/decoders compares, and why results differ."""

# Values of a Subject.
WORDS = {
    "plain": "plain text (comment) \"quoted\"",
    "one word": "=?utf-8?Q?caf=C3=A9?=",
    "two words": "=?utf-8?Q?ca?= =?utf-8?B?ZsOp?=",
    "two words, folded": "=?utf-8?Q?ca?=\n =?utf-8?B?ZsOp?=",
    "two words without a blank": "=?utf-8?Q?ca?==?utf-8?B?ZsOp?=",
    "split in a character": "=?utf-8?B?Y2Fmww==?= =?utf-8?B?qQ==?=",
    "split in a character, other case": "=?utf-8?B?Y2Fmww==?= =?UTF-8?Q?=A9?=",
    "split in a character, text between": "=?utf-8?B?Y2Fmww==?= x =?utf-8?B?qQ==?=",
    "split in a character, two bytes of three": "=?utf-8?B?4oI=?= =?utf-8?B?rA==?=",
    "split in a character of gb18030": "=?gb18030?B?xA==?= =?gb18030?B?48Q=?= =?gb18030?B?4w==?=",
    "state over words": "=?iso-2022-jp?B?GyRCRnw=?= =?iso-2022-jp?B?S1w=?=",
    "state ends in each word": "=?iso-2022-jp?B?GyRCRnwbKEI=?= =?iso-2022-jp?B?GyRCS1wbKEI=?=",
    "without ?=": "=?utf-8?B?Y2Fmw6k",
    "without ?=, a word after it": "=?utf-8?Q?caf =?utf-8?Q?x?=",
    "with ? only": "=?utf-8?Q?caf?",
    "no text": "x =?utf-8?Q??= y",
    "no encoding": "=?utf-8??caf?=",
    "unknown encoding": "=?utf-8?X?caf?=",
    "no character set": "=??Q?caf=C3=A9?=",
    "unknown character set": "=?x-none?Q?caf?=",
    "unknown character set, bytes": "=?x-none?Q?caf=C3=A9?=",
    "language": "=?utf-8*fr?Q?caf=C3=A9?=",
    "blanks inside": "=?utf-8?Q?a b?=",
    "blanks inside base64": "=?utf-8?B?Y2Fm w6k=?=",
    "folded inside": "=?utf-8?Q?a\n b?=",
    "question mark inside": "=?utf-8?Q?a?b?=",
    "in a word": "x=?utf-8?Q?a?=y",
    "in quotes": "\"=?utf-8?Q?a?=\"",
    "in a comment": "(=?utf-8?Q?a?=)",
    "nested": "=?utf-8?Q?=3D=3Futf-8=3FQ=3Fa=3F=3D?=",
    "nested in base64": "=?utf-8?B?PT91dGYtOD9RP2E/PQ==?=",
    "padding missing": "=?utf-8?B?Y2Fmw6?=",
    "padding missing, one character left": "=?utf-8?B?Y2Fmw6kx?= =?utf-8?B?Y2Fmw6kxY?=",
    "padding, then more": "=?utf-8?B?YQ==Yg==?=",
    "padding only": "=?utf-8?B?====?=",
    "junk in base64": "=?utf-8?B?Y2*Fm!w6k=?=",
    "URL alphabet in base64": "=?utf-8?B?w7_Dvw==?=",
    "= without digits": "=?utf-8?Q?100=?= =?utf-8?Q?a=zz?=",
    "one digit": "=?utf-8?Q?a=4?=",
    "lower case digits": "=?utf-8?q?caf=c3=a9?=",
    "underscore": "=?utf-8?Q?a_b=5Fc?=",
    "line end in a word": "=?utf-8?Q?a=0Ab=0Dc?=",
    "NUL in a word": "=?utf-8?Q?a=00b?=",
    "not UTF-8": "=?utf-8?Q?a=FFb?=",
    "overlong UTF-8": "=?utf-8?Q?=C0=AF?=",
    "surrogate": "=?utf-8?Q?=ED=A0=80?=",
    "ASCII with bytes": "=?us-ascii?Q?caf=C3=A9?=",
    "iso-8859-1 with C1": "=?iso-8859-1?Q?=80?=",
    "utf-16 without a mark": "=?utf-16?B?AGEAYg==?=",
    "utf-16 with a mark": "=?utf-16?B?//5hAGIA?=",
    "utf-16be, odd": "=?utf-16be?B?AGEA?=",
    "utf-7": "=?utf-7?Q?+AOQ-?=",
    "unencoded 8 bit": "caf=?utf-8?Q?=C3=A9?= ok",
    "many words": " ".join(f"=?utf-8?Q?{number}?=" for number in range(60)),
}

# Parameters of a Content-Type: the name of a file.
PARAMETERS = {
    "plain": "name=a.exe",
    "quoted": 'name="a b.exe"',
    "escaped": 'name="a\\"b.exe"',
    "extended": "name*=utf-8''r%C3%A4t.exe",
    "extended, language": "name*=utf-8'de'r%C3%A4t.exe",
    "extended, without a character set": "name*=''rat.exe",
    "extended, without quotes": "name*=r%C3%A4t.exe",
    "extended, in quotes": "name*=\"utf-8''r%C3%A4t.exe\"",
    "extended, unknown character set": "name*=x-none''rat.exe",
    "extended, % without digits": "name*=utf-8''100%.exe",
    "sections": 'name*0="a."; name*1="exe"',
    "sections, out of order": 'name*1="exe"; name*0="a."',
    "sections, extended": "name*0*=utf-8''r%C3%A4; name*1*=t.e; name*2=xe",
    "sections, extended, out of order": "name*2=xe; name*0*=utf-8''r%C3%A4; name*1*=t.e",
    "sections, split in a character": "name*0*=utf-8''r%C3; name*1*=%A4t.exe",
    "sections, plain first": "name*0=\"a%20\"; name*1*=b%20c.exe",
    "sections, a gap": 'name*0="a."; name*2="exe"',
    "sections, without 0": 'name*1="a."; name*2="exe"',
    "sections, twice": 'name*0="a."; name*0="b."; name*1="exe"',
    "sections, leading zero": 'name*00="a."; name*01="exe"',
    "sections, ten": "; ".join(f'name*{number}="{number % 10}"' for number in range(12)),
    "both forms": "name=a.txt; name*=utf-8''b.exe",
    "both forms, extended first": "name*=utf-8''b.exe; name=a.txt",
    "encoded word": 'name="=?utf-8?Q?r=C3=A4t.exe?="',
    "encoded word without quotes": "name==?utf-8?Q?r=C3=A4t.exe?=",
    "upper case": "NAME=a.exe",
    "blanks around =": "name = a.exe",
    "quote without an end": 'name="a.exe',
    "two": "name=a.txt; name=b.exe",
    "semicolon in quotes": 'name="a;b.exe"',
    "comment": "name=a.exe (comment)",
}


def _message(*lines, kind="text/plain", encoding=None):
    head = f"MIME-Version: 1.0\nContent-Type: {kind}\n" + (f"Content-Transfer-Encoding: {encoding}\n" if encoding else "")
    return (head + "\n" + "\n".join(lines)).encode("latin-1")


def _multipart(*lines, kind='multipart/mixed; boundary="b"'):
    return _message(*lines, kind=kind)


MESSAGES = {
    "base64": _message("Y2Fmw6k=", "", encoding="base64"),
    "base64, upper case": _message("Y2Fmw6k=", "", encoding="BASE64"),
    "base64, no padding": _message("Y2Fmw6", "", encoding="base64"),
    "base64, one character left": _message("Y2Fmw", "", encoding="base64"),
    "base64, junk": _message("Y2!Fm", "*w6k=", "", encoding="base64"),
    "base64, padding inside": _message("YQ==", "Yg==", "", encoding="base64"),
    "base64, padding inside a line": _message("YQ==Yg==", "", encoding="base64"),
    "base64, lines of odd length": _message("Y2F", "mw6", "k=", "", encoding="base64"),
    "base64, text after it": _message("Y2Fm", "", "-- ", "a footer", "", encoding="base64"),
    "base64, comment in the encoding": _message("Y2Fm", "", encoding="base64 (comment)"),
    "quoted-printable": _message("caf=C3=A9", "", encoding="quoted-printable"),
    "quoted-printable, soft break": _message("ca=", "f=", "x", "", encoding="quoted-printable"),
    "quoted-printable, soft break with blanks": _message("ca= \t", "f", "", encoding="quoted-printable"),
    "quoted-printable, soft break at the end": _message("caf=", encoding="quoted-printable"),
    "quoted-printable, soft break and line end at the end": _message("caf=", "", encoding="quoted-printable"),
    "quoted-printable, = without digits": _message("a=zz b=4 c", "", encoding="quoted-printable"),
    "quoted-printable, lower case": _message("caf=c3=a9", "", encoding="quoted-printable"),
    "quoted-printable, blanks at the end of a line": _message("a  ", "b", "", encoding="quoted-printable"),
    "quoted-printable, 8 bit": _message("caf\xc3\xa9", "", encoding="quoted-printable"),
    "quoted-printable, long line": _message("=41" * 5000, "", encoding="quoted-printable"),
    "8 bit": _message("caf\xc3\xa9", "", encoding="8bit"),
    "unknown encoding": _message("caf", "", encoding="x-none"),
    "uuencode": _message("begin 644 a", "#86)C", "`", "end", "", encoding="x-uuencode"),
    "multipart": _multipart("--b", "", "one", "--b", "", "two", "--b--", ""),
    "multipart, preamble and epilogue": _multipart("before", "--b", "", "one", "--b--", "after", ""),
    "multipart, no final boundary": _multipart("--b", "", "one", "--b", "", "two", ""),
    "multipart, no line end before the boundary": _multipart("--b", "", "one --b", "", "two", "--b--", ""),
    "multipart, blanks after the boundary": _multipart("--b \t", "", "one", "--b-- ", ""),
    "multipart, text after the boundary": _multipart("--b", "", "one", "--bx", "", "two", "--b--", ""),
    "multipart, boundary in quotes with blanks": _multipart("--a b", "", "one", "--a b--", "", kind='multipart/mixed; boundary="a b"'),
    "multipart, final boundary twice": _multipart("--b", "", "one", "--b--", "--b--", ""),
    "multipart, a part after the final boundary": _multipart("--b", "", "one", "--b--", "--b", "", "two", "--b--", ""),
    "multipart, without a boundary": _multipart("one", "", kind="multipart/mixed"),
    "multipart, boundary missing": _multipart("one", "", "--c", ""),
    "multipart, empty part": _multipart("--b", "", "--b", "", "two", "--b--", ""),
    "multipart, part without headers or empty line": _multipart("--b", "one", "--b--", ""),
    "multipart, nested": _multipart(
        "--b", 'Content-Type: multipart/mixed; boundary="c"', "", "--c", "", "one", "--c--", "--b", "", "two", "--b--", ""),
    "multipart, nested without an end": _multipart(
        "--b", 'Content-Type: multipart/mixed; boundary="c"', "", "--c", "", "one", "--b", "", "two", "--b--", ""),
    "multipart, nested with the same boundary": _multipart(
        "--b", 'Content-Type: multipart/mixed; boundary="b"', "", "--b", "", "one", "--b--", "--b", "", "two", "--b--", ""),
    "multipart, boundary begins like the outer one": _multipart(
        "--b", 'Content-Type: multipart/mixed; boundary="bb"', "", "--bb", "", "one", "--bb--", "--b", "", "two", "--b--", ""),
    "multipart/digest": _multipart(
        "--b", "", "Subject: x", "", "one", "--b--", "", kind='multipart/digest; boundary="b"'),
    "message": _message("Subject: x", "Content-Type: text/html", "", "one", "", kind="message/rfc822"),
    "message, in a part": _multipart(
        "--b", "Content-Type: message/rfc822", "", "Subject: x", "", "one", "--b", "", "two", "--b--", ""),
    "message, in base64": _multipart(
        "--b", "Content-Type: message/rfc822", "Content-Transfer-Encoding: base64", "", "U3ViamVjdDogeAoKb25lCg==", "--b--", ""),
    "message, without a body": _message("Subject: x", "", kind="message/rfc822"),
    "CRLF": _multipart("--b", "", "one", "--b", "", "two", "--b--", "").replace(b"\n", b"\r\n"),
    "no body": b"MIME-Version: 1.0\nContent-Type: text/plain\n",
    "no headers": b"\none\n",
    "two types": b"MIME-Version: 1.0\nContent-Type: text/plain\nContent-Type: text/html\n\none\n",
    "type without a slash": _message("one", "", kind="text"),
    "two encodings": b"MIME-Version: 1.0\nContent-Transfer-Encoding: base64\nContent-Transfer-Encoding: 7bit\n\nY2Fm\n",
}


SLASH, OWN, UNKNOWN, WIDE = "names with a slash", "iconv's own memory", "unknown to Python", "wide characters"


def charset_key(name, other, result):
    """The reason for a difference in a character set, as a key of EXPLANATIONS."""
    if "/" in name:
        return SLASH
    if name == "WCHAR_T":
        return OWN
    if other == "python" and result == "(LookupError)":
        return UNKNOWN
    return WIDE if other == "reformime" and result == " " else None


_SLASH = "Weir opens no name with a slash: what follows it would be options of iconv. The bytes are read as UTF-8"
_OWN = "the form of iconv's own memory is no character set of mail"
_BROKEN = "reformime writes nothing for a text with a broken character; Weir shows U+FFFD, and what stands around it"
_EACH = "reformime decodes each word by itself; mail programs join a character that is split over two words"
_OTHERS = "Weir shows what the programs show that are less strict, so that a rule sees it"
_FIRST = "several names: Weir lists all of them, this shows the first"
_LAST_LINE_END = "the line end before the end of the message belongs to the part, because no boundary follows it"

EXPLANATIONS = {
    (SLASH, "iconv"): _SLASH,
    (SLASH, "python"): _SLASH,
    (SLASH, "reformime"): _SLASH,
    (OWN, "iconv"): _OWN,
    (OWN, "python"): _OWN,
    (OWN, "reformime"): _OWN,
    (UNKNOWN, "python"): "Python has no such character set",
    (WIDE, "reformime"): "reformime writes nothing for character sets of two or four bytes",

    ("split in a character", "reformime"): _EACH,
    ("split in a character, other case", "reformime"): _EACH,
    ("split in a character, text between", "reformime"): _BROKEN,
    ("split in a character, two bytes of three", "reformime"): _EACH,
    ("split in a character of gb18030", "reformime"): _EACH,
    ("state over words", "python"): "Python keeps the state over words; RFC 2047 3 lets each begin in ASCII",
    ("without ?=, a word after it", "reformime"): "reformime ends the word at the blank, and drops the rest; Weir reads up to the next ?=",
    ("no text", "reformime"): "reformime keeps the blanks around an empty word, and adds one",
    ("no character set", "python"): "no word by RFC 2047, so it stays; Python takes it for ASCII",
    ("no character set", "reformime"): "no word by RFC 2047, so it stays; reformime takes it for UTF-8",
    ("unknown character set", "python"): "Python raises LookupError; ASCII stays visible",
    ("unknown character set", "reformime"): "reformime writes a message instead of the text; ASCII stays visible",
    ("unknown character set, bytes", "python"): "Python raises LookupError; Weir reads UTF-8",
    ("unknown character set, bytes", "reformime"): "reformime writes a message instead of the text; Weir reads UTF-8",
    ("blanks inside base64", "reformime"): "reformime stops at a blank in base64; other bytes are skipped (RFC 2045 6.8)",
    ("padding missing", "reformime"): _BROKEN,
    ("padding missing, one character left", "python"): "Python raises HeaderParseError for a single character of base64; Weir drops it",
    ("padding, then more", "python"): f"Python stops at the padding. {_OTHERS}",
    ("padding only", "reformime"): "reformime writes a NUL",
    ("junk in base64", "reformime"): "reformime decodes other bytes as if they were base64; RFC 2045 6.8 skips them",
    ("URL alphabet in base64", "python"): "Python raises HeaderParseError for the length that is left; _ is skipped (RFC 2045 6.8)",
    ("URL alphabet in base64", "reformime"): _BROKEN,
    ("= without digits", "reformime"): "reformime drops a = without two digits, and what follows; it stays, as in mail programs",
    ("one digit", "reformime"): "reformime takes one digit for two; a = without two digits stays",
    ("NUL in a word", "reformime"): "reformime stops at a NUL; a control character becomes a blank",
    ("not UTF-8", "reformime"): "reformime drops the byte; Weir shows U+FFFD",
    ("overlong UTF-8", "reformime"): _BROKEN,
    ("surrogate", "reformime"): _BROKEN,
    ("ASCII with bytes", "python"): "text that claims to be ASCII is shown as UTF-8 if it is that",
    ("ASCII with bytes", "reformime"): "text that claims to be ASCII is shown as UTF-8 if it is that; reformime drops it",
    ("iso-8859-1 with C1", "python"): "mail programs read iso-8859-1 as windows-1252 (WHATWG)",
    ("iso-8859-1 with C1", "reformime"): "mail programs read iso-8859-1 as windows-1252 (WHATWG)",
    ("utf-16 without a mark", "reformime"): "reformime writes nothing for character sets of two or four bytes",
    ("utf-16 with a mark", "reformime"): "reformime writes nothing for character sets of two or four bytes",
    ("utf-16be, odd", "reformime"): "reformime writes nothing for character sets of two or four bytes",

    ("name escaped", "reformime"): "reformime keeps the backslash (RFC 5322 3.2.4 removes it)",
    ("name extended, without quotes", "python"): "without a character set, Python reads ASCII and Weir UTF-8",
    ("name extended, unknown character set", "reformime"): "reformime drops the name; ASCII stays visible",
    ("name extended, % without digits", "reformime"): "reformime takes any two bytes for digits; % without digits stays",
    ("name sections, twice", "reformime"): "reformime takes the last of two sections with one number; Weir shows both",
    ("name both forms", "reformime"): _FIRST,
    ("name both forms, extended first", "python"): _FIRST,
    ("name encoded word", "python"): "RFC 2047 5 forbids words there, but mail programs decode them",
    ("name encoded word", "reformime"): "RFC 2047 5 forbids words there, but mail programs decode them",
    ("name encoded word without quotes", "python"): "RFC 2047 5 forbids words there, but mail programs decode them",
    ("name encoded word without quotes", "reformime"): "RFC 2047 5 forbids words there, but mail programs decode them",
    ("name quote without an end", "python"): "Python keeps the quote; Weir takes the rest for the name",
    ("name two", "reformime"): _FIRST,
    ("name comment", "reformime"): "in a value, mail programs show what looks like a comment",

    ("base64, no padding", "reformime"): f"reformime drops the last bytes without padding. {_OTHERS}",
    ("base64, one character left", "python"): "Python returns the encoded text for a length that can't be; Weir decodes as far as possible",
    ("base64, padding inside", "python"): f"Python stops at the padding. {_OTHERS}",
    ("base64, padding inside a line", "python"): f"Python stops at the padding. {_OTHERS}",
    ("base64, text after it", "reformime"): "letters of a footer are base64, too; reformime drops the last ones, which have no padding",
    ("base64, comment in the encoding", "python"): "a comment is no part of the encoding (RFC 2045 6.1)",
    ("quoted-printable, soft break with blanks", "python"): "RFC 2045 6.7 allows blanks between = and the line end; Python keeps them",
    ("quoted-printable, soft break at the end", "python"): "a = without a line end after it stays",
    ("quoted-printable, soft break at the end", "reformime"): "a = without a line end after it stays",
    ("quoted-printable, = without digits", "reformime"): "reformime drops or misreads = without two digits; it stays, as in mail programs",
    ("uuencode", "reformime"): "reformime knows no uuencode",
    ("multipart, no final boundary", "python"): _LAST_LINE_END,
    ("multipart, no final boundary", "reformime"): _LAST_LINE_END,
    ("multipart, text after the boundary", "reformime"): "a boundary is a line of its own (RFC 2046 5.1.1); reformime compares its beginning",
    ("multipart, part without headers or empty line", "reformime"): "a line that is no header begins the body; reformime drops it",
    ("multipart, nested with the same boundary", "python"): "Python takes the line for the outer boundary, Weir for the inner one: all text is seen",
    ("multipart, nested with the same boundary", "reformime"): "reformime takes the line for the outer boundary, Weir for the inner one: all text is seen",
    ("multipart, boundary begins like the outer one", "reformime"): "reformime compares the beginning of the line, and cuts the inner part",
    ("multipart/digest", "reformime"): "reformime counts the line end before the boundary to the attached message",
    ("message", "reformime"): "reformime reads no Content-Type without MIME-Version; mail programs do",
    ("message, in a part", "reformime"): "reformime counts the line end before the boundary to the attached message",
    ("message, in base64", "python"): "RFC 2046 5.2.1 forbids the encoding; Weir decodes it and checks it as text",
    ("message, in base64", "reformime"): "RFC 2046 5.2.1 forbids the encoding; Weir decodes it and checks it as text",
    ("no body", "reformime"): "reformime adds a line end",
    ("two types", "reformime"): "the first header counts in Weir, the last one in reformime",
    ("type without a slash", "reformime"): "such a type is text/plain (RFC 2045 5.2)",
    ("two encodings", "reformime"): "the first header counts in Weir, the last one in reformime",
}
