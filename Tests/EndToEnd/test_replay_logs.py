# SPDX-License-Identifier: Apache-2.0
"""weir replay: the forms of logs, the hour that comes twice in autumn, mail from content filters, masked limits."""
import datetime
import json
import unittest

from test_replay import Replay
from weir import weir

UTC = datetime.timezone.utc
CET = datetime.timezone(datetime.timedelta(hours=1), "CET")
CEST = datetime.timezone(datetime.timedelta(hours=2), "CEST")
NEWFOUNDLAND = datetime.timezone(datetime.timedelta(hours=-3, minutes=-30), "NDT")
ONE_PER_HOUR = [{"name": "per-sender", "key": ["sender"], "rates": ["1/1h"], "over": "REJECT no"}]


def syslog(moment, padded=False):
    day = f"{moment.day:02}" if padded else f"{moment.day:2}"
    return f"{moment:%b} {day} {moment:%H:%M:%S}"


def short_zone(moment, colon):
    text = moment.strftime("%z")
    return f"{text[:3]}:{text[3:]}" if colon else text


def iso(moment, precise=False, colon=False):
    return f"{moment:%Y-%m-%dT%H:%M:%S}" + (".123456" if precise else "") + short_zone(moment, colon)


def plain(time):
    """A form that differs from that of a syslog file only in its time."""
    return lambda moment, tag, pid, text: f"{time(moment)} mx {tag}[{pid}]: {text}"


def journal(moment, tag, text):
    return json.dumps({
        "PRIORITY": "6", "__REALTIME_TIMESTAMP": f"{int(moment.timestamp())}123456", "_SOURCE": None, "N": 7, "SYSLOG_IDENTIFIER": tag,
        "MESSAGE": text, "\u00fc\ud83d\ude00": "\\\"\n\t/"})


