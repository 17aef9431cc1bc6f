# SPDX-License-Identifier: Apache-2.0
"""weir doctor finds each misconfiguration, its commands fix it, and correct configurations give no findings."""
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import unittest

from filtering import filtered_postfix
from milter import milter_postfix
from postfix import MASTER, PrivatePostfix, SMTP, SMTPSink, free_port, run, wait_until
from weir import BINARY, ENVIRONMENT, ROOT, USER, WeirService, weir

POLICY = "check_policy_service { inet:127.0.0.1:10040, timeout=10s, default_action=DUNNO }"
MILTER = "{ inet:127.0.0.1:10041, default_action=accept }"
SMTPD = "smtp inet n - y - - smtpd"
SUBMISSION = "submission inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes"
BACK = ("127.0.0.1:10026 inet n - y - - smtpd -o content_filter= -o receive_override_options=no_milters -o mynetworks=127.0.0.0/8"
        " -o smtpd_recipient_restrictions=permit_mynetworks,reject -o smtpd_end_of_data_restrictions=")
TRANSPORT = "weir unix - - y - 20 smtp"
PIPE = "weirpipe unix - n n - 10 pipe flags=q user=weir null_sender= argv=/usr/bin/weir filter -f ${sender} -- ${recipient}"
LIMITS = [{"name": "per-user", "when": {"sasl_username": "present"}, "key": ["sasl_username"], "rates": ["100/1h"]}]
FILTER = [{"listen": "inet:127.0.0.1:10025", "next_hop": "inet:127.0.0.1:10026"}]
GOOD = f"smtpd_recipient_restrictions = {POLICY}, permit_mynetworks, reject_unauth_destination\n"

# Name: main.cf, master.cf, weir.yaml in addition to LIMITS, expected kinds; and the fixed weir.yaml, if that needs the fix.
WRONG = {
    "nobody asks": ("", [SMTPD], {}, {"policy-nowhere"}),
    "nobody asks, with a list": ("smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination\n", [SMTPD], {}, {"policy-nowhere"}),
    "behind permit_mynetworks": (
        f"smtpd_recipient_restrictions = permit_mynetworks,\n  permit_sasl_authenticated\n  {POLICY}, reject_unauth_destination\n", [SMTPD], {}, {"policy-behind-permit"}),
    "behind a permit in a variable": (
        f"trusted = permit_sasl_authenticated\nsmtpd_recipient_restrictions = ${{trusted}}, {POLICY}, reject\n", [SMTPD], {}, {"policy-behind-permit"}),
    "behind a permit in a class": (
        f"smtpd_restriction_classes = friends\nfriends = permit_mynetworks\nsmtpd_recipient_restrictions = friends, {POLICY}, reject\n",
        [SMTPD], {}, {"policy-behind-permit"}),
    "end of data behind a permit": (GOOD + f"smtpd_end_of_data_restrictions = permit_mynetworks, {POLICY}\n", [SMTPD], {"give_back_dropped": True}, {"policy-behind-permit"}),
    "submission with a list of its own": (
        GOOD, [SMTPD, SUBMISSION + " -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject"], {}, {"policy-not-here"}),
    "submission with a sender list of its own": (
        f"smtpd_sender_restrictions = {POLICY}\nsmtpd_recipient_restrictions = permit_mynetworks, reject\n",
        [SMTPD, SUBMISSION + " -o smtpd_sender_restrictions=permit_sasl_authenticated,reject"], {}, {"policy-not-here"}),
    "logins through a proxy on this machine": (
        GOOD, [SMTPD, "127.0.0.1:1587 inet n - y - - smtpd -o smtpd_upstream_proxy_protocol=haproxy -o smtpd_sasl_auth_enable=yes -o content_filter="
               " -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject"], {}, {"policy-not-here"}),
    "submission behind its permit": (
        GOOD + f"mine = {POLICY}\n", [SMTPD, SUBMISSION + " -o smtpd_recipient_restrictions=permit_sasl_authenticated,$mine,reject"], {}, {"policy-behind-permit"}),
    "no default action, 100 seconds": (
        "smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10040, permit_mynetworks, reject_unauth_destination\n", [SMTPD], {},
        {"policy-default-action", "policy-timeout"}),
    "no default action, behind a permit, with a context": (
        "smtpd_recipient_restrictions = permit_mynetworks, check_policy_service { inet:localhost:10040, policy_context=mx }, reject\n", [SMTPD], {},
        {"policy-default-action", "policy-timeout", "policy-behind-permit"}),
    "a socket out of a chroot's reach": (
        "smtpd_recipient_restrictions = check_policy_service { unix:/run/weir/policy, timeout=10s, default_action=DUNNO }, permit_mynetworks, reject\n", [SMTPD],
        {"listen": {"policy": ["unix:/run/weir/policy", "inet:127.0.0.1:10040"]}}, {"policy-socket-in-chroot"}),
    "a milter's socket out of a chroot's reach": (
        GOOD + "smtpd_milters = { unix:/run/weir/milter, default_action=accept }\nnon_smtpd_milters = $smtpd_milters\n", [SMTPD + " -o { smtpd_milters = { unix:/run/weir/milter, default_action=accept } }"],
        {"listen": {"milter": ["unix:/run/weir/milter", "inet:127.0.0.1:10041"]}}, {"milter-socket-in-chroot"}),
    "a filter's socket out of a chroot's reach": (
        GOOD + "content_filter = weir:unix:/run/weir/filter\n", [SMTPD, "weir unix - - y - 20 lmtp", BACK],
        {"listen": {"filter": [{**FILTER[0], "listen": "unix:/run/weir/filter", "protocol": "lmtp"}]}}, {"filter-socket-in-chroot"}),
    "nothing is filtered through a socket": (
        GOOD, [SMTPD, BACK], {"listen": {"filter": [{**FILTER[0], "listen": "unix:/run/weir/filter", "protocol": "lmtp"}]}}, {"filter-nowhere"}),
    "a filter's socket out of a chroot's reach, before the queue": (
        GOOD, [SMTPD + " -o smtpd_proxy_filter=unix:/run/weir/filter", BACK],
        {"listen": {"filter": [{**FILTER[0], "listen": "unix:/run/weir/filter", "mode": "before_queue"}]}}, {"filter-socket-in-chroot"}),
    "a refusal is only a line of the log": (
        f"smtpd_recipient_restrictions = warn_if_reject {POLICY}, permit_mynetworks, reject\n", [SMTPD], {}, {"policy-only-warns"}),
    "a refusal is only a line of the log, by a variable": (
        f"mine = reject_non_fqdn_sender, WARN_IF_REJECT Check_Policy_Service {POLICY[21:]}\nsmtpd_recipient_restrictions = $mine, permit_mynetworks, reject\n", [SMTPD], {},
        {"policy-only-warns"}),
    "a refusal is only a line of the log, by a class": (
        f"smtpd_restriction_classes = mine\nmine = reject_non_fqdn_sender, {POLICY}\nsmtpd_recipient_restrictions = warn_if_reject, mine, permit_mynetworks, reject\n", [SMTPD], {},
        {"policy-only-warns"}),
    "a refusal is only a line of the log, by the end of a variable": (
        f"mine = reject_non_fqdn_sender, warn_if_reject\nsmtpd_recipient_restrictions = $mine, {POLICY}, permit_mynetworks, reject\n", [SMTPD], {}, {"policy-only-warns"}),
    "a refusal is only a line of the log, for two reasons": (
        f"mine = warn_if_reject, {POLICY}\nsmtpd_recipient_restrictions = warn_if_reject, $mine, permit_mynetworks, reject\n", [SMTPD], {}, {"policy-only-warns"}),
    "a refusal is only a line of the log, twice in a list": (
        f"smtpd_recipient_restrictions = warn_if_reject warn_if_reject {POLICY}, warn_if_reject {POLICY}, reject_unauth_destination\nmynetworks = 192.0.2.0/24\n"
        "relay_domains = example.com\n", [SMTPD], {}, {"policy-only-warns", "policy-listed-twice"}),
    "a refusal is only a line of the log, in two lists": (
        f"smtpd_sender_restrictions = warn_if_reject {POLICY}\nsmtpd_data_restrictions = warn_if_reject {POLICY}\n"
        "smtpd_recipient_restrictions = permit_mynetworks, reject\n", [SMTPD], {}, {"policy-only-warns"}),
    "behind a permit that follows a warning": (
        f"smtpd_recipient_restrictions = reject_non_fqdn_sender, warn_if_reject, permit_mynetworks, {POLICY}, reject\n", [SMTPD], {}, {"policy-behind-permit"}),
    "behind reject": (f"smtpd_recipient_restrictions = reject_unauth_pipelining, reject, {POLICY}\n", [SMTPD], {}, {"policy-behind-reject"}),
    "behind a permit in the same variable": (
        f"mine = permit_mynetworks, {POLICY}\nsmtpd_recipient_restrictions = reject_non_fqdn_sender, $mine, reject\n", [SMTPD], {}, {"policy-behind-permit"}),
    "behind a permit in upper case": (
        f"smtpd_recipient_restrictions = PERMIT_MYNETWORKS, {POLICY}, reject\n", [SMTPD], {}, {"policy-behind-permit"}),
    "behind a permit for the site's own domains": (
        f"smtpd_recipient_restrictions = permit_auth_destination, {POLICY}, permit_mynetworks, reject\n", [SMTPD], {}, {"policy-behind-permit"}),
    "never asked at DATA": (
        GOOD, [SMTPD, SUBMISSION], {"limits": [{"name": "whole", "when": {"protocol_state": "DATA"}, "key": ["sasl_username"], "rates": ["100/1h"]}]}, {"policy-limit-out-of-reach"}),
    "never asked at the end with the context that a limit wants": (
        GOOD, [SMTPD, SUBMISSION + f" -o {{ smtpd_recipient_restrictions = {POLICY[:-2]}, policy_context=submission }}, permit_sasl_authenticated, reject }}"],
        {"limits": [{"name": "whole", "when": {"policy_context": "submission", "protocol_state": "END-OF-MESSAGE"}, "key": ["sasl_username"], "rates": ["100/1h"]}]},
        {"policy-limit-out-of-reach"}),
    "bytes at RCPT": (GOOD, [SMTPD], {"limits": [{"name": "volume", "key": ["client_address"], "count": "bytes", "rates": ["1G/1h"]}]}, {"policy-size-unknown"}),
    "bytes at RCPT and at the end, with another context": (
        GOOD + f"smtpd_end_of_data_restrictions = {POLICY}\n", [SMTPD, SUBMISSION + f" -o {{ smtpd_recipient_restrictions = {POLICY[:-2]}, policy_context=submission }}, permit_sasl_authenticated, reject }}"],
        {"limits": [{"name": "volume", "when": {"policy_context": "submission"}, "key": ["sasl_username"], "count": "bytes", "rates": ["1G/1h"]}, *LIMITS]}, {"policy-size-unknown"}),
    "the number of recipients at RCPT": (
        GOOD, [SMTPD], {"limits": [{"name": "bulk", "when": {"recipient_count": {"matches": "/^[0-9]{3}/"}}, "key": ["sasl_username"], "count": "messages", "rates": ["10/1h"]}]},
        {"policy-limit-out-of-reach"}),
    "recipients at the end": (
        f"smtpd_end_of_data_restrictions = {POLICY}\n", [SMTPD], {"limits": [{"name": "to-one", "key": ["recipient"], "rates": ["100/1h"]}]}, {"policy-recipients-unknown"}),
    "nobody asks, with a list that depends on the load": (
        "smtpd_recipient_restrictions = reject_non_fqdn_recipient, ${stress?{permit_mynetworks}:{reject_unknown_reverse_client_hostname}}, permit_mynetworks, reject\n",
        [SMTPD + " -o smtpd_timeout=${stress?{10}:{60}}s"], {}, {"policy-nowhere"}),
    "asked too early": (
        GOOD + f"smtpd_delay_reject = no\nsmtpd_sender_restrictions = {POLICY}\n", [SMTPD], {}, {"policy-too-early"}),
    "nobody listens for requests": (GOOD, [SMTPD], {"listen": {"policy": ["inet:127.0.0.1:10050"]}}, {"policy-nobody-listens"}, {}),
    "nobody listens where one service asks": (
        GOOD, [SMTPD, SUBMISSION + " -o smtpd_recipient_restrictions=check_policy_service,{inet:127.0.0.1:10050,timeout=10s,default_action=DUNNO},reject"],
        {"listen": {"policy": ["inet:127.0.0.1:10050"]}}, {"policy-nobody-listens"}, {"listen": {"policy": ["inet:127.0.0.1:10050", "inet:127.0.0.1:10040"]}}),
    "given back and never settled": (GOOD, [SMTPD], {"give_back_dropped": True}, {"give-back-unsettled"}),
    "the milter is asked nowhere": (GOOD, [SMTPD], {"listen": {"milter": ["inet:127.0.0.1:10041"]}}, {"milter-nowhere", "milter-not-for-sendmail"}),
    "the milter is not asked at submission": (
        GOOD + f"smtpd_milters = {MILTER}\nnon_smtpd_milters = {MILTER}\n", [SMTPD, SUBMISSION + " -o smtpd_milters="],
        {"listen": {"milter": ["inet:127.0.0.1:10041"]}}, {"milter-not-here"}),
    "the milter's mail waits without a word": (
        GOOD + "smtpd_milters = inet:localhost:10041\nnon_smtpd_milters = $smtpd_milters\n", [SMTPD], {"listen": {"milter": ["inet:127.0.0.1:10041"]}},
        {"milter-default-action"}),
    "the milter's mail is refused": (
        GOOD + f"smtpd_milters = inet:127.0.0.1:10041, unix:other\nnon_smtpd_milters = {MILTER}\nmilter_default_action = reject\n", [SMTPD],
        {"listen": {"milter": ["inet:127.0.0.1:10041"]}}, {"milter-default-action"}),
    "milters are switched off": (
        GOOD + f"smtpd_milters = {MILTER}\nnon_smtpd_milters = {MILTER}\nreceive_override_options = no_milters, no_address_mappings\n", [SMTPD],
        {"listen": {"milter": ["inet:127.0.0.1:10041"]}}, {"milter-switched-off"}),
    "the milter has no time": (
        GOOD + f"smtpd_milters = {MILTER}\nnon_smtpd_milters = {MILTER}\nmilter_content_timeout = 5s\n", [SMTPD],
        {"listen": {"milter": ["inet:127.0.0.1:10041"]}}, {"milter-timeout"}, {"listen": {"milter": ["inet:127.0.0.1:10041"]}, "checks": {"message_budget": "2s"}}),
    "nobody listens for the milter": (
        GOOD + f"smtpd_milters = {MILTER}\nnon_smtpd_milters = {MILTER}\n", [SMTPD], {}, {"milter-nobody-listens"}, {"listen": {"milter": ["inet:127.0.0.1:10041"]}}),
    "nothing is filtered": (GOOD, [SMTPD, TRANSPORT, BACK], {"listen": {"filter": FILTER}}, {"filter-nowhere"}),
    "nothing is filtered, and nothing is there for it": (GOOD, [SMTPD], {"listen": {"filter": FILTER}}, {"filter-nowhere", "filter-no-way-back"}),
    "no way back by IPv6": (
        GOOD + "content_filter = weir:[::1]:10025\n", [SMTPD, TRANSPORT], {"listen": {"filter": [{"listen": "inet:[::1]:10025", "next_hop": "inet:[::1]:10026"}]}},
        {"filter-no-way-back"}),
    "no transport": (GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, BACK], {"listen": {"filter": FILTER}}, {"filter-transport"}),
    "no way back": (GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT], {"listen": {"filter": FILTER}}, {"filter-no-way-back"}),
    "a loop": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT, BACK.replace(" -o content_filter=", "")], {"listen": {"filter": FILTER}}, {"filter-loop"}),
    "a loop before the queue": (
        GOOD + "smtpd_proxy_filter = 127.0.0.1:10025\n", [SMTPD, BACK], {"listen": {"filter": [{**FILTER[0], "mode": "before_queue"}]}}, {"filter-loop"}),
    "counted a second time": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT, BACK.replace("permit_mynetworks,reject", "$weir_policy,permit_mynetworks,reject").replace(
            "$weir_policy", "$again")], {"listen": {"filter": FILTER}}, {"counted-twice"}),
    "counted a second time by main.cf": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT, "127.0.0.1:10026 inet n - y - - smtpd -o content_filter= -o mynetworks=127.0.0.0/8"],
        {"listen": {"filter": FILTER}}, {"counted-twice"}),
    "by the milter a second time": (
        GOOD + f"content_filter = weir:[127.0.0.1]:10025\nsmtpd_milters = {MILTER}\nnon_smtpd_milters = {MILTER}\n", [SMTPD, TRANSPORT, BACK.replace(" -o receive_override_options=no_milters", "")],
        {"listen": {"filter": FILTER, "milter": ["inet:127.0.0.1:10041"]}}, {"milter-twice"}),
    "the way back is open": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT, BACK.replace("127.0.0.1:10026", "10026")], {"listen": {"filter": FILTER}}, {"filter-way-back-open"}),
    "after the queue is before it": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT, BACK], {"listen": {"filter": [{**FILTER[0], "mode": "before_queue"}]}}, {"filter-mode"},
        {"listen": {"filter": FILTER}}),
    "the wrong protocol": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT.replace("smtp", "lmtp"), BACK], {"listen": {"filter": FILTER}}, {"filter-protocol"},
        {"listen": {"filter": [{**FILTER[0], "protocol": "lmtp"}]}}),
    "several recipients to an LMTP server, in SMTP": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT],
        {"listen": {"filter": [{**FILTER[0], "next_hop": "lmtp:127.0.0.1:10026"}]}}, {"filter-one-recipient"}),
    "the milter is listed twice by a variable": (
        GOOD + f"smtpd_milters = {MILTER}\nnon_smtpd_milters = $smtpd_milters, {MILTER}\n", [SMTPD], {"listen": {"milter": ["inet:127.0.0.1:10041"]}},
        {"milter-listed-twice"}),
    "the milter is behind the one that signs": (
        GOOD + f"smtpd_milters = {{ unix:opendkim/opendkim.sock, default_action=accept }}, {MILTER}\nnon_smtpd_milters = $smtpd_milters\n", [SMTPD],
        {"listen": {"milter": ["inet:127.0.0.1:10041"]}}, {"milter-behind-signer"}),
    "asked twice in a list": (
        f"mine = {POLICY}\nsmtpd_recipient_restrictions = $mine, reject_non_fqdn_recipient, {POLICY}, permit_mynetworks, reject\n", [SMTPD], {},
        {"policy-listed-twice"}),
    "behind a permit in smtpd_client_restrictions": (
        f"smtpd_client_restrictions = permit_mynetworks, {POLICY}\n", [SMTPD], {}, {"policy-behind-permit"}),
    "a context that nobody sends": (
        "smtpd_sasl_auth_enable = yes\n" + GOOD, [SMTPD, SUBMISSION],
        {"limits": [{"name": "per-user", "when": {"policy_context": "submission"}, "key": ["sasl_username"], "rates": ["100/1h"]}]}, {"policy-limit-out-of-reach"}),
    "the way to the filter and back takes what is for relays and strangers": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\nsmtp_tls_security_level = encrypt\nsmtp_tls_wrappermode = yes\nsmtp_bind_address = 192.0.2.1\n"
        "smtp_fallback_relay = [192.0.2.2]\nsmtp_generic_maps = hash:/etc/generic\ndefault_destination_rate_delay = 1s\ndefault_destination_recipient_limit = 1\n"
        "smtpd_upstream_proxy_protocol = haproxy\nsmtpd_error_sleep_time = 5s\nmynetworks = 192.0.2.0/24\n",
        [SMTPD, TRANSPORT, BACK.replace(" -o mynetworks=127.0.0.0/8", "")], {"listen": {"filter": FILTER}}, {"filter-inherits"}),
    "the way to the filter and back takes what is for other mail": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\nsmtp_line_length_limit = 78\nsmtpd_sender_restrictions = check_sender_access static:DUNNO\n"
        "smtpd_junk_command_limit = 5\ndefault_destination_concurrency_limit = 1\n", [SMTPD, TRANSPORT, BACK], {"listen": {"filter": FILTER}}, {"filter-inherits"}),
    "a command that filters its own result": (GOOD + "content_filter = weirpipe:dummy\n", [SMTPD, PIPE], {}, {"filter-loop"}),
    "a command takes what is for others": (
        GOOD + "default_delivery_status_filter = static:5.0.0\ncommand_time_limit = 5s\nexport_environment = TZ\ndefault_transport_rate_delay = 1s\n",
        [SMTPD + " -o content_filter=weirpipe:dummy", PIPE], {}, {"filter-inherits"}),
    "no time before the queue": (
        GOOD + "smtpd_proxy_timeout = 5s\n", [SMTPD + " -o smtpd_proxy_filter=127.0.0.1:10025", BACK], {"listen": {"filter": [{**FILTER[0], "mode": "before_queue"}]}}, {"filter-timeout"}),
}