# Name, zone, the line of a moment, and the time in the report; %s stands for "YYYY-MM-DD HH:MM:SS".
FORMS = [
    ("syslog", UTC, plain(syslog), "%s"),
    ("postlogd, with a zero before the day", UTC, plain(lambda m: syslog(m, padded=True)), "%s"),
    ("journalctl -o short-precise", UTC, plain(lambda m: f"{syslog(m, padded=True)}.123456"), "%s"),
    ("journalctl -o short-iso before systemd 255", CEST, plain(iso), "%s +02:00"),
    ("journalctl -o short-iso", CEST, plain(lambda m: iso(m, colon=True)), "%s +02:00"),
    ("journalctl -o short-iso-precise", CEST, plain(lambda m: iso(m, precise=True)), "%s +02:00"),
    ("journalctl -o short-full", CET, plain(lambda m: f"{m:%a %Y-%m-%d %H:%M:%S} CET"), "%s +01:00"),
    ("journalctl -o short-full, a zone without a name", CET, plain(lambda m: f"{m:%a %Y-%m-%d %H:%M:%S} +01"), "%s +01:00"),
    ("journalctl -o short-full, an ambiguous zone", CET, plain(lambda m: f"{m:%a %Y-%m-%d %H:%M:%S} IST"), "%s"),
    ("journalctl -o short-unix", UTC, plain(lambda m: f"{int(m.timestamp())}.123456"), "%s +00:00"),
    ("journalctl --no-hostname", UTC, lambda m, tag, pid, text: f"{syslog(m)} {tag}[{pid}]: {text}", "%s"),
    ("rsyslog, RFC 3339", NEWFOUNDLAND, plain(lambda m: iso(m, precise=True, colon=True)), "%s -03:30"),
    ("RFC 3339 in UTC", UTC, plain(lambda m: f"{m:%Y-%m-%dT%H:%M:%S}.123Z"), "%s +00:00"),
    ("a blank between date and time", UTC, plain(lambda m: f"{m:%Y-%m-%d %H:%M:%S}"), "%s"),
    ("a blank and a zone", CEST, plain(lambda m: f"{m:%Y-%m-%d %H:%M:%S} +0200"), "%s +02:00"),
    ("a comma before the fraction", UTC, plain(lambda m: f"{m:%Y-%m-%d %H:%M:%S},123"), "%s"),
    ("RFC 3164 with its priority", UTC, lambda m, tag, pid, text: f"<22>{syslog(m)} mx {tag}[{pid}]: {text}", "%s"),
    ("RFC 5424", CEST, lambda m, tag, pid, text: f"<22>1 {iso(m, True, True)} mx {tag} {pid} - - {text}", "%s +02:00"),
    ("RFC 5424 with structured data", CEST,
     lambda m, tag, pid, text: f'<22>1 {iso(m, True, True)} mx {tag} {pid} - [a@1 b="] \\" [" c="d"][e] \ufeff{text}', "%s +02:00"),
    ("RFC 5424 without its priority", CEST, lambda m, tag, pid, text: f"1 {iso(m, True, True)} mx {tag} {pid} - - {text}", "%s +02:00"),
    ("busybox", UTC, lambda m, tag, pid, text: f"{syslog(m)} mx mail.info {tag}[{pid}]: {text}", "%s"),
    ("syslogd of FreeBSD, verbose", UTC, lambda m, tag, pid, text: f"{syslog(m)} <mail.info> mx {tag}[{pid}]: {text}", "%s"),
    ("docker compose logs", UTC, lambda m, tag, pid, text: f"stack-postfix-1  | {syslog(m, True)} mx {tag}[{pid}]: {text}", "%s"),
    ("docker compose logs, in colour", UTC,
     lambda m, tag, pid, text: f"\x1b[36mpostfix-1  | \x1b[0m{syslog(m, True)} mx {tag}[{pid}]: {text}", "%s"),
    ("docker compose logs --timestamps", UTC,
     lambda m, tag, pid, text: f"postfix-1  | {m:%Y-%m-%dT%H:%M:%S}.123456789Z {syslog(m, True)} mx {tag}[{pid}]: {text}", "%s +00:00"),
    ("docker logs --timestamps", UTC,
     lambda m, tag, pid, text: f"{m:%Y-%m-%dT%H:%M:%S}.123456789Z {iso(m, True, True)} mx {tag}[{pid}]: {text}", "%s +00:00"),
    ("files of Kubernetes", CEST,
     lambda m, tag, pid, text: f"{iso(m, True, True)} stdout F {syslog(m)} mx {tag}[{pid}]: {text}", "%s +02:00"),
    ("kubectl logs --prefix", UTC, lambda m, tag, pid, text: f"[pod/postfix-0/postfix] {syslog(m)} mx {tag}[{pid}]: {text}", "%s"),
    ("a container in the syslog of its machine", UTC,
     lambda m, tag, pid, text: f"{syslog(m)} node docker/postfix[77]: {syslog(m, True)} mx {tag}[{pid}]: {text}", "%s"),
    ("a container in the journal of its machine", UTC,
     lambda m, tag, pid, text: journal(m, "1a2b3c4d5e6f", f"{iso(m, True, True)} mx {tag}[{pid}]: {text}"), "%s +00:00"),
    ("files of Docker", UTC, lambda m, tag, pid, text: json.dumps(
        {"log": f"{syslog(m, True)} mx {tag}[{pid}]: {text}\n", "stream": "stdout", "time": f"{m:%Y-%m-%dT%H:%M:%S}.123456789Z"}), "%s +00:00"),
    ("files of Docker, with attributes", UTC, lambda m, tag, pid, text: json.dumps(
        {"log": f"{syslog(m, True)} mx {tag}[{pid}]: {text}\n", "stream": "stdout", "attrs": {"com.example.role": "mx", "tags": [{}]},
         "time": f"{m:%Y-%m-%dT%H:%M:%S}.123456789Z"}), "%s +00:00"),
    ("journalctl -o json", UTC, lambda m, tag, pid, text: journal(m, tag, text), "%s +00:00"),
    ("journalctl -o json-seq", UTC, lambda m, tag, pid, text: "\x1e" + journal(m, tag, text), "%s +00:00"),
    ("journalctl -o json-sse", UTC, lambda m, tag, pid, text: f"data: {journal(m, tag, text)}\n", "%s +00:00"),
    ("journalctl -o json, bytes", UTC, lambda m, tag, pid, text: journal(m, tag, list(text.encode())), "%s +00:00"),
    ("a year after the day", UTC, plain(lambda m: f"{m:%b} {m.day:2} {m.year} {m:%H:%M:%S}"), "%s"),
    ("a year before the month", UTC, plain(lambda m: f"{m.year} {syslog(m)}.123"), "%s"),
    ("one blank before the day", UTC, plain(lambda m: f"{m:%b} {m.day} {m:%H:%M:%S}"), "%s"),
    ("a host in brackets", UTC, lambda m, tag, pid, text: f"{syslog(m)} [192.0.2.1] {tag}[{pid}]: {text}", "%s"),
    ("no process ids", UTC, lambda m, tag, pid, text: f"{syslog(m)} mx {tag}: {text}", "%s"),
    ("lines of Windows", UTC, lambda m, tag, pid, text: f"{syslog(m)} mx {tag}[{pid}]: {text}\r", "%s"),
    ("a byte order mark", UTC, lambda m, tag, pid, text: f"\ufeff{syslog(m)} mx {tag}[{pid}]: {text}", "%s"),
    ("zeros that a crash left", UTC, lambda m, tag, pid, text: f"{chr(0) * 4096}{syslog(m)} mx {tag}[{pid}]: {text}", "%s"),
]