RIGHT = {
    "one list": (GOOD, [SMTPD], {}),
    "both hooks": (GOOD + f"smtpd_end_of_data_restrictions = {POLICY}\n", [SMTPD], {"give_back_dropped": True}),
    "a chosen default action": (
        "smtpd_policy_service_default_action = 450 4.3.0 later\nsmtpd_policy_service_timeout = 20s\n"
        "smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10040, permit_mynetworks, reject\n", [SMTPD], {}),
    "at end of data alone": (f"smtpd_end_of_data_restrictions = {POLICY}\n", [SMTPD], {}),
    "submission by main.cf": (GOOD, [SMTPD, SUBMISSION], {}),
    "postscreen": (GOOD, ["smtp inet n - y - 1 postscreen", "smtpd pass - - y - - smtpd"], {}),
    "a chrooted socket": (
        "smtpd_recipient_restrictions = check_policy_service { unix:private/weir, timeout=10s, default_action=DUNNO }, permit_mynetworks, reject\n", [SMTPD],
        {"listen": {"policy": ["unix:/var/spool/postfix/private/weir"]}}),
    "the milter counts, nobody else": (
        f"smtpd_milters = {MILTER}\nnon_smtpd_milters = $smtpd_milters\n", [SMTPD], {"listen": {"milter": ["inet:127.0.0.1:10041"]}}),
    "after the queue": (GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT, BACK], {"listen": {"filter": FILTER}}),
    "an LMTP server behind the filter": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT.replace("smtp", "lmtp")],
        {"listen": {"filter": [{**FILTER[0], "protocol": "lmtp", "next_hop": "lmtp:127.0.0.1:10026"}]}}),
    "an LMTP server behind the filter, and one recipient at a time": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\nweir_destination_recipient_limit = 1\n", [SMTPD, TRANSPORT],
        {"listen": {"filter": [{**FILTER[0], "next_hop": "lmtp:127.0.0.1:10026"}]}}),
    "a command": (GOOD, [SMTPD + " -o content_filter=weirpipe:dummy", PIPE], {}),
    "after the queue, with values that do no harm": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\nsmtp_tls_security_level = may\nsmtp_tls_policy_maps = hash:/etc/tls\ninet_interfaces = $myhostname, localhost\n"
        "smtpd_discard_ehlo_keywords = chunking, silent-discard\nsmtpd_data_restrictions = reject_unauth_pipelining\nstrict_rfc821_envelopes = yes\n"
        "smtpd_client_message_rate_limit = 100\nsmtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\nsmtpd_hard_error_limit = 30\n"
        "default_destination_concurrency_limit = 30\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/etc/sasl\n",
        [SMTPD, TRANSPORT, BACK], {"listen": {"filter": FILTER}}),
    "a filter on another machine, with TLS": (
        GOOD + "content_filter = weir:[192.0.2.5]:10025\nsmtp_tls_security_level = encrypt\nsmtp_bind_address = 192.0.2.1\n",
        [SMTPD, TRANSPORT, BACK], {"listen": {"filter": [{"listen": "inet:192.0.2.5:10025", "next_hop": "inet:127.0.0.1:10026", "networks": ["192.0.2.0/24"]}]}}),
    "a next hop on another machine": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, SUBMISSION, TRANSPORT], {"listen": {"filter": [{**FILTER[0], "next_hop": "inet:192.0.2.9:25"}]}}),
    "a next hop on this machine's own address": (
        GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT, BACK.replace("127.0.0.1:10026", "192.0.2.1:10026")],
        {"listen": {"filter": [{**FILTER[0], "next_hop": "inet:192.0.2.1:10026"}]}}),
    "amavis beside Weir": (
        GOOD + "content_filter = amavis:[127.0.0.1]:10024\n", [SMTPD, "127.0.0.1:10027 inet n - y - - smtpd -o content_filter= -o smtpd_recipient_restrictions=permit_mynetworks,reject"], {}),
    "before the queue": (
        GOOD, [SMTPD + " -o smtpd_proxy_filter=127.0.0.1:10025", BACK], {"listen": {"filter": [{**FILTER[0], "mode": "before_queue"}]}}),
    "nothing is limited": ("", [SMTPD], {"limits": []}),
    "nobody logs in at port 25": (
        f"mine = {POLICY[:-2]}, policy_context=submission }}\nsubmission_list = $mine, permit_sasl_authenticated, reject\n",
        ["smtp inet n - y - - smtpd -o smtpd_sasl_auth_enable=no", SUBMISSION + " -o smtpd_recipient_restrictions=$submission_list"],
        {"limits": [{"name": "per-user", "when": {"policy_context": "submission", "sasl_username": "present"}, "key": ["sasl_username"], "rates": ["100/1h"]}]}),
    "a context for the whole service": (
        GOOD, [SMTPD, SUBMISSION + " -o smtpd_policy_service_policy_context=submission"],
        {"limits": [{"name": "per-user", "when": {"policy_context": "submission"}, "key": ["sasl_username"], "rates": ["100/1h"]}]}),
    "a default action for the whole service": (
        "smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10040, permit_mynetworks, reject\nsmtpd_milters = inet:127.0.0.1:10041\n"
        f"non_smtpd_milters = {MILTER}\n",
        [SMTPD + " -o smtpd_policy_service_default_action=DUNNO -o smtpd_policy_service_timeout=10s -o milter_default_action=tempfail"],
        {"listen": {"milter": ["inet:127.0.0.1:10041"]}}),
    "asked in any case": (
        f"smtpd_recipient_restrictions = CHECK_POLICY_SERVICE {POLICY[21:]}, Permit_MyNetworks, reject\n", [SMTPD], {}),
    "a refusal that is only a line of the log": (
        f"smtpd_recipient_restrictions = warn_if_reject reject, {POLICY}, permit_mynetworks, reject\n", [SMTPD], {}),
    "a warning about another restriction": (
        f"mine = reject_non_fqdn_sender, {POLICY}\nsmtpd_recipient_restrictions = warn_if_reject, $mine, permit_mynetworks, reject\n", [SMTPD], {}),
    "asked where a table says so": (
        f"smtpd_restriction_classes = mine\nmine = {POLICY}\nsmtpd_recipient_restrictions = check_sender_access static:mine, permit_mynetworks, reject\n", [SMTPD], {}),
    "asked by the name of this machine": (
        "smtpd_recipient_restrictions = check_policy_service { inet:localhost:10040, timeout=10s, default_action=DUNNO }, permit_mynetworks, reject\n", [SMTPD],
        {"listen": {"policy": ["inet:[::1]:10040"]}}),
    "asked by the name of a host": (
        "smtpd_recipient_restrictions = check_policy_service { inet:mx.example.org:10040, timeout=10s, default_action=DUNNO }, permit_mynetworks, reject\n", [SMTPD],
        {"listen": {"policy": ["inet:192.0.2.1:10040"]}}),
    "a filter for sendmail(1) only": (
        GOOD, [SMTPD, "pickup unix n - y 60 1 pickup -o content_filter=weir:[127.0.0.1]:10025", TRANSPORT, BACK], {"listen": {"filter": FILTER}}),
    "asked by a port": (
        "smtpd_recipient_restrictions = check_policy_service { inet:10040, timeout=10s, default_action=DUNNO }, permit_mynetworks, reject\n", [SMTPD], {}),
    "submission as in Postfix's own master.cf": (
        GOOD, [SMTPD, SUBMISSION + " -o smtpd_client_restrictions=$mua_client_restrictions -o smtpd_helo_restrictions=$mua_helo_restrictions"], {}),
    "connections are counted before there is a recipient": (
        GOOD + f"smtpd_delay_reject = no\nsmtpd_client_restrictions = {POLICY}\n", [SMTPD], {"limits": [{"name": "connects", "key": ["client_address"], "count": "connections", "rates": ["100/1h"]}]}),
    "asked for the sender at each recipient": (f"smtpd_sender_restrictions = {POLICY}\n", [SMTPD], {}),
    "the way back of another proxy": (
        GOOD, [SMTPD + " -o smtpd_proxy_filter=127.0.0.1:10024",
               "127.0.0.1:10027 inet n - y - - smtpd -o smtpd_proxy_filter= -o smtpd_authorized_xforward_hosts=127.0.0.0/8"
               " -o smtpd_recipient_restrictions=permit_mynetworks,reject"], {}),
    "a null client that counts its own users": (
        f"inet_interfaces = loopback-only\nnon_smtpd_milters = {MILTER}\n", ["#" + SMTPD],
        {"listen": {"milter": ["inet:127.0.0.1:10041"]}, "limits": [{"name": "per-uid", "key": ["uid"], "rates": ["10/1h"]}]}),
    "the milter for some clients only": (
        GOOD + f"smtpd_milter_maps = cidr:{{ {{ 192.0.2.0/24 {MILTER[2:-2]} }} }}\nnon_smtpd_milters = {MILTER}\n", [SMTPD], {"listen": {"milter": ["inet:127.0.0.1:10041"]}}),
    "amavis before Weir": (
        GOOD + "content_filter = amavis:[127.0.0.1]:10024\n",
        [SMTPD, "amavis unix - - y - 2 lmtp", "127.0.0.1:10027 inet n - y - - smtpd -o content_filter=weir:[127.0.0.1]:10025 -o smtpd_authorized_xforward_hosts=127.0.0.0/8"
         " -o smtpd_recipient_restrictions=permit_mynetworks,reject", TRANSPORT, BACK], {"listen": {"filter": FILTER}}),
    "one milter for both, before the one that signs": (
        GOOD + f"smtpd_milters = {MILTER}, inet:127.0.0.1:8891\nnon_smtpd_milters = $smtpd_milters\n", [SMTPD], {"listen": {"milter": ["inet:127.0.0.1:10041"]}}),
}


def words_of(command):
    """The words of a printed command, with the repository's table of verdicts. None for the command that installs the package's."""
    words = shlex.split(command.replace("/etc/weir/postfix", str(ROOT / "conf/postfix")))
    return None if words[0] == "install" else words


def with_table(kinds):
    """The kinds of findings, with that of the table which a printed service needs and this machine lacks."""
    lacks = "filter-no-way-back" in kinds and not os.path.exists("/etc/weir/postfix/weir_verdict.pcre")
    return kinds | ({"filter-verdict-table"} if lacks else set())


def serious_findings(result):
    """The findings of `weir doctor --json` except notes. Checks that the exit status matches."""
    if result.returncode not in (0, 1):
        raise AssertionError(result.stdout + result.stderr)
    findings = [finding for report in json.loads(result.stdout) for finding in report["findings"]]
    serious = [finding for finding in findings if finding["severity"] != "note"]
    if bool(serious) != bool(result.returncode):
        raise AssertionError(f"exit status {result.returncode}: {findings}")
    return serious


class Hookup:
    """A directory with main.cf, master.cf and weir.yaml."""

    def __init__(self, test, main, services, config):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        test.addCleanup(shutil.rmtree, self.directory)
        # LIMITS counts logins, and Debian's Postfix accepts bare newlines.
        usual = {"smtpd_sasl_auth_enable": "yes", "smtpd_forbid_bare_newline": "yes"}
        added = "".join(f"{name} = {value}\n" for name, value in usual.items() if name not in main)
        (self.directory / "main.cf").write_text("compatibility_level = 3.6\nagain = " + POLICY + "\n" + added + main)
        base = "".join(line + "\n" for line in MASTER.splitlines() if not line.startswith("smtp "))
        (self.directory / "master.cf").write_text(base + "\n".join(services) + "\nsmtp unix - - n - - smtp\n")
        self.configure(config)

    def configure(self, config):
        (self.directory / "weir.yaml").write_text(json.dumps({"limits": LIMITS, **config}))

    def findings(self):
        return serious_findings(self.doctor())

    def notes(self):
        findings = [finding for report in json.loads(self.doctor().stdout) for finding in report["findings"]]
        return [finding for finding in findings if finding["severity"] == "note"]

    def doctor(self, *arguments):
        # Postfix delays reading a file that was modified just now.
        for name in ("main.cf", "master.cf"):
            os.utime(self.directory / name, (1_700_000_000, 1_700_000_000))
        return weir("doctor", "--postfix", self.directory, "--config", self.directory / "weir.yaml", "--no-service",
                    *(arguments or ["--json"]), check=False)