def message(form, moment, queue_id, sender="a@example.org", client="client.example.org[192.0.2.1]", count=2):
    """The lines of a message in one of the forms."""
    texts = [
        ("postfix/submission/smtpd", f"{queue_id}: client={client}, sasl_method=PLAIN, sasl_username=a"),
        ("postfix/cleanup", f"{queue_id}: message-id=<{queue_id}@example.org>"),
        ("postfix/qmgr", f"{queue_id}: from=<{sender}>, size=1000, nrcpt={count} (queue active)"),
    ]
    return "".join(f"{form(moment, tag, 440, text)}\n" for tag, text in texts)


class Logs(Replay):
    def text(self, *logs, limits=ONE_PER_HOUR, check=True):
        (self.directory / "weir.yaml").write_text(json.dumps({"limits": limits}))
        return weir("replay", *logs, "--config", self.directory / "weir.yaml", check=check)


class Forms(Logs):
    def test_every_form(self):
        for name, zone, form, expected in FORMS:
            with self.subTest(name):
                start = datetime.datetime(2025, 7, 3, 1, 26, 53, tzinfo=zone)
                path = self.write(message(form, start, "B86DB5EF08"), modified=start.timestamp())
                report = self.replay(path, limits=ONE_PER_HOUR)
                figures, refusal = report["log"], report["limits"][0]["refusals"][0]
                self.assertEqual((figures["messages"], figures["recipients"], figures["other_lines"]), (1, 2, 1))
                self.assertEqual(figures["lines_without_time"], 0)
                self.assertEqual((report["limits"][0]["counted"], refusal["refused"]), (2, 1))
                # In UTC if the zone is known, and else as in the log.
                has_zone = expected != "%s"
                since = start if has_zone else start.replace(tzinfo=UTC)
                self.assertEqual(refusal["first"] // 1000, since.timestamp())
                self.assertEqual(refusal.get("first_zone"), zone.utcoffset(None).total_seconds() // 60 if has_zone else None)
                self.assertIn(f"first at {expected % '2025-07-03 01:26:53'}: over", self.text(path).stdout)

    def test_a_part_of_a_log(self):
        """The lines of smtpd alone do not say which mail was accepted."""
        lines = message(plain(syslog), datetime.datetime(2025, 7, 3, tzinfo=UTC), "B86DB5EF08")
        said = "1 message has a line of smtpd and none of qmgr: only part of the log seems to be here"
        for text, is_said in ((lines, False), ("".join(line for line in lines.splitlines(True) if "smtpd" in line), True)):
            self.assertEqual(said in self.text(self.write(text)).stdout, is_said)

    def test_nothing_understood(self):
        monotonic = message(plain(lambda m: "[12345.678901]"), None, "B86DB5EF08")
        other = "Jul  3 01:26:53 mx sshd[1]: Accepted publickey for root\n" * 5
        first = {"monotonic": monotonic.splitlines()[0], "other": other.splitlines()[0], "rubbish": "one"}
        for name, log in (("monotonic", monotonic), ("other", other), ("rubbish", "one\ntwo\x07\n")):
            with self.subTest(name):
                path = self.write(log, name)
                result = self.text(path, check=False)
                count = len(log.splitlines())
                self.assertEqual((result.returncode, result.stdout), (65, ""))
                lines = result.stderr.splitlines()
                self.assertEqual(lines[0], f"weir replay: {path}: none of {count} lines is Postfix's in a form that Weir can read; the first lines:")
                self.assertEqual((lines[1], len(lines)), (f"  {first[name]}", 1 + min(3, count)))
        # One file of two is understood.
        good = self.write(message(FORMS[0][2], datetime.datetime(2025, 7, 3, tzinfo=UTC), "B86DB5EF08"), "good")
        report = self.replay(path, good)
        self.assertEqual(report["log"]["faults"], [f"{path}: none of 2 lines is Postfix's in a form that Weir can read"])
        self.assertEqual(report["log"]["messages"], 1)


class Autumn(Logs):
    """At 03:00 on 26 October 2025, clocks in Europe were set back to 02:00."""

    def log(self, form, minutes):
        """Messages from one sender, some minutes after 00:00 UTC: 02:00 CEST."""
        texts = []
        for number, minute in enumerate(minutes):
            moment = datetime.datetime(2025, 10, 26, 0, 0, tzinfo=UTC) + datetime.timedelta(minutes=minute)
            texts.append(message(form, moment.astimezone(CEST if minute < 60 else CET), f"{number:010X}", count=1))
        return self.write("".join(texts), modified=datetime.datetime(2025, 10, 27, tzinfo=UTC).timestamp())

    def test_the_hour_that_comes_twice(self):
        """Every ten minutes: never more than six messages in an hour, and no line is out of order."""
        limits = [{**ONE_PER_HOUR[0], "rates": ["6/1h"]}]
        forms = {"syslog": plain(syslog), "without zone": plain(lambda m: f"{m:%Y-%m-%d %H:%M:%S}"), "RFC 3339": plain(iso),
                 "short-full": plain(lambda m: f"{m:%a %Y-%m-%d %H:%M:%S %Z}")}
        for name, form in forms.items():
            with self.subTest(name):
                report = self.replay(self.log(form, range(5, 240, 10)), limits=limits)
                self.assertEqual((report["log"]["messages"], report["log"]["lines_out_of_order"]), (24, 0))
                # The windows may count up to one slot more.
                self.assertLessEqual(report["limits"][0]["windows"][0]["max"], 7)
                # In UTC, or as in the log.
                last = datetime.datetime(2025, 10, 26, 3 if name in ("RFC 3339", "short-full") else 4, 55, tzinfo=UTC)
                self.assertEqual(report["log"]["last"], last.timestamp() * 1000)

    def test_a_line_of_the_first_hour_after_the_change(self):
        """smtpd may log a little later than others: that is no reason to count an hour twice more."""
        report = self.replay(self.log(plain(syslog), [58, 59, 60, 59.9, 61, 62, 119, 120, 121]), limits=ONE_PER_HOUR)
        self.assertEqual((report["log"]["messages"], report["log"]["lines_out_of_order"]), (9, 3))
        self.assertLess(report["limits"][0]["windows"][0]["max"], 9)

    def test_lines_out_of_order_on_another_day(self):
        start = datetime.datetime(2025, 10, 19, 2, 50, tzinfo=UTC)
        texts = [message(plain(syslog), start + datetime.timedelta(minutes=minute), f"{minute:010X}") for minute in (40, 0, 41)]
        report = self.replay(self.write("".join(texts), modified=start.timestamp() + 9000))
        self.assertEqual(report["log"]["lines_out_of_order"], 3)
        self.assertEqual(report["log"]["last"] - report["log"]["first"], 60_000)

    def test_the_next_file_of_the_log(self):
        first = self.log(plain(syslog), range(5, 120, 10)).rename(self.directory / "first")
        second = self.log(plain(syslog), range(125, 240, 10))
        report = self.replay(second, first)
        self.assertEqual((report["log"]["messages"], report["log"]["lines_out_of_order"]), (24, 0))


class LeapDays(Logs):
    """29 February in lines without a year."""

    FORMS = {"syslog": plain(syslog), "docker compose logs": lambda m, tag, pid, text: f"mx  | {syslog(m)} mx {tag}[{pid}]: {text}"}
    START, HOUR = datetime.datetime(2024, 2, 28, 12, tzinfo=UTC), datetime.timedelta(hours=1)

    def days(self, start, modified, form, hours=range(0, 72, 12)):
        """The first and last time of a message every twelve hours."""
        texts = [message(form, start + hour * self.HOUR, f"{hour:010X}", count=1) for hour in hours]
        figures = self.replay(self.write("".join(texts), modified=modified.timestamp()))["log"]
        self.assertEqual((figures["messages"], figures["lines_out_of_order"], figures["lines_without_time"]), (len(texts), 0, 0))
        return [datetime.datetime.fromtimestamp(figures[name] / 1000, UTC) for name in ("first", "last")]

    def test_the_latest_leap_year_before_the_file(self):
        last = self.START + 60 * self.HOUR
        for form in self.FORMS.values():
            for modified in ("2024-03-01", "2024-03-02", "2025-03-01", "2026-11-30", "2027-12-31", "2028-01-31", "2028-02-27"):
                with self.subTest(modified):
                    written = datetime.datetime.fromisoformat(f"{modified}T01:00:00+00:00")
                    self.assertEqual(self.days(self.START, written, form), [self.START, last])
        # Here the year of the file has the day, and there none is for eight years.
        for modified, year in (("2028-03-01", 2028), ("1907-01-01", 1904), ("1901-01-01", 1896)):
            with self.subTest(modified):
                written = datetime.datetime.fromisoformat(f"{modified}T01:00:00+00:00")
                self.assertEqual(self.days(self.START, written, self.FORMS["syslog"])[0], self.START.replace(year=year))

    def test_a_leap_day_after_the_turn_of_the_year(self):
        """The first line is of the year before the leap year, and the leap day is far behind it."""
        start = datetime.datetime(2023, 11, 30, 12, tzinfo=UTC)
        first, last = self.days(start, datetime.datetime(2026, 6, 1, tzinfo=UTC), self.FORMS["syslog"], range(0, 24 * 120, 1))
        self.assertEqual((first, last), (start, start + (24 * 120 - 1) * self.HOUR))

    def test_a_log_with_years_keeps_them(self):
        start = datetime.datetime(2020, 2, 29, 12, tzinfo=UTC)
        form = plain(lambda m: f"{m:%b} {m.day:2} {m.year} {m:%H:%M:%S}")
        self.assertEqual(self.days(start, datetime.datetime(2026, 6, 1, tzinfo=UTC), form)[0], start)


class Returned(Logs):
    """A content filter gives a message back under another queue id."""

    SYSLOG = staticmethod(plain(syslog))
    START = datetime.datetime(2025, 7, 3, 1, 26, 53, tzinfo=UTC)

    def returned(self, relay, client, reply="from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 4Cc1111111z2", program="smtp", delay=1):
        def line(seconds, tag, text):
            return f"{self.SYSLOG(self.START + datetime.timedelta(seconds=seconds), tag, 7, text)}\n"
        log = (message(self.SYSLOG, self.START, "4Cc1111111z1", count=1)
               + message(self.SYSLOG, self.START + datetime.timedelta(seconds=1), "4Cc1111111z2", client=client, count=1)
               + line(1 + delay, f"postfix/amavis/{program}", "4Cc1111111z1: to=<b@example.com>, orig_to=<c@example.com>, "
                      f"relay={relay}, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 {reply})")
               + line(1 + delay, "postfix/qmgr", "4Cc1111111z1: removed") + line(2 + delay, "postfix/qmgr", "4Cc1111111z2: removed"))
        return self.replay(self.write(log, modified=self.START.timestamp()))["log"]

    def test_returned_mail_counts_once(self):
        local, other = "localhost[127.0.0.1]", "filter.example.org[192.0.2.10]"
        cases = [
            # Relay, client, returned
            (f"{local}:10024", local, {}, True),
            (f"{local}:10024", "localhost[::1]", {}, True),
            ("filter[/run/filter.sock]", local, {"program": "lmtp"}, True),
            (f"{other}:10024", other, {"reply": "Ok: queued as 4Cc1111111z2"}, True),
            # Another machine of which the log is in the same file.
            (f"{other}:25", "mx.example.org[192.0.2.1]", {}, False),
            (f"{local}:10024", local, {"reply": "Ok: queued as 4Cc1111111z3"}, False),
            (f"{local}:10024", local, {"reply": "Ok, discarded, id=1-2"}, False),
            (f"{local}:10024", local, {"delay": 60}, False),
        ]
        for relay, client, options, is_returned in cases:
            with self.subTest(relay=relay, client=client, **options):
                figures = self.returned(relay, client, **options)
                self.assertEqual((figures["messages"], figures.get("reinjected_messages")), (1, 1) if is_returned else (2, 0))


class Masked(Logs):
    LIMITS = [
        {"name": "first", "key": ["sender"], "rates": ["2/1h"], "over": "REJECT first"},
        {"name": "second", "key": ["client_address"], "rates": ["4/1h"], "over": "REJECT second"},
    ]

    def log(self):
        start = datetime.datetime(2025, 7, 3, 1, 0, tzinfo=UTC)
        return self.write("".join(
            message(plain(syslog), start + datetime.timedelta(seconds=number), f"{number:010X}", count=1) for number in range(10)),
            modified=start.timestamp())

    def test_a_masked_limit_is_named(self):
        """Of ten messages, the first limit refuses eight. Alone, the second would refuse six, all of these."""
        for limits in (self.LIMITS, [self.LIMITS[0], {**self.LIMITS[1], "mode": "shadow"}]):
            report = self.replay(self.log(), limits=limits)
            self.assertEqual([(limit["refused"], limit["masked"]) for limit in report["limits"]],
                             [(8, []), (0, [{"by": "first", "requests": 6}])])
            self.assertIn("  masked by first: it refused 6 requests that second alone would refuse\n", self.text(self.log(), limits=limits).stdout)

    def test_a_limit_that_refuses_nothing_masks_nothing(self):
        """Neither does a limit in shadow mode, nor one whose answer lets pass."""
        for change, expected in (({"mode": "shadow"}, (8, [])), ({"over": "PREPEND X-Over: yes"}, (2, [{"by": "second", "requests": 6}]))):
            report = self.replay(self.log(), limits=[{**self.LIMITS[0], **change}, self.LIMITS[1]])
            self.assertEqual([(limit["refused"], limit["masked"]) for limit in report["limits"]], [expected, (6, [])])

    def test_a_block_masks_whatever_the_answer_over_the_limit_is(self):
        """The third and fourth message get a header, which blocks the key: the end of the fourth and the others are refused."""
        blocking = {**self.LIMITS[0], "over": "PREPEND X-Over: yes", "block": {"after": 2, "for": "1h"}}
        report = self.replay(self.log(), limits=[blocking, self.LIMITS[1]])
        self.assertEqual([(limit["refused"], limit["masked"]) for limit in report["limits"]],
                         [(9, []), (0, [{"by": "first", "requests": 6}])])


if __name__ == "__main__":
    unittest.main()