class Hookups(unittest.TestCase):
    def test_mistakes_are_found_and_fixed(self):
        """After applying the printed commands, the next run has no findings."""
        for name, (main, services, config, kinds, *mended) in WRONG.items():
            with self.subTest(name):
                hookup = Hookup(self, main, services, config)
                findings = hookup.findings()
                self.assertEqual({finding["kind"] for finding in findings}, with_table(kinds), findings)
                commands = list(dict.fromkeys(command for finding in findings for command in finding["commands"]))
                if mended:
                    self.assertTrue(any(finding["configuration"] for finding in findings))
                    hookup.configure(mended[0])
                else:
                    self.assertTrue(commands)
                for command in commands:
                    if words := words_of(command):
                        self.assertEqual(words[:3], ["postconf", "-c", str(hookup.directory)])
                        run(words)
                    os.utime(hookup.directory / "main.cf", (1_700_000_000, 1_700_000_000))
                self.assertEqual(hookup.findings(), [], commands)

    def test_commands_that_fix_several_findings_are_printed_once(self):
        lines = Hookup(self, "", ["smtp inet n - n - - smtpd", "smtps inet n - n - - smtpd"], {}).doctor("--no-service").stdout
        self.assertEqual(lines.count("smtpd_recipient_restrictions="), 1, lines)
        self.assertEqual(lines.count("(the commands above fix this, too)"), 1, lines)

    def test_other_restrictions_stay(self):
        """What warn_if_reject is about, what else a variable has, and what was chosen for the request to Weir."""
        more = f"mine = reject_non_fqdn_sender, {POLICY}\nours = $mine\nsmtpd_restriction_classes = ours\n"
        chosen = "check_policy_service { inet:127.0.0.1:10040, timeout=5s, { default_action = 450 4.3.0 later }, max_ttl=60s }"
        cases = (
            (f"{POLICY}, warn_if_reject {POLICY}, reject_unauth_destination", f"smtpd_recipient_restrictions = {POLICY}, reject_unauth_destination"),
            (f"{POLICY}, $mine, reject", f"smtpd_recipient_restrictions = {POLICY}, reject_non_fqdn_sender, reject"),
            ("warn_if_reject ours, permit_mynetworks, reject",
             "smtpd_recipient_restrictions = warn_if_reject, reject_non_fqdn_sender, $weir_policy, permit_mynetworks, reject"),
            (f"{chosen.replace('5s', '60s')}, permit_mynetworks, reject", f"weir_policy = {chosen.replace('5s', '10s')}"),
            (f"permit_mynetworks, reject_non_fqdn_sender, $theirs, reject\ntheirs = reject_unverified_sender, {chosen}", f"weir_policy = {chosen}"))
        for written, expected in cases:
            with self.subTest(written):
                uses = "ours" in written or "$mine" in written
                hookup = Hookup(self, more * uses + f"smtpd_recipient_restrictions = {written}\n", [SMTPD], {})
                findings = hookup.findings()
                self.assertEqual(len(findings), 1, findings)
                for command in findings[0]["commands"]:
                    run(shlex.split(command))
                self.assertEqual(hookup.findings(), [])
                self.assertIn(expected + "\n", run(["postconf", "-c", str(hookup.directory), "-n"]).stdout)

    def test_conditions_stay_or_are_named(self):
        """${stress?...}: commands keep it as written, or there are none."""
        condition = "${stress?{permit_mynetworks}:{reject_unknown_reverse_client_hostname, reject_unknown_client_hostname}}"
        hookup = Hookup(self, f"smtpd_recipient_restrictions = reject_non_fqdn_recipient, {condition}, permit_mynetworks, reject\n",
                        [SMTPD, SUBMISSION + f" -o {{ smtpd_recipient_restrictions = {condition}, permit_mynetworks, reject }}"], {})
        for command in dict.fromkeys(command for finding in hookup.findings() for command in finding["commands"]):
            run(shlex.split(command))
        self.assertEqual(hookup.findings(), [])
        # Under load, Weir is asked before the permit, too.
        for service in ("smtp/inet", "submission/inet"):
            value = run(["postconf", "-c", hookup.directory, "-o", "stress=yes", "-xhP", f"{service}/smtpd_recipient_restrictions"], check=False).stdout
            value = value or run(["postconf", "-c", hookup.directory, "-o", "stress=yes", "-xh", "smtpd_recipient_restrictions"]).stdout
            self.assertLess(value.index("10040"), value.index("permit_mynetworks"), value)
            self.assertNotIn("reverse_client", value)
        self.assertIn(condition, run(["postconf", "-c", hookup.directory, "-n"]).stdout)
        lost = (
            ("policy-default-action", "mine = check_policy_service { inet:127.0.0.1:10040, timeout=${stress?{2}:{10}}s }\n"
             "smtpd_recipient_restrictions = $mine, permit_mynetworks, reject\n", "smtpd_recipient_restrictions by hand, as commands would lose ${stress?{2}:{10}}"),
            ("milter-switched-off", GOOD + f"smtpd_milters = {MILTER}\nnon_smtpd_milters = {MILTER}\nreceive_override_options = no_milters ${{stress?no_address_mappings}}\n",
             "receive_override_options by hand, as commands would lose ${stress?no_address_mappings}"))
        for kind, main, said in lost:
            with self.subTest(kind):
                config = {"listen": {"milter": ["inet:127.0.0.1:10041"]}} if kind.startswith("milter") else {}
                findings = Hookup(self, main, [SMTPD], config).findings()
                self.assertEqual([(finding["kind"], finding["commands"]) for finding in findings], [(kind, [])], findings)
                self.assertIn(f"; change {said}", findings[0]["text"])

    def test_a_last_line_without_a_newline_stays(self):
        """postconf(1) appends to such a line."""
        for name, last in (("main.cf", "message_size_limit = 40960000"), ("master.cf", "last unix - - n - - error")):
            with self.subTest(name):
                hookup = Hookup(self, "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD], {"listen": {"filter": FILTER}})
                with open(hookup.directory / name, "a", encoding="ascii") as file:
                    file.write(last)
                findings = hookup.findings()
                self.assertEqual(findings[0]["commands"][0], f"echo >> {hookup.directory}/{name}")
                for command in dict.fromkeys(command for finding in findings for command in finding["commands"]):
                    if not command.startswith("install "):
                        run(["sh", "-c", command])
                self.assertEqual({finding["kind"] for finding in hookup.findings()}, with_table({"filter-no-way-back"}) - {"filter-no-way-back"})
                self.assertIn(last + "\n", (hookup.directory / name).read_text())

    def test_returned_mail_stays_permitted(self):
        """Without a list that refuses, smtpd does not start; and the filter may not be in mynetworks."""
        back = "127.0.0.1:10027 inet n - y - - smtpd -o content_filter="
        rest = "permit_mynetworks, check_client_access cidr:/etc/postfix/filters, reject_unauth_destination"
        for networks, expected in (("192.0.2.0/24", rest), ("192.0.2.0/24 127.0.0.0/8", "permit_mynetworks, reject")):
            with self.subTest(networks):
                hookup = Hookup(self, f"mynetworks = {networks}\nsmtpd_relay_restrictions = {POLICY}, {rest}\nsmtpd_recipient_restrictions =\n"
                                "content_filter = amavis:[127.0.0.1]:10024\n", [SMTPD, back], {})
                findings = hookup.findings()
                self.assertEqual([finding["kind"] for finding in findings], ["counted-twice"], findings)
                for command in findings[0]["commands"]:
                    run(shlex.split(command))
                self.assertEqual(hookup.findings(), [])
                value = run(["postconf", "-c", hookup.directory, "-Ph", "127.0.0.1:10027/inet/smtpd_relay_restrictions"]).stdout.strip()
                self.assertEqual(re.findall(r"[^ ,]+", run(["postconf", "-c", hookup.directory, "-xh", value[1:]]).stdout if value.startswith("$") else value),
                                 re.findall(r"[^ ,]+", expected))

    def test_new_services_are_chrooted_as_others_are(self):
        """The tables of cleanup may need a socket that is not in the queue directory."""
        for chroot in "y", "n", "-":
            hookup = Hookup(self, GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD.replace("n - y", f"n - {chroot}"), TRANSPORT],
                            {"listen": {"filter": FILTER}})
            master = (hookup.directory / "master.cf").read_text()
            (hookup.directory / "master.cf").write_text(re.sub(r"(?m)^cleanup .*", f"cleanup unix n - {chroot} - 0 cleanup", master))
            commands = [command for finding in hookup.findings() for command in finding["commands"] if " -M " in command]
            self.assertEqual([re.search(r"=\S+ \S+ \S+ \S+ (\S)", command)[1] for command in commands], [chroot] * 2, commands)

    def test_instances_together(self):
        """What one instance does with Weir, another need not do; a service that is switched off does nothing."""
        listen = {"listen": {"filter": FILTER}}
        asking = Hookup(self, GOOD + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, TRANSPORT], listen)
        other = Hookup(self, "smtpd_sasl_auth_enable = no\n", [BACK], listen)
        idle = Hookup(self, "master_service_disable = !127.0.0.1:10026/inet inet\n", [SMTPD], listen)
        with open(asking.directory / "main.cf", "a", encoding="ascii") as file:
            file.write(f"multi_instance_directories = {other.directory} {idle.directory}\n")
        command = [BINARY, "doctor", "--config", asking.directory / "weir.yaml", "--no-service", "--json"]
        for hookup in asking, other, idle:
            hookup.findings()
        result = run(command, check=False, env={**ENVIRONMENT, "MAIL_CONFIG": str(asking.directory)})
        self.assertEqual(serious_findings(result), [])

    def test_several_services_could_send_a_context(self):
        """Only the operator knows which; the finding names them."""
        limit = {**LIMITS[0], "when": {"policy_context": "customers"}}
        findings = Hookup(self, GOOD, [SMTPD, SUBMISSION], {"limits": [limit]}).findings()
        self.assertEqual([(finding["kind"], finding["commands"]) for finding in findings], [("policy-limit-out-of-reach", [])], findings)
        self.assertIn("; add it to check_policy_service of those that the limit is for, among smtp/inet, submission/inet", findings[0]["text"])

    def test_mail_programs_on_loopback(self):
        """Ports for new mail take no returned mail, whatever content_filter is there; and a yes may be in capitals."""
        line = " inet n - y - - smtpd -o smtpd_sasl_auth_enable=YES -o content_filter= -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject"
        for name in ("127.0.0.1:587", "localhost:smtp", "[::1]:465"):
            with self.subTest(name):
                findings = Hookup(self, "smtpd_sasl_auth_enable = no\n" + GOOD, [SMTPD, name + line], {}).findings()
                self.assertEqual([(finding["kind"], finding["place"]) for finding in findings], [("policy-not-here", f"{name}/inet")], findings)

    def test_settings_of_a_milter_stay(self):
        hookup = Hookup(self, GOOD + "mine = { inet:127.0.0.1:10041, connect_timeout=5s, default_action=tempfail, content_timeout=200s }\n"
                        "smtpd_milters = $mine, inet:localhost:11332\nnon_smtpd_milters = $smtpd_milters\nmilter_default_action = reject\n",
                        [SMTPD, SUBMISSION + " -o smtpd_milters=inet:127.0.0.1:10041"], {"listen": {"milter": ["inet:127.0.0.1:10041"]}})
        findings = hookup.findings()
        self.assertEqual([(finding["kind"], finding["place"]) for finding in findings], [("milter-default-action", "submission/inet")], findings)
        hookup = Hookup(self, GOOD + "mine = { inet:127.0.0.1:10041, connect_timeout=5s, content_timeout=200s }\n"
                        "smtpd_milters = $mine, inet:localhost:11332\nnon_smtpd_milters = $smtpd_milters\n", [SMTPD], {"listen": {"milter": ["inet:127.0.0.1:10041"]}})
        for command in hookup.findings()[0]["commands"]:
            run(shlex.split(command))
        self.assertEqual(hookup.findings(), [])
        self.assertIn("smtpd_milters = { inet:127.0.0.1:10041, default_action=accept, connect_timeout=5s, content_timeout=200s }, inet:localhost:11332\n",
                      run(["postconf", "-c", str(hookup.directory), "-n"]).stdout)

    def test_one_note_about_sendmail(self):
        ways = [line + " -o content_filter=weir:[127.0.0.1]:10025" for line in (SMTPD, SUBMISSION)]
        hookup = Hookup(self, GOOD, [*ways, TRANSPORT, BACK], {"listen": {"filter": FILTER}})
        self.assertEqual([note["kind"] for note in hookup.notes()].count("filter-not-for-sendmail"), 1)

    def test_a_silent_service_asks_where_it_has_a_list_of_its_own(self):
        """In main.cf, the command would make the other services ask twice."""
        main, services, config, _ = WRONG["submission with a sender list of its own"]
        commands = Hookup(self, main, services, config).findings()[0]["commands"]
        self.assertEqual([command.rpartition(" ")[2] for command in commands[1:]],
                         ["'submission/inet/smtpd_sender_restrictions=$weir_policy,permit_sasl_authenticated,reject'"])

    def test_no_command_replaces_another_filter(self):
        for main, services, mode in (("content_filter = amavis:[127.0.0.1]:10024\n", [SMTPD], "after_queue"),
                                     ("", [SMTPD + " -o smtpd_proxy_filter=[127.0.0.1]:10024"], "before_queue")):
            hookup = Hookup(self, GOOD + main, [*services, BACK], {"listen": {"filter": [{**FILTER[0], "mode": mode}]}})
            findings = hookup.findings()
            self.assertEqual([(finding["kind"], finding["commands"]) for finding in findings], [("filter-nowhere", [])], findings)
            self.assertIn("[127.0.0.1]:10024: set ", findings[0]["text"])

    def test_printed_filters_are_whole(self):
        """Pasted into weir.yaml, the line has the other filters, too, and the other keys of this one."""
        first = {"listen": {"unix": "/run/weir/filter", "mode": "0600"}, "next_hop": "lmtp:inet:192.0.2.7:24", "protocol": "lmtp"}
        second = {"listen": "inet:127.0.0.1:10025", "next_hop": "inet:127.0.0.1:10026", "mode": "before_queue", "networks": ["127.0.0.0/8", "192.0.2.0/24"]}
        hookup = Hookup(self, GOOD + "content_filter = weir:[127.0.0.1]:10025\n",
                        [SMTPD, TRANSPORT, "other unix - - n - 20 lmtp", BACK, "10028 inet n - y - - smtpd -o content_filter=other:unix:/run/weir/filter"],
                        {"listen": {"filter": [first, second]}})
        findings = hookup.findings()
        self.assertEqual([finding["kind"] for finding in findings], ["filter-mode"], findings)
        self.assertEqual(findings[0]["configuration"], [
            'listen: { filter: [{ listen: { unix: /run/weir/filter, mode: "0600" }, next_hop: "lmtp:inet:192.0.2.7:24", protocol: lmtp }, '
            '{ listen: "inet:127.0.0.1:10025", next_hop: "inet:127.0.0.1:10026", networks: ["127.0.0.0/8", "192.0.2.0/24"] }] }'])
        (hookup.directory / "weir.yaml").write_text(f"limits: {json.dumps(LIMITS)}\n{findings[0]['configuration'][0]}\n")
        self.assertEqual(hookup.findings(), [])

    def test_sockets_out_of_a_chroots_reach(self):
        """Where Weir listens on that socket only, the commands and the line of weir.yaml mend it together."""
        policy = "smtpd_recipient_restrictions = check_policy_service { unix:/run/weir/policy, timeout=10s, default_action=DUNNO }, permit_mynetworks, reject\n"
        milters = "smtpd_milters = unix:/run/weir/milter, unix:/run/weir/milter2\nnon_smtpd_milters = $smtpd_milters\nmilter_default_action = accept\n"
        for main, name, port in ((policy, "policy", 10040), (GOOD + milters, "milter", 10041)):
            with self.subTest(name):
                hookup = Hookup(self, main, [SMTPD], {"listen": {name: f"unix:/run/weir/{name}"}})
                findings = hookup.findings()
                self.assertEqual([finding["kind"] for finding in findings], [f"{name}-socket-in-chroot"], findings)
                own, tcp = f'{{ unix: /run/weir/{name}, mode: "0666" }}', f'"inet:127.0.0.1:{port}"'
                self.assertEqual(findings[0]["configuration"], [f"listen: {{ {name}: [{own}, {tcp}] }}"])
                for command in findings[0]["commands"]:
                    run(shlex.split(command))
                hookup.configure({"listen": {name: [f"unix:/run/weir/{name}", f"inet:127.0.0.1:{port}"]}})
                self.assertEqual(hookup.findings(), [])
                self.assertNotIn(f"unix:/run/weir/{name},", (hookup.directory / "main.cf").read_text())

    def test_manual_lists_every_kind(self):
        # Every text of that form in these files is a kind, with the exceptions that are subtracted.
        files = [*(ROOT / "Sources/Advisor/Doctor").glob("*.swift"), ROOT / "Sources/weir/DoctorCommand.swift"]
        sources = "".join(path.read_text() for path in files)
        manual = (ROOT / "docs/doctor.md").read_text()
        kinds = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', sources)) - {"no-service", "loopback-only", "redis-cli"}
        self.assertGreater(len(kinds), 25)
        for kind in kinds:
            self.assertIn(f"`{kind}`", manual)

    def test_postconf_messages(self):
        """Its warnings become findings; its errors are printed."""
        hookup = Hookup(self, GOOD + "mine = check_policy_service { unix:private/weir, timeout=10s\nsmtpd_end_of_data_restrictions = $mine\n"
                        "smtpd_recipent_restrictions = reject\n", [SMTPD], {"give_back_dropped": True})
        findings = [finding for finding in hookup.findings() if finding["kind"] == "postconf-warning"]
        self.assertEqual(len(findings), 1, findings)
        self.assertEqual((findings[0]["severity"], findings[0]["place"]), ("warning", "main.cf"))
        self.assertRegex(findings[0]["text"], r"^postconf says: warning: .*missing '}' in \"\{ unix:private/weir, timeout=10s")
        result = weir("doctor", "--postfix", hookup.directory, "--config", hookup.directory / "weir.yaml", "--no-service", check=False)
        self.assertRegex(result.stdout, r"\nnote: main\.cf: postconf says: warning: .*: unused parameter: smtpd_recipent_restrictions=reject \[postconf-warning\]")
        (hookup.directory / "master.cf").write_text("smtp inet\n")
        result = weir("doctor", "--postfix", hookup.directory, "--config", hookup.directory / "weir.yaml", "--no-service", check=False)
        self.assertEqual(result.returncode, 69)
        self.assertIn(f"\npostconf: fatal: file {hookup.directory}/master.cf: line 1: bad field count\n", result.stderr)

    def test_correct_ones_give_no_finding(self):
        for name, (main, services, config) in RIGHT.items():
            with self.subTest(name):
                self.assertEqual(Hookup(self, main, services, config).findings(), [])

    def test_limits_that_want_a_login(self):
        """Where nobody can log in, only the operator knows whether the limit or the service is wrong."""
        hookup = Hookup(self, "smtpd_sasl_auth_enable = no\n" + GOOD, [SMTPD], {})
        self.assertEqual([(finding["kind"], finding["commands"]) for finding in hookup.findings()], [("policy-limit-out-of-reach", [])])
        hookup.configure({"limits": [{"name": "per-client", "key": ["client_address"], "rates": ["100/1h"]}]})
        self.assertEqual(hookup.findings(), [])
        nobody_asks = Hookup(self, "smtpd_sasl_auth_enable = no\n", [SMTPD], {})
        self.assertEqual([finding["kind"] for finding in nobody_asks.findings()], ["policy-limit-out-of-reach"])

    def test_commands_of_one_run(self):
        """They redefine no variable that another service uses, and do not list the milter twice."""
        other = "check_policy_service { inet:127.0.0.1:10040, timeout=10s, default_action=DUNNO, policy_context=other }"
        hookup = Hookup(self, f"weir_policy = {other}\nsmtpd_milters = unix:opendkim/opendkim.sock\nnon_smtpd_milters = $smtpd_milters\n",
                        [SMTPD, SUBMISSION + " -o smtpd_recipient_restrictions=$weir_policy,permit_sasl_authenticated,reject"],
                        {"listen": {"milter": ["inet:127.0.0.1:10041"]}})
        for command in dict.fromkeys(command for finding in hookup.findings() for command in finding["commands"]):
            run(shlex.split(command))
        self.assertEqual(hookup.findings(), [])
        values = dict(line.split(" = ", 1) for line in run(["postconf", "-c", str(hookup.directory), "-n"]).stdout.splitlines())
        self.assertEqual(values["weir_policy"], other)
        self.assertEqual(values["non_smtpd_milters"], "$smtpd_milters")
        self.assertEqual(values["smtpd_milters"], f"{MILTER}, unix:opendkim/opendkim.sock")

    def test_tables_of_both(self):
        """What weir.yaml has is taken out of main.cf, but only where all mail passes Weir."""
        tables = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, tables)
        (tables / "checks").write_text("/^Subject: x/ REJECT\n")
        main = GOOD + f"header_checks = regexp:/etc/other, pcre:{tables}/checks\nsmtpd_milters = {MILTER}\n"
        config = {"listen": {"milter": ["inet:127.0.0.1:10041"]}, "checks": {"header": [f"pcre:{tables}/checks"]}}
        hookup = Hookup(self, main + f"non_smtpd_milters = {MILTER}\n", [SMTPD], config)
        self.assertEqual([finding["kind"] for finding in hookup.findings()], ["checks-twice"])
        for command in hookup.findings()[0]["commands"]:
            run(shlex.split(command))
        self.assertEqual(hookup.findings(), [])
        self.assertIn("header_checks = regexp:/etc/other\n", run(["postconf", "-c", str(hookup.directory), "-n"]).stdout)
        partly = Hookup(self, main + f"non_smtpd_milters = {MILTER}\n", [SMTPD, SUBMISSION + " -o receive_override_options=no_milters"], config)
        self.assertIn("milter-switched-off", [finding["kind"] for finding in partly.findings()])

    def tables(self, **contents):
        """A folder with these files."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, folder)
        for name, text in contents.items():
            (folder / name).write_text(text)
        return folder

    def test_tables_that_permit_before_weir(self):
        """A note with the number of entries and some of them."""
        folder = self.tables(
            clients="192.0.2.1 OK\n# 192.0.2.2 OK\n192.0.2.3\tREJECT\n192.0.2.4 20250101\n192.0.2.5\n  relay\n192.0.2.6 550 no\n"
            "192.0.2.7 permit_mynetworks, reject\n192.0.2.8 HOLD permit\n192.0.2.9 friends\n192.0.2.10 ours\n192.0.2.11 reject_unauth_destination\n",
            networks="if 192.0.2.0/24\n192.0.2.0/25 OK\n!192.0.2.0/24 DUNNO\nendif\n", patterns="/^a\\/b c/i OK\n!/x/ ok trailing\nif /OK/\n!/^OK/!/y/ OK\nendif\n/z/ DUNNO\n")
        main = f"smtpd_restriction_classes = friends, ours\nfriends = permit_sasl_authenticated\nours = {POLICY}, permit\n"
        for tables, said in (
                (f"check_client_access hash:{folder}/clients", f"5 entries of hash:{folder}/clients (192.0.2.1, 192.0.2.4, 192.0.2.5, ...)"),
                (f"check_client_access proxy:cidr:{folder}/networks", f"1 entry of proxy:cidr:{folder}/networks (192.0.2.0/25)"),
                (f"check_sender_access pcre:{folder}/patterns", rf"3 entries of pcre:{folder}/patterns (/^a\/b c/i, !/x/, !/^OK/!/y/)"),
                (f"check_sender_access regexp:{folder}/patterns", rf"3 entries of regexp:{folder}/patterns (/^a\/b c/i, !/x/, !/^OK/!/y/)"),
                ("check_helo_access inline:{ { mx.example.org = OK } a=DUNNO b=permit }", "2 entries of inline:{ { mx.example.org = OK } a=DUNNO b=permit } (mx.example.org, b)"),
                ("check_client_access cidr:{ { 192.0.2.0/24 OK }, { 2001:db8::/32 DUNNO } }", "1 entry of cidr:{ { 192.0.2.0/24 OK }, { 2001:db8::/32 DUNNO } } (192.0.2.0/24)"),
                (f"check_ccert_access {{ hash:{folder}/clients, search_order = cert_fingerprint }}", f"5 entries of hash:{folder}/clients (192.0.2.1, 192.0.2.4, 192.0.2.5, ...)"),
                ("check_recipient_access static:{OK}", "1 entry of static:{OK} (everything)"),
                (f"lmdb:{folder}/clients", f"5 entries of lmdb:{folder}/clients (192.0.2.1, 192.0.2.4, 192.0.2.5, ...)"),
                ("check_recipient_access static:DUNNO, reject_non_fqdn_sender", None)):
            with self.subTest(tables):
                hookup = Hookup(self, main + f"smtpd_recipient_restrictions = {tables}, {POLICY}, permit_mynetworks, reject\n", [SMTPD], {})
                self.assertEqual(hookup.findings(), [])
                notes = [(note["place"], note["text"]) for note in hookup.notes() if note["kind"] == "policy-behind-table"]
                text = (f"smtpd_recipient_restrictions permits mail by {said} before it asks Weir, so such mail is not counted; "
                        "if it should be, move that table behind Weir in the list")
                self.assertEqual(notes, [("smtp/inet", text)] if said else [])
                behind = Hookup(self, main + f"smtpd_recipient_restrictions = {POLICY}, {tables}, permit_mynetworks, reject\n", [SMTPD], {})
                self.assertEqual({note["kind"] for note in behind.notes()} & {"policy-behind-table", "tables-unread"}, set())

    def test_what_is_not_read_is_named(self):
        folder = self.tables()
        tables = f"check_client_access hash:{folder}/none, check_sender_access socketmap:inet:127.0.0.1:1:senders, check_helo_access pcre:{folder}"
        hookup = Hookup(self, f"smtpd_recipient_restrictions = {tables}, {POLICY}, permit_mynetworks, reject\n", [SMTPD], {})
        self.assertEqual(hookup.findings(), [])
        unread = [note["text"] for note in hookup.notes() if note["kind"] == "tables-unread"]
        self.assertEqual(unread, [
            f"weir doctor has not read hash:{folder}/none (No such file or directory), pcre:{folder} (Is a directory), "
            "socketmap:inet:127.0.0.1:1:senders (not a table of text): look there yourself for OK, FILTER and DISABLE, which can lead mail past Weir"])

    def test_filter_in_a_table(self):
        """Mail goes to another transport than Weir's. What leads to Weir is no fault, and the table for the way back neither."""
        folder = self.tables(access="example.org FILTER slow:\nexample.com FILTER weir:[127.0.0.1]:10025\n",
                             checks="/^X-Slow:/ filter slow:[192.0.2.9]:25\n/^X-Weir:/ FILTER weir:127.0.0.1:10025\n")
        main = GOOD + f"smtpd_sender_restrictions = check_sender_access hash:{folder}/access\nbody_checks = regexp:{folder}/checks\n"
        cleanup = f"weir_cleanup unix n - y - 0 cleanup -o header_checks=pcre:{ROOT}/conf/postfix/weir_verdict.pcre -o mime_header_checks= -o nested_header_checks= -o body_checks="
        services = [TRANSPORT, BACK + " -o smtpd_sender_restrictions= -o cleanup_service_name=weir_cleanup", cleanup]
        end = "overrides content_filter, so such mail does not go to Weir's filter; look whether it must, and whether the other filter passes it on to Weir"
        hookup = Hookup(self, main + "content_filter = weir:[127.0.0.1]:10025\n", [SMTPD, SUBMISSION, *services], {"listen": {"filter": FILTER}})
        self.assertEqual(hookup.findings(), [])
        self.assertEqual([(note["kind"], note["place"], note["text"], note["commands"]) for note in hookup.notes() if note["kind"] == "filter-bypassed"], [
            ("filter-bypassed", "smtp/inet", f"smtpd_sender_restrictions: FILTER in 1 entry of hash:{folder}/access (example.org) {end}", []),
            ("filter-bypassed", "cleanup/unix", f"body_checks: FILTER in 1 entry of regexp:{folder}/checks (/^X-Slow:/) {end}", [])])
        # Mail of the one service that has such a table does not go to Weir.
        one = Hookup(self, GOOD, [SMTPD + f" -o smtpd_sender_restrictions=check_sender_access,hash:{folder}/access", SUBMISSION + " -o content_filter=weir:[127.0.0.1]:10025",
                                  *services], {"listen": {"filter": FILTER}})
        self.assertNotIn("filter-bypassed", [note["kind"] for note in one.notes()])
        command = Hookup(self, main, [SMTPD + " -o content_filter=weirpipe:dummy", PIPE], {})
        self.assertEqual([note["kind"] for note in command.notes()].count("filter-bypassed"), 2)

    def test_clients_with_other_milters(self):
        main = GOOD + f"smtpd_milters = {MILTER}\nnon_smtpd_milters = {MILTER}\n"
        folder = self.tables(clients=f"127.0.0.0/8 DISABLE\n192.0.2.0/28 disable\n192.0.2.16/28 inet:127.0.0.1:8891\n192.0.2.32/28 inet:127.0.0.1:8891, {MILTER}\n")
        config = {"listen": {"milter": ["inet:127.0.0.1:10041"]}}
        hookup = Hookup(self, main + f"smtpd_milter_maps = cidr:{folder}/clients\n", [SMTPD], config)
        self.assertEqual(hookup.findings(), [])
        self.assertEqual([(note["kind"], note["text"], note["commands"]) for note in hookup.notes() if note["kind"] == "milter-by-table"], [
            ("milter-by-table", f"smtpd_milter_maps takes the milter from clients by 3 entries of cidr:{folder}/clients (127.0.0.0/8, 192.0.2.0/28, 192.0.2.16/28): "
             "it neither checks nor counts their mail; if it should, name the milter there, too", [])])

    def test_rules_for_the_received_header_of_postfix(self):
        """A milter does not see it; with the printed commands, Postfix's own checks do."""
        tables = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, tables)
        (tables / "checks").write_text("/^Subject: x/ WARN\n/^Received:.*with ESMTPSA/ IGNORE\n")
        main = GOOD + f"smtpd_milters = {MILTER}\nnon_smtpd_milters = {MILTER}\n"
        config = {"listen": {"milter": ["inet:127.0.0.1:10041"]}, "checks": {"header": [f"pcre:{tables}/checks"]}}
        relay = SMTPD + " -o smtpd_sasl_auth_enable=no"
        hookup = Hookup(self, main, [relay, SUBMISSION], config)
        findings = hookup.findings()
        self.assertEqual([(finding["kind"], finding["place"]) for finding in findings], [("milter-own-received", "submission/inet")])
        self.assertIn(f"pcre:{tables}/checks:2", findings[0]["text"])
        for command in findings[0]["commands"]:
            run(shlex.split(command))
        self.assertEqual(hookup.findings(), [])
        # After the queue, the filter sees the header.
        filtered = Hookup(self, main + "content_filter = weir:[127.0.0.1]:10025\n", [relay, SUBMISSION, TRANSPORT, BACK],
                          {**config, "listen": {**config["listen"], "filter": FILTER}})
        self.assertEqual(filtered.findings(), [])

    def test_hold_and_filter_are_carried_out(self):
        """By every service to which the filter returns mail, also one that the doctor has printed."""
        tables = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, tables)
        (tables / "checks").write_text("/^Subject: x/ HOLD\n")
        main = GOOD + "content_filter = weir:[127.0.0.1]:10025\n"
        config = {"listen": {"filter": FILTER}, "checks": {"header": [f"pcre:{tables}/checks"]}}
        skipping = BACK.replace("no_milters", "no_milters,no_header_body_checks")
        cleanup = f"weir_cleanup unix n - y - 0 cleanup -o header_checks=pcre:{ROOT}/conf/postfix/weir_verdict.pcre -o mime_header_checks= -o nested_header_checks="
        for services in ([BACK], [skipping], [BACK, cleanup], [skipping + " -o cleanup_service_name=weir_cleanup", cleanup],
                         [BACK, cleanup.partition(" -o")[0]]):
            with self.subTest(services=services):
                hookup = Hookup(self, main, [SMTPD, TRANSPORT, *services], config)
                findings = hookup.findings()
                # A printed service with the table is followed by the command that installs it.
                prints = any("weir_verdict.pcre" in command for command in findings[0]["commands"])
                self.assertEqual([(finding["kind"], finding["place"]) for finding in findings], [("filter-verdict", "127.0.0.1:10026/inet")]
                                 + [("filter-verdict-table", "weir_cleanup/unix")] * prints)
                for command in findings[0]["commands"]:
                    run(words_of(command))
                self.assertEqual(hookup.findings(), [])
        hookup = Hookup(self, main, [SMTPD, TRANSPORT], config)
        self.assertEqual([finding["kind"] for finding in hookup.findings()], ["filter-no-way-back", "filter-verdict-table"])
        for command in hookup.findings()[0]["commands"]:
            run(words_of(command))
        self.assertEqual(hookup.findings(), [])

    def test_the_table_of_verdicts_is_missing(self):
        """Then cleanup takes no mail, whatever the rules say."""
        main = GOOD + "content_filter = weir:[127.0.0.1]:10025\n"
        with tempfile.TemporaryDirectory() as directory:
            table = f"{directory}/postfix/weir_verdict.pcre"
            cleanup = f"weir_cleanup unix n - y - 0 cleanup -o header_checks=pcre:{table} -o mime_header_checks= -o nested_header_checks="
            hookup = Hookup(self, main, [SMTPD, TRANSPORT, BACK + " -o cleanup_service_name=weir_cleanup", cleanup], {"listen": {"filter": FILTER}})
            findings = hookup.findings()
            self.assertEqual([(finding["kind"], finding["place"]) for finding in findings], [("filter-verdict-table", "weir_cleanup/unix")])
            words = shlex.split(findings[0]["commands"][0])
            self.assertEqual(words[-2:], ["/usr/share/doc/weir/examples/postfix/weir_verdict.pcre", table])
            run([*words[:-2], ROOT / "conf/postfix/weir_verdict.pcre", table])
            self.assertEqual(hookup.findings(), [])

    def test_limits_are_those_of_postfix(self):
        main = GOOD + "content_filter = weir:[127.0.0.1]:10025\nheader_size_limit = 300000\nbody_checks_size_limit = 100\n"
        config = {"listen": {"filter": FILTER}}
        hookup = Hookup(self, main, [SMTPD, TRANSPORT, BACK], config)
        findings = hookup.findings()
        self.assertEqual([(finding["kind"], finding["configuration"]) for finding in findings], [
            ("filter-limits", ["checks: { header_size_limit: 300000 }"]), ("filter-limits", ["checks: { body_checks_size_limit: 100 }"])])
        hookup.configure({**config, "checks": {"header_size_limit": 300000, "body_checks_size_limit": 100}})
        self.assertEqual(hookup.findings(), [])

    def test_times_in_every_unit_and_of_any_size(self):
        """What Postfix itself refuses as too large is no time."""
        filtered = {"listen": {"filter": [{**FILTER[0], "mode": "before_queue"}]}}
        for time, expected in (("1w", {"policy-timeout"}), ("30", set()), ("99999999999999999999", set()),
                               ("999999999999999999d", set()), ("9223372036854775807", set())):
            main = GOOD.replace("timeout=10s", f"timeout={time}") + f"smtpd_proxy_timeout = {time}\n"
            hookup = Hookup(self, main, [SMTPD + " -o smtpd_proxy_filter=127.0.0.1:10025", BACK], filtered)
            with self.subTest(time):
                self.assertEqual({finding["kind"] for finding in hookup.findings()}, expected)

    def test_bare_newlines_and_long_from_lines(self):
        """What an older Postfix does by default, or with a filter before the queue."""
        before = [SMTPD + " -o smtpd_proxy_filter=127.0.0.1:10025", BACK]
        old = [before[0] + " -o smtpd_forbid_bare_newline=no", BACK]
        hookup = Hookup(self, GOOD, old, {"listen": {"filter": [{**FILTER[0], "mode": "before_queue"}]}})
        self.assertEqual(hookup.findings(), [])
        smuggling = [finding for finding in hookup.notes() if finding["kind"] == "smtp-smuggling"]
        self.assertEqual([finding["place"] for finding in smuggling], ["smtp/inet"])
        for command in smuggling[0]["commands"]:
            run(shlex.split(command))
        self.assertNotIn("smtp-smuggling", [finding["kind"] for finding in hookup.notes()])
        for version, is_old in (("3.7.20", True), ("3.7.21", False), ("3.6.15", True), ("3.11.4", True), ("3.11.5", False), ("3.12-20260821", False), ("3.13.0", False)):
            hookup = Hookup(self, GOOD + f"mail_version = {version}\n", before, {"listen": {"filter": [{**FILTER[0], "mode": "before_queue"}]}})
            self.assertEqual(hookup.findings(), [])
            result = weir("doctor", "--postfix", hookup.directory, "--config", hookup.directory / "weir.yaml", "--no-service", check=False)
            self.assertEqual("[filter-from-line]" in result.stdout, is_old, version)

    def test_from_lines_as_in_this_version(self):
        for version, right in (("3.7.20", "all"), ("3.7.21", "first"), ("3.12-20260821", "first"), ("3.11-20260101", None)):
            for setting in ("all", "first"):
                checks = {"header": [f"pcre:{ROOT}/conf/postfix/weir_verdict.pcre"], "from_lines": setting}
                hookup = Hookup(self, GOOD + f"mail_version = {version}\n", [SMTPD], {"checks": checks})
                found = [line for finding in hookup.notes() for line in finding["configuration"]]
                with self.subTest(version=version, setting=setting):
                    self.assertEqual(found, [f"checks: {{ from_lines: {right} }}"] if right not in (None, setting) else [])

    def test_shipped_lines_give_no_finding(self):
        hookup = Hookup(self, (ROOT / "conf/postfix/main.cf").read_text() + (ROOT / "conf/postfix/master.cf").read_text().split("# And these in main.cf:\n")[1].replace("# ", "").replace("#", ""),
                        (ROOT / "conf/postfix/master.cf").read_text().replace("/etc/weir/postfix", str(ROOT / "conf/postfix")).splitlines(),
                        {"listen": {"milter": ["inet:127.0.0.1:10041"]}, "give_back_dropped": True})
        self.assertEqual(hookup.findings(), [])


class MendedOnARunningPostfix(unittest.TestCase):
    """Each mistake in main.cf or master.cf: after applying the printed commands, every recipient is
    counted once, every message is filtered once, and all arrive."""

    # A chroot needs files that a private Postfix doesn't have, a login needs SASL, and a command needs sendmail(1) and a user. With what is
    # for relays, the site itself takes no mail. The private Postfix has no IPv6, and no LMTP server.
    LEFT_OUT = {
        "a filter's socket out of a chroot's reach", "a filter's socket out of a chroot's reach, before the queue", "nothing is filtered through a socket",
        "a socket out of a chroot's reach", "a milter's socket out of a chroot's reach", "the way to the filter and back takes what is for relays and strangers",
        "never asked at DATA", "never asked at the end with the context that a limit wants", "bytes at RCPT", "recipients at the end", "behind reject",
        "several recipients to an LMTP server, in SMTP", "no way back by IPv6", "a context that nobody sends", "a command that filters its own result", "a command takes what is for others",
        "bytes at RCPT and at the end, with another context", "the number of recipients at RCPT", "a refusal is only a line of the log, twice in a list",
        "nobody asks, with a list that depends on the load", "logins through a proxy on this machine"}
    # These mistakes show in counts and headers. "end of data" settles what was counted at RCPT.
    SHOWN = {"policy-nowhere", "policy-behind-permit", "policy-not-here", "milter-nowhere", "milter-not-here",
             "milter-not-for-sendmail", "milter-switched-off", "filter-nowhere", "counted-twice", "milter-twice"}
    NOT_SHOWN = {"end of data behind a permit", "behind a permit for the site's own domains"}

    def test_all(self):
        entries = {name: entry for name, entry in WRONG.items() if len(entry) == 4 and name not in self.LEFT_OUT}
        self.assertGreater(len(entries), 25)
        for name, (main, services, config, kinds) in entries.items():
            with self.subTest(name):
                self.mend(name, main, services, config, kinds)

    def mend(self, name, main, services, config, kinds):
        ports = {number: str(free_port()) for number in ("10025", "10026", "10040", "10041")}

        def on_free_ports(text):
            # Without SASL logins and other milters.
            text = text.replace("permit_sasl_authenticated", "permit_mynetworks").replace(", unix:other", "")
            return re.sub(r"\b100(25|26|40|41)\b", lambda match: ports[match[0]], text)

        config = json.loads(on_free_ports(json.dumps(config)))
        service = WeirService(port=int(ports["10040"]), limits=[{"name": "per-sender", "key": ["sender"], "rates": ["100/1h"]}])
        (service.directory / "header.pcre").write_text("/^Subject:/ PREPEND X-Seen: Weir\n")
        service.config["listen"].update(config.pop("listen", {}))
        service.config.update(config)
        service.config["checks"] = {"header": [f"pcre:{service.directory}/header.pcre"], "cache": f"{service.directory}/cache"}
        service.config["filter"] = {"spool": str(service.directory)}
        submission = free_port() if SUBMISSION.split()[0] in " ".join(services) else None
        extra = [re.sub(r"^submission ", f"127.0.0.1:{submission} ", on_free_ports(line)).replace(" - y ", " - n ", 1) for line in services]
        with service, SMTPSink() as sink:
            postfix = PrivatePostfix(relay=sink.port, main={"smtpd_forbid_bare_newline": "yes"}, lines=f"again = {on_free_ports(POLICY)}\n" + on_free_ports(main))
            postfix.parameters["smtpd_recipient_restrictions"] = None
            # Replace the service on port 25 by one on a free port.
            own = [index for index, line in enumerate(extra) if line.startswith("smtp inet")]
            postfix.services = [extra.pop(own[0]).replace("smtp ", f"127.0.0.1:{postfix.port} ", 1), *extra]
            with postfix:
                ways = [port for port in (postfix.port, submission) if port]
                filters = ("filter" in service.config["listen"]) + ("milter" in service.config["listen"])
                counts_sendmail = "milter" in service.config["listen"]
                good = {"counted": 2 * len(ways) + counts_sendmail, "seen": [filters] * len(ways)}
                found, commands = self.findings(postfix, service)
                self.assertEqual(found, with_table(kinds))
                if kinds <= self.SHOWN and name not in self.NOT_SHOWN:
                    self.assertNotEqual(self.observe("before@example.org", ways, postfix, service, sink), good)
                for words in filter(None, map(words_of, commands)):
                    run(words)
                postfix.reload()
                self.assertEqual(self.findings(postfix, service)[0], set(), commands)
                self.assertEqual(self.observe("after@example.org", ways, postfix, service, sink), good)

    def findings(self, postfix, service):
        findings = serious_findings(weir("doctor", "--postfix", postfix.etc, "--config", service.config_file, "--json", check=False))
        return {finding["kind"] for finding in findings}, list(dict.fromkeys(command for finding in findings for command in finding["commands"]))

    def observe(self, sender, ways, postfix, service, sink):
        """Sends to two recipients over each port and one over sendmail(1); returns what was counted, and how often each message was filtered."""
        for port in ways:
            with SMTP(port) as client:
                client.mail(sender, ["b@example.com", "c@example.com"], f"Subject: way {port}\n\nbody\n")
        postfix.sendmail(sender, ["d@example.com"], "Subject: sendmail\n\nbody\n")

        def arrived():
            return [one["content"].decode() for one in sink.messages() if one["sender"] == sender]
        wait_until(lambda: len(arrived()) >= len(ways) + 1 and not postfix.queue(), lambda: f"{sender}: {postfix.log()}\n{service.log()}")
        self.assertEqual(len(arrived()), len(ways) + 1)
        return {"counted": service.used(sender, "per-sender") or 0,
                "seen": [text.count("X-Seen: Weir") for text in sorted(arrived()) if "Subject: way" in text]}


class ResultsOfTables(unittest.TestCase):
    """What a table returns before Weir is asked, beside what smtpd makes of it."""

    RESULTS = ["OK", "ok trailing", "RELAY", "20250101", "1", "250", "550", "450 later", "550 no", "REJECT", "DEFER", "DEFER_IF_PERMIT", "DUNNO", "DUNNO x",
               "HOLD permit", "PREPEND X-A: permit", "INFO permit", "WARN permit", "permit", "permit_mynetworks, reject", "reject_non_fqdn_sender, permit",
               "reject_unauth_destination", "friends", "strangers", "warn_if_reject reject, permit", "warn_if_reject reject", "defer_if_permit", "reject permit",
               "PERMIT_MYNETWORKS"]

    def test_permits(self):
        limits = [{"name": "per-sender", "key": ["sender"], "rates": ["100/1h"]}]
        service = self.enterContext(WeirService(limits=limits))
        sink = self.enterContext(SMTPSink())
        own = f"check_policy_service {{ inet:127.0.0.1:{service.port}, timeout=10s, default_action=DUNNO }}"
        (service.directory / "senders").write_text("".join(f"s{number}@example.org {result}\n" for number, result in enumerate(self.RESULTS)))
        lists = f"smtpd_restriction_classes = friends, strangers\nfriends = reject_non_fqdn_sender, permit_mynetworks\nstrangers = {own}, permit\n"
        postfix = self.enterContext(PrivatePostfix(relay=sink.port, lines=lists, main={
            "smtpd_recipient_restrictions": f"check_sender_access texthash:{service.directory}/senders, {own}, permit_mynetworks, reject"}))
        for number, result in enumerate(self.RESULTS):
            with self.subTest(result):
                sender = f"s{number}@example.org"
                with SMTP(postfix.port) as client:
                    replies = client.mail(sender, ["b@example.com"])
                passed = replies[0][0] == 250 and not service.used(sender, "per-sender")
                main = lists + f"smtpd_recipient_restrictions = check_sender_access inline:{{ {{ a@example.org = {result} }} }}, {own}, permit_mynetworks, reject\n"
                hookup = Hookup(self, main, [SMTPD], {"limits": limits, "listen": {"policy": [f"inet:127.0.0.1:{service.port}"]}})
                self.assertEqual("policy-behind-table" in [note["kind"] for note in hookup.notes()], passed, replies)


class Live(unittest.TestCase):
    def test_on_a_running_postfix(self):
        """After a permit nothing is counted; with the printed fix, everything is."""
        service = self.enterContext(WeirService(limits=[{"name": "per-sender", "key": ["sender"], "rates": ["100/1h"]}]))
        policy = f"check_policy_service {{ inet:127.0.0.1:{service.port}, timeout=10s, default_action=DUNNO }}"
        sink = self.enterContext(SMTPSink())
        postfix = self.enterContext(PrivatePostfix(relay=sink.port, main={
            "smtpd_forbid_bare_newline": "yes", "smtpd_recipient_restrictions": f"permit_mynetworks, {policy}, reject"}))

        def send():
            with SMTP(postfix.port) as client:
                client.mail("a@example.org", ["b@example.com"])

        send()
        shown = weir("limits", "show", "--config", service.config_file, "a@example.org").stdout
        self.assertIn("no limit has counted a@example.org recently", shown)
        findings = serious_findings(weir("doctor", "--postfix", postfix.etc, "--config", service.config_file, "--json", check=False))
        self.assertEqual([finding["kind"] for finding in findings], ["policy-behind-permit"], findings)
        for command in findings[0]["commands"]:
            run(shlex.split(command))
        postfix.reload()
        send()
        self.assertEqual(service.used("a@example.org", "per-sender"), 1)
        result = weir("doctor", "--postfix", postfix.etc, "--config", service.config_file)
        notes = "1 finding\n\nnote: weir.yaml: the service runs as root [runs-as-root]" if USER == "root" else "no findings"
        self.assertIn(f"weir serve: {notes}\n", result.stdout)
        service.stop()
        result = weir("doctor", "--postfix", postfix.etc, "--config", service.config_file, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(" is unreachable: Connection refused", result.stdout)

    def test_a_service_that_refuses_nothing_or_is_in_trouble(self):
        with PrivatePostfix() as postfix, WeirService(limits=[{**LIMITS[0], "mode": "shadow"}]) as service:
            at = ("doctor", "--postfix", postfix.etc, "--config", service.config_file, "--json")
            def kinds():
                return [finding["kind"] for finding in json.loads(weir(*at, check=False).stdout)[-1]["findings"]]
            self.assertIn("shadow-only", kinds())
            service.configure(limits=LIMITS, ledger={"store": f"sqlite:{service.directory}/none/ledger.sqlite"})
            service.restart()
            self.assertIn("service-in-trouble", kinds())
            self.assertNotIn("shadow-only", kinds())
            (service.directory / "none").mkdir()
            wait_until(lambda: "service-in-trouble" not in kinds(), "the ledger is open")

    def test_a_service_that_hangs_or_may_not_be_asked(self):
        with PrivatePostfix() as postfix, WeirService(limits=LIMITS) as service:
            at = ("doctor", "--postfix", postfix.etc, "--config", service.config_file)
            os.kill(service.pid, signal.SIGSTOP)
            try:
                result = weir(*at, check=False)
                tried = weir(*at, "--try", "--smtp", f"inet:127.0.0.1:{postfix.port}", check=False)
            finally:
                os.kill(service.pid, signal.SIGCONT)
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stdout, (
                r"(?m)^fault: weir\.yaml: the service accepts connections, but hangs: no answer from "
                rf"unix:{service.admin_socket} within 10 s \[service-in-trouble\]\n    systemctl restart weir$"))
            self.assertEqual((tried.returncode, tried.stderr), (69, f"weir doctor: no answer from unix:{service.admin_socket} within 10 s\n"))
            service.stop()
            service.admin_socket = free_port()
            service.config["listen"]["admin"] = f"inet:127.0.0.1:{service.admin_socket}"
            service.configure()
            service.start()
            token = service.directory / "admin-token"
            token.unlink()
            result = weir(*at, check=False)
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stdout, (
                rf"(?m)^fault: weir\.yaml: the service can't be asked, and weir limits and weir top fail: can't read {token}: "
                r"No such file or directory: restart the service to make a new one \[service-not-asked\]$"))

    def test_postconf_fails(self):
        with WeirService() as service:
            directory = service.directory / "bin"
            directory.mkdir()
            at = ("doctor", "--config", service.config_file)

            def with_postconf(text):
                (directory / "postconf").write_text("#!/bin/sh\n" + text)
                (directory / "postconf").chmod(0o755)
                return subprocess.run(
                    [os.environ.get("WEIR_BINARY", ROOT / ".build/release/weir"), *at], env={"PATH": f"{directory}:/usr/bin:/bin"},
                    capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

            result = with_postconf("echo broken >&2; exit 1\n")
            self.assertEqual(result.returncode, 69)
            self.assertIn("postconf -d exited with status 1\nbroken", result.stderr)
            result = with_postconf("exec sleep 100\n")
            self.assertEqual(result.returncode, 69)
            self.assertIn("took longer than", result.stderr)
            result = with_postconf("head -c 20000000 /dev/zero\n")
            self.assertEqual(result.returncode, 69)
            result = weir(*at, "--postfix", "/nonexistent", check=False)
            self.assertEqual(result.returncode, 69)
            self.assertIn("/nonexistent", result.stderr)


class Trial(unittest.TestCase):
    def trial(self, postfix, service, *arguments):
        result = weir("doctor", "--try", "--postfix", postfix.etc, "--config", service.config_file, "--smtp", f"inet:127.0.0.1:{postfix.port}",
                      "--to", "postmaster@example.com", "--json", *arguments, check=False)
        self.assertIn(result.returncode, (0, 1), result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(postfix.queue(), [])
        return result.returncode, report

    def test_policy_alone(self):
        """A full limit doesn't refuse the probe. It is charged to no key, and the session ends before DATA."""
        limits = [{"name": "per-client", "key": ["client_address"], "rates": ["2/1h"]}]
        with WeirService(limits=limits) as service, SMTPSink() as sink:
            policy = f"check_policy_service inet:127.0.0.1:{service.port}"
            with PrivatePostfix(relay=sink.port, main={"smtpd_recipient_restrictions": f"{policy}, permit_mynetworks, reject"}) as postfix:
                for _ in range(3):
                    status, report = self.trial(postfix, service)
                    self.assertEqual((status, report["missing"], report["mayBeDelivered"]), (0, [], False))
                    self.assertEqual([(one["stage"], one["place"], one["outcome"]) for one in report["sightings"]], [("policy", "policy server, RCPT", "DUNNO; charged to per-client, and given back")])
                self.assertEqual(service.used("127.0.0.1", "per-client") or 0, 0)
                self.assertEqual(sink.messages(), [])
                self.check_text(postfix, service)

    def check_text(self, postfix, service):
        """Each command has its name, one clock counts, and a refusal of real mail is not hidden."""
        units = {"us": 0.001, "ms": 1, "s": 1000}
        for is_blocked in (False, True):
            if is_blocked:
                weir("limits", "block", "127.0.0.1", "--limit", "per-client", "--config", service.config_file)
            text = weir("doctor", "--try", "--postfix", postfix.etc, "--config", service.config_file, "--smtp", f"inet:127.0.0.1:{postfix.port}").stdout
            times = {name: float(time) * units[unit] for time, unit, name in re.findall(r"(?m)^ +([0-9.]+) (us|ms|s)  ([A-Za-z ]+): ", text)}
            self.assertEqual(list(times), ["connect", "EHLO localhost", "MAIL FROM", "RCPT TO", "QUIT"], text)
            time, unit = re.search(r"seen by the policy server, RCPT after ([0-9.]+) (us|ms|s): ", text).groups()
            seen = float(time) * units[unit]
            self.assertLessEqual(times["MAIL FROM"], seen, text)
            self.assertLessEqual(seen, times["RCPT TO"], text)
            self.assertEqual("real mail would be refused; Weir let the probe pass" in text, is_blocked, text)

    def test_filter_and_policy(self):
        with SMTPSink() as sink, filtered_postfix(sink.port, limits=[{"name": "per-sender", "key": ["sender"], "rates": ["9/1h"]}]) as (postfix, service):
            postfix.parameters["smtpd_recipient_restrictions"] = f"check_policy_service inet:127.0.0.1:{service.port}, permit_mynetworks, reject"
            postfix.write()
            postfix.reload()
            status, report = self.trial(postfix, service)
            self.assertEqual(status, 0, report)
            self.assertEqual([one["stage"] for one in report["sightings"]], ["policy", "filter"])
            self.assertEqual(report["sightings"][1]["outcome"], "passed")
            self.assertTrue(all(one["text"][0] in "23" for one in report["replies"]))
            # If Postfix doesn't ask the policy server, the report says so, and the probe is still discarded.
            postfix.parameters["smtpd_recipient_restrictions"] = "permit_mynetworks, reject"
            postfix.write()
            postfix.reload()
            status, report = self.trial(postfix, service)
            self.assertEqual((status, report["missing"]), (1, ["policy"]))
            self.assertEqual(sink.messages(), [])

    def test_milter(self):
        with SMTPSink() as sink, milter_postfix(sink.port, header="/^X-Never:/ REJECT\n") as (postfix, service):
            status, report = self.trial(postfix, service)
            self.assertEqual((status, report["missing"]), (0, []), report)
            self.assertEqual(report["sightings"][-1]["place"], "milter, end of message")
            self.assertEqual(sink.messages(), [])
            # Mail that only claims to be a probe is delivered.
            with SMTP(postfix.port) as client:
                client.mail("weir-probe-x@example.org", ["b@example.com"], "X-Weir-Probe: x\nSubject: kept\n\n")
            postfix.wait_drained()
            self.assertEqual(len(sink.messages()), 1)

    def test_unreachable_services(self):
        with WeirService(limits=LIMITS) as service, PrivatePostfix() as postfix:
            at = ("doctor", "--try", "--postfix", postfix.etc, "--config", service.config_file)
            port = free_port()
            result = weir(*at, "--smtp", f"inet:127.0.0.1:{port}", check=False)
            self.assertEqual(result.returncode, 69)
            self.assertEqual(result.stderr, f"weir doctor: can't connect to smtpd at 127.0.0.1:{port}: Connection refused; --smtp names another address\n")
            self.assertEqual(weir(*at, "--smtp", "inet:192.0.2.1:25", check=False).returncode, 64)
            self.assertEqual(weir(*at, "--to", "a b", check=False).returncode, 64)
            service.stop()
            result = weir(*at, "--smtp", f"inet:127.0.0.1:{postfix.port}", check=False)
            self.assertEqual(result.returncode, 69)


POSTFWD = r"""
# converted
&&OUTSIDE { client_address=!!(10.0.0.0/8); };
id=RATE01 ;  client_name==unknown
   action=rate(client_address/3/300/450 4.7.1 sorry, at most 3)
id=SIZE01 ; protocol_state==END-OF-MESSAGE ; &&OUTSIDE ; \
   action=size(client_address/1572864/3600/450 4.7.1 sorry [$$ratecount of $$client_address])
id=RCPT01; sasl_username=~/@example\.org$/
   sasl_username=bob; action=rcpt(sasl_username/500/86400/REJECT limit for $$sasl_username)
id=RATE01; protocol_state=END-OF-MESSAGE; sender_domain=example.com; action=rate5321($$sender/10/60)
# not converted
id=WHITE; client_address=192.0.2.0/24; action=DUNNO
id=NUMBER; size=>1000; action=rate(sender/1/60/REJECT x)
id=FILE; sender==file:/etc/senders; action=rate(sender/1/60/REJECT x)
id=NAMES; action=rate(sender/1/60/REJECT $$helo_name)
id=SCORE; action=rate(sender/1/60/score(+5))
id=ZERO; action=rate(sender/0/60/REJECT x)
id=ITEM; action=rate(rblcount/1/60/REJECT x)
id=OR; helo_name!=a; helo_name=~b; action=rate(sender/1/60/REJECT x)
&&NOWHERE; action=rate(sender/1/60/REJECT x)
""" + "\0\xff rubbish\n"


class Import(unittest.TestCase):
    def result(self, source, text):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="weir-test-"))
        self.addCleanup(shutil.rmtree, directory)
        (directory / "rules").write_bytes(text.encode("latin-1"))
        result = weir("import", source, directory / "rules", check=False)
        (directory / "weir.yaml").write_text(result.stdout)
        weir("check-config", "--config", directory / "weir.yaml")
        return result, [line.split(": ", 1)[0].rsplit(":", 1)[-1] for line in result.stderr.splitlines() if ": left out: " in line]

    def test_postfwd(self):
        result, left_out = self.result("postfwd", POSTFWD)
        self.assertEqual(result.returncode, 1)
        first = POSTFWD.splitlines().index("# not converted") + 2
        self.assertEqual(left_out, [str(first + number) for number in range(10)])
        for text in ('- name: RATE01\n    when:\n      client_name: { matches: "/^unknown$/" }\n    key: [client_address]\n    count: recipients\n    rates: [3/5m]\n    over: "450 4.7.1 sorry, at most 3"\n',
                     '- name: SIZE01\n    when:\n      client_address: { not: { in: ["10.0.0.0/8"] } }\n    key: [client_address]\n    count: bytes\n    rates: [1572864/1h]\n    over: "450 4.7.1 sorry [$count of $key]"\n',
                     r'sasl_username: { matches: "/(?:@example\\.org$)|(?:bob)/" }' + '\n    key: [sasl_username]\n    count: recipients\n    rates: [500/1d]\n    over: "REJECT limit for $key"\n',
                     '- name: RATE01-2\n    when:\n      sender_domain: { matches: "/example.com/" }\n    key: [sender]\n    count: messages\n    rates: [10/1m]\n'):
            self.assertIn(text, result.stdout)
        self.assertEqual(result.stdout.count("- name:"), 4)

    def test_forms_of_postfwd(self):
        action = "action=rate(client_address/2/3600/450 4.7.1 x)"
        for rules, taken, said in (
                # A quantifier in a macro.
                ("&&DYN {\n  client_name=^unknown$;\n  client_name=(\\-.+){4};\n};\nid=A; &&DYN; " + action, r'matches: "/(?:^unknown$)|(?:(\\-.+){4})/"', None),
                ("id=A; sasl_username=~/^(.+)$; action=rate(sasl_username/2/3600/450 x)", 'matches: "/^(.+)$/"', None),
                ("id=A; sasl_username=~/^a\\/; action=rate(sasl_username/2/3600/450 x)", r'matches: "/^a\\//"', None),
                ("id=A; sasl_username=~/a/b/; action=rate(sasl_username/2/3600/450 x)", r'matches: "/a\\/b/"', None),
                ("id=A; action=size(recipient/1000/3600/450 x)", "limits: []", "left out: A: recipient can't be used with 'count: bytes'"),
                ("id=A; " + action, "keys: { ipv6_prefix: 128 }", None),
                ("id=A; action=rate(sender/2/3600/450 x)", "key: [sender]", "postfwd also counts the null sender"),
                ("id=A; action=rate(sender/2/3600/450 x)", "key: [sender]", "postfwd ignores case in the local part")):
            with self.subTest(rules):
                result, _ = self.result("postfwd", rules + "\n")
                self.assertIn(taken, result.stdout, result.stderr)
                self.assertIn(said or "", result.stderr)
                self.assertEqual(result.returncode, 1 if taken == "limits: []" else 0, result.stderr)

    def test_postfwd_and_weir_refuse_the_same(self):
        """The converted limits in a running service."""
        result, _ = self.result("postfwd", "id=A; sender==a@example.org; action=rate(sender/2/3600/450 4.7.1 slow down)\n")
        self.assertEqual(result.returncode, 0)
        with WeirService() as service:
            # JSON is valid YAML: write each key of the service's configuration on a line before the limits.
            own = "".join(f"{key}: {json.dumps(value)}\n" for key, value in service.config.items() if key != "limits")
            service.configure(text=own + result.stdout)
            service.reload()
            service.wait_logged("reloaded:")
            self.assertEqual([service.ask(sender="A@example.org") for _ in range(3)], ["DUNNO", "DUNNO", "450 4.7.1 slow down"])
            self.assertEqual([service.ask(sender="b@example.org") for _ in range(3)], ["DUNNO"] * 3)

    def test_anvil(self):
        result, left_out = self.result("anvil", (
            "mynetworks = 127.0.0.0/8,\n  # a comment\n\n  192.0.2.0/24 [2001:db8::]/32 hash:/etc/more\nsmtpd_client_message_rate_limit = 30\n"
            "smtpd_client_recipient_rate_limit=$many\nsmtpd_client_auth_rate_limit = 5\nsmtpd_client_connection_rate_limit = 0\nmany = 100\n"
            "anvil_rate_time_unit = 2m\n"))
        self.assertEqual(result.returncode, 1)
        self.assertEqual(left_out[-1], "7")
        self.assertIn("includes hash:/etc/more, which is not a network", result.stderr)
        for text in ("name: per-client-recipients", "rates: [100/2m]", "name: per-client-messages", "rates: [30/2m]",
                     'client_address: { not: { in: ["127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"] } }'):
            self.assertIn(text, result.stdout)
        self.assertEqual(result.stdout.count("- name:"), 2)
        result, left_out = self.result("anvil", "")
        self.assertEqual((result.returncode, left_out), (0, []))
        self.assertIn(": note: sets no smtpd_client_*_rate_limit, so there is nothing to convert\n", result.stderr)
        self.assertEqual(weir("import", "anvil", "/nonexistent", check=False).returncode, 66)

    def test_prefix_lengths_of_anvil(self):
        rate = "smtpd_client_message_rate_limit = 1\nsmtpd_client_ipv4_prefix_length = "
        result, left_out = self.result("anvil", rate + "24\n")
        self.assertIn("keys: { ipv4_prefix: 24, ipv6_prefix: 128 }", result.stdout)
        # Neither is a length, and the second would be read as another key.
        for value in ("33", "24, default_domain: example.org", "]"):
            result, left_out = self.result("anvil", rate + value + "\n")
            self.assertIn("limits: []", result.stdout)
            self.assertEqual(left_out, ["2"])

    def test_networks_of_anvil(self):
        for networks, exempt in (
                # Debian's default.
                ("127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128", ["127.0.0.0/8", "::1/128"]),
                ("192.0.2.1, [2001:db8::1] [2001:db8:1::/48]", ["192.0.2.1/32", "2001:db8::1/128", "2001:db8:1::/48"]),
                ("!192.0.2.0/26 192.0.2.0/24", ["192.0.2.128/25", "192.0.2.64/26"]),
                ("!192.0.2.0/24 192.0.2.0/26 [::ffff:192.0.2.0]/120 198.51.100.0/24", ["198.51.100.0/24"]),
                ("192.0.2.0/24 !192.0.2.0/26", ["192.0.2.0/24"])):
            with self.subTest(networks):
                result, left_out = self.result("anvil", f"mynetworks = {networks}\nsmtpd_client_message_rate_limit = 1\n")
                self.assertEqual((result.returncode, left_out), (0, []), result.stderr)
                self.assertIn(f"in: {json.dumps(exempt)}", result.stdout)
        for networks, said in (("192.0.2.1/24", "did you mean 192.0.2.0/24?"), ("!.example.org", "may be exempt"),
                               ("[::ffff:127.0.0.0]/80", "is not a network"), ("192.0.2.0/33", "is not a network")):
            with self.subTest(networks):
                result, left_out = self.result("anvil", f"smtpd_client_message_rate_limit = 1\nmynetworks = {networks}\n")
                self.assertEqual((result.returncode, left_out), (1, ["2"]))
                self.assertIn(said, result.stderr)

    def test_networks_that_main_cf_does_not_set(self):
        for exceptions, said in (("$mynetworks, 192.0.2.7", True), ("${smtpd_client_connection_limit_exceptions:$mynetworks}", True), ("", False), ("192.0.2.7", False)):
            with self.subTest(exceptions):
                result, _ = self.result("anvil", f"smtpd_client_message_rate_limit = 1\nsmtpd_client_event_limit_exceptions = {exceptions}\n")
                self.assertEqual("note: mynetworks is not set here" in result.stderr, said, result.stderr)

    def test_expansion_is_that_of_postconf(self):
        """Each expression, as a value that is no number and so is quoted."""
        names = ("set = x\nempty =\nto_empty = $empty\ncompatibility_level = 3.6\nstress =\n")
        good = (
            "$set ${set} $(set) $$set a$$ $undefined|${undefined} ${ set }", "${empty?{1}:{2}} ${set?{1}:{2}} ${stress?{10}:{50}}",
            "${set?{ yes }:{ no }}|${empty?{ yes }:{ no }}|", "${set?value:more} ${empty:value more} ${empty?value} ${set:value}",
            "${set ? {1} : {2}} ${empty ? {1} : {2}} ${set ?1} ${set? 1} ${empty : 1}", "${set?{1}} ${empty?{1}} ${set:{1}} ${empty:{1}}",
            "${{$set} == {x} ? {T} : {F}} ${{$set}!={x}?{T}:{F}} ${{$set}=={x}} ${{$set}=={y}} ${{a} == {a}?b}",
            "${{9} < {10}?{T}:{F}} ${{9}<{a}?{T}:{F}} ${{b}>{a}?{T}:{F}} ${{} < {a}?{T}:{F}} ${{2}>={2}?{T}:{F}} ${{2}<={1}?{T}:{F}}",
            "${set?{${empty?{A}:{B$(set)}}}:{C}} ${set?${empty:$set}}", "${to_empty?yes} ${to_empty:no} $(to_empty?{1}:{2}) ${{$to_empty}=={}?{T}:{F}}",
            "${set??foo:{b}ar} ${set?:} ${set?} ${empty:}", "${{$compatibility_level} <level {3.10} ? {yes} : {no}} ${{3.6} <{3.10} ? {yes} : {no}}",
            "${{3} ==level {3.0.0}?{T}:{F}} ${{3.9} >level {3.10}?{T}:{F}}", "${?1}|${:1}", "$set-x $set.x $(set)y ${set}_y", "${set?{1}:2 3} ${empty?{1}:2 3}",
            "${{ a } == {a}?{T}:{F}}", "${set?a{b}c}", "$(set?a(b)c)")
        bad = ("${set", "$(set", "${}", "$", "$-", "${set-x}", "${set x}", "${set?{1} 2}", "${set?{1}:{2}3}", "${{1} = {1}?a}",
               "${{1}==1?a}", "${{1}==name {1}?a}", "${{1}==level {a}?b}", "${{a}=={a} b}", "${{a} == {a}:{b}:{c}}")
        for expression in good + bad:
            with self.subTest(expression), tempfile.TemporaryDirectory() as directory:
                text = f"{names}smtpd_client_message_rate_limit = no {expression} number\n"
                (pathlib.Path(directory) / "main.cf").write_text(text)
                (pathlib.Path(directory) / "master.cf").write_text("")
                postconf = subprocess.run(["postconf", "-c", directory, "-x", "-h", "smtpd_client_message_rate_limit"], capture_output=True, text=True)
                result, left_out = self.result("anvil", text)
                self.assertEqual((result.returncode, left_out), (1, ["6"]))
                fails = "fatal" in postconf.stderr
                self.assertEqual(fails, expression in bad, postconf.stderr)
                self.assertEqual("can't expand" in result.stderr, fails, (result.stderr, postconf.stderr))
                if not fails:
                    # postconf replaces several blanks by one.
                    self.assertIn(" ".join(f"rate_limit = {postconf.stdout}".split()) + ": is not a number", " ".join(result.stderr.split()))


if __name__ == "__main__":
    unittest.main()
