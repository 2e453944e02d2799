"""What a failure means, by exceptions made here. Real ones, with a case for every row, are in tests/esp."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
import requests
from anymail.exceptions import (
    AnymailAPIError,
    AnymailConfigurationError,
    AnymailImproperlyInstalled,
    AnymailInvalidAddress,
    AnymailRecipientsRefused,
    AnymailRequestsAPIError,
    AnymailSerializationError,
    AnymailUnsupportedFeature,
)
from django.core.exceptions import ImproperlyConfigured
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError, ProtocolError

from mail_service.diagnosis import (
    Context,
    DeadlineExceeded,
    Stage,
    diagnose,
    diagnose_reply,
    diagnose_status,
    page,
    stage_of,
)
from mail_service.diagnosis.waits import asked_in_text
from mail_service.outcome import Diagnosis, Kind, Scope

ACCEPTED, TRANSIENT, THROTTLED, CONFIGURATION, PERMANENT, UNKNOWN = (
    Kind.ACCEPTED,
    Kind.TRANSIENT,
    Kind.THROTTLED,
    Kind.CONFIGURATION,
    Kind.PERMANENT,
    Kind.UNKNOWN,
)


def diagnosed(error: BaseException, stage: Stage | None = None) -> Diagnosis:
    return diagnose(error, Context(mailer="default", stage=stage))


@pytest.mark.parametrize(
    ("stage", "code", "text", "kind"),
    [
        ("connect", 421, "too busy", TRANSIENT),
        ("connect", 554, "5.7.1 no mail from you", TRANSIENT),
        ("connect", 220 + 1, "odd", TRANSIENT),
        ("helo", 501, "bad name", TRANSIENT),
        ("starttls", 454, "TLS not available", TRANSIENT),
        ("starttls", 502, "not implemented", CONFIGURATION),
        ("auth", 535, "5.7.8 wrong password", CONFIGURATION),
        ("auth", 534, "5.7.9 mechanism too weak", CONFIGURATION),
        ("auth", 538, "5.7.11 encryption required", CONFIGURATION),
        ("auth", 432, "4.7.12 password transition needed", CONFIGURATION),
        ("auth", 454, "4.7.0 temporary failure", TRANSIENT),
        ("auth", 421, "closing", TRANSIENT),
        ("mail", 421, "closing", TRANSIENT),
        ("mail", 450, "later", TRANSIENT),
        ("mail", 451, "4.1.8 domain not found", TRANSIENT),
        ("mail", 450, "4.7.1 Error: too much mail from 192.0.2.1", THROTTLED),
        ("mail", 452, "4.3.1 insufficient storage", TRANSIENT),
        ("mail", 530, "5.7.0 authentication required", CONFIGURATION),
        ("mail", 550, "sender refused", CONFIGURATION),
        ("mail", 553, "5.7.1 not owned by user", CONFIGURATION),
        ("mail", 552, "too big", PERMANENT),
        ("mail", 523, "5.3.4 too big", PERMANENT),
        ("mail", 501, "5.1.7 bad sender address syntax", PERMANENT),
        ("mail", 550, "5.4.5 Daily user sending limit exceeded", THROTTLED),
        ("rcpt", 421, "closing", TRANSIENT),
        ("rcpt", 450, "4.2.0 greylisted", TRANSIENT),
        ("rcpt", 450, "4.7.1 rate limited", TRANSIENT),
        ("rcpt", 451, "local error", TRANSIENT),
        ("rcpt", 452, "4.5.3 too many recipients", TRANSIENT),
        ("rcpt", 552, "5.5.3 too many recipients", TRANSIENT),
        ("rcpt", 552, "too many recipients", TRANSIENT),
        ("rcpt", 552, "5.2.2 mailbox full", PERMANENT),
        ("rcpt", 550, "5.1.1 no such user", PERMANENT),
        ("rcpt", 553, "mailbox name not allowed", PERMANENT),
        ("rcpt", 554, "5.7.1 relay access denied", PERMANENT),
        ("rcpt", 530, "5.7.0 must issue a STARTTLS command first", CONFIGURATION),
        ("rcpt", -1, "garbage", TRANSIENT),
        ("rcpt", 354, "what", TRANSIENT),
        ("data", 451, "later", TRANSIENT),
        ("data", 554, "no valid recipients", PERMANENT),
        ("data", 250, "odd", TRANSIENT),
        ("body", 421, "closing", TRANSIENT),
        ("body", 451, "4.7.1 greylisted", TRANSIENT),
        ("body", 452, "4.2.2 mailbox over quota, limit exceeded", TRANSIENT),
        ("body", 454, "Throttling failure: Maximum sending rate exceeded", THROTTLED),
        ("body", 454, "nothing said", THROTTLED),
        ("body", 451, "4.7.0 Throttled - try again later", THROTTLED),
        ("body", 450, "4.7.1 rate limit reached", THROTTLED),
        ("body", 550, "5.7.1 looks like spam", PERMANENT),
        ("body", 552, "5.3.4 too big", PERMANENT),
        ("body", 530, "5.7.0 authentication required", CONFIGURATION),
        ("body", 354, "odd", UNKNOWN),
        ("body", -1, "garbage", UNKNOWN),
        (None, 451, "later", TRANSIENT),
        (None, 550, "no", PERMANENT),
        (None, 999, "odd", UNKNOWN),
    ],
)
def test_a_reply_means_what_its_code_and_stage_say(stage: Stage | None, code: int, text: str, kind: Kind) -> None:
    diagnosis = diagnose_reply(code, text.encode(), stage)

    assert diagnosis.kind == kind
    assert diagnosis.certainly_not_sent is (kind != UNKNOWN)


@pytest.mark.parametrize(
    ("code", "text", "label"),
    [
        (550, "5.1.1 <a@example.org>: unknown", "smtp 550 5.1.1"),
        (550, "<a@example.org> unknown", "smtp 550"),
        (450, "5.1.1 an enhanced code of another class", "smtp 450"),
    ],
)
def test_a_replys_code_is_fit_for_logs(code: int, text: str, label: str) -> None:
    assert diagnose_reply(code, text, "rcpt").code == label


def test_a_replys_text_is_one_bounded_line_for_people() -> None:
    diagnosis = diagnose_reply(550, b"5.1.1 no\nsuch \xff user" + 1000 * b"x", "rcpt")

    assert diagnosis.text.startswith("550 5.1.1 no such \ufffd user")
    assert len(diagnosis.text) == 500
    assert diagnose_reply(450, b"later", "rcpt").text == "450 later (to RCPT TO)"


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("4.7.1 Greylisted, please try again in 5 minutes", 300),
        ("4.2.0 Greylisted for 300 seconds", 300),
        ("retry after 90 s", 90),
        ("try again in 2 hours", 7200),
        ("Greylisting in action, please come back in 00:04:55", 295),
        ("4.7.0 Too many login attempts, please try again later", None),
        ("rate limit of 100 messages per 5 minutes", None),
        ("try again in 999999 hours", 7 * 86400),
    ],
)
def test_a_replys_text_may_say_how_long_to_wait(text: str, wait_s: float | None) -> None:
    assert asked_in_text(text) == wait_s


def test_the_wait_of_a_throttle_is_the_servers_or_that_of_its_kind() -> None:
    assert diagnose_reply(454, "Throttling failure: try again in 30 seconds", "body").wait_s == 30
    assert diagnose_reply(454, "Throttling failure: Maximum sending rate exceeded", "body").wait_s is None
    assert diagnose_reply(454, "Throttling failure: Daily message quota exceeded", "body").wait_s == 600
    assert diagnose_reply(450, "4.2.0 try again in 5 minutes", "rcpt").wait_s == 300
    assert diagnose_reply(550, "try again in 5 minutes", "rcpt").wait_s is None


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (smtplib.SMTPAuthenticationError(535, b"5.7.8 no"), CONFIGURATION, "smtp 535 5.7.8"),
        (smtplib.SMTPAuthenticationError(454, b"4.7.0 later"), TRANSIENT, "smtp 454 4.7.0"),
        (smtplib.SMTPConnectError(554, b"no"), TRANSIENT, "smtp 554"),
        (smtplib.SMTPHeloError(501, b"no"), TRANSIENT, "smtp 501"),
        (smtplib.SMTPSenderRefused(450, b"later", "a@example.org"), TRANSIENT, "smtp 450"),
        (smtplib.SMTPSenderRefused(550, b"no", "a@example.org"), CONFIGURATION, "smtp 550"),
        (smtplib.SMTPSenderRefused(552, b"big", "a@example.org"), PERMANENT, "smtp 552"),
        (smtplib.SMTPDataError(451, b"later"), TRANSIENT, "smtp 451"),
        (smtplib.SMTPDataError(454, b"slower"), THROTTLED, "smtp 454"),
        (smtplib.SMTPDataError(554, b"no"), PERMANENT, "smtp 554"),
        (smtplib.SMTPRecipientsRefused({"a@example.org": (450, b"4.2.1 later")}), TRANSIENT, "smtp 450 4.2.1"),
        (smtplib.SMTPRecipientsRefused({"a@example.org": (550, b"5.1.1 no")}), PERMANENT, "smtp 550 5.1.1"),
        (
            smtplib.SMTPRecipientsRefused({"a@example.org": (550, b"no"), "b@example.org": (450, b"later")}),
            TRANSIENT,
            "smtp 450",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_smtplibs_errors_tell_their_stage_themselves(error: Exception, kind: Kind, code: str) -> None:
    diagnosis = diagnosed(error)

    assert (diagnosis.kind, diagnosis.code) == (kind, code)
    assert diagnosis.certainly_not_sent


@pytest.mark.parametrize(
    ("error", "stage", "kind"),
    [
        (TimeoutError("timed out"), "connect", TRANSIENT),
        (OSError(113, "No route to host"), "connect", TRANSIENT),
        (smtplib.SMTPServerDisconnected("gone"), "helo", TRANSIENT),
        (smtplib.SMTPServerDisconnected("gone"), "mail", TRANSIENT),
        (smtplib.SMTPServerDisconnected("gone"), "rcpt", TRANSIENT),
        (smtplib.SMTPServerDisconnected("gone"), "data", TRANSIENT),
        (smtplib.SMTPServerDisconnected("gone"), "body", UNKNOWN),
        (TimeoutError("timed out"), "body", UNKNOWN),
        (ConnectionResetError(104, "reset"), "body", UNKNOWN),
        (smtplib.SMTPServerDisconnected("gone"), None, UNKNOWN),
        (ConnectionResetError(104, "reset"), None, UNKNOWN),
        (TimeoutError("timed out"), None, UNKNOWN),
        (ConnectionRefusedError(111, "refused"), None, TRANSIENT),
        (socket.gaierror(-2, "Name or service not known"), None, TRANSIENT),
        (ssl.SSLCertVerificationError("certificate verify failed"), "starttls", CONFIGURATION),
        (ssl.SSLCertVerificationError("certificate verify failed"), None, CONFIGURATION),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "connect", CONFIGURATION),
        (ssl.SSLError(1, "internal error"), "starttls", TRANSIENT),
        (smtplib.SMTPNotSupportedError("SMTPUTF8 not supported"), "mail", PERMANENT),
        (smtplib.SMTPNotSupportedError("SMTPUTF8 not supported"), None, PERMANENT),
        (smtplib.SMTPNotSupportedError("STARTTLS extension not supported by server."), "starttls", CONFIGURATION),
        (smtplib.SMTPException("No suitable authentication method found."), "auth", CONFIGURATION),
        (DeadlineExceeded("took 120 s"), "connect", UNKNOWN),
        (DeadlineExceeded("took 120 s"), None, UNKNOWN),
        (FileNotFoundError(2, "No such file"), "connect", CONFIGURATION),
        (ImproperlyConfigured("no host"), None, CONFIGURATION),
        (ModuleNotFoundError("No module named 'boto3'"), None, CONFIGURATION),
        (AnymailConfigurationError("no api_key"), None, CONFIGURATION),
        (AnymailImproperlyInstalled("boto3"), None, CONFIGURATION),
        (AnymailRecipientsRefused(), None, PERMANENT),
        (AnymailInvalidAddress("bad"), None, PERMANENT),
        (AnymailUnsupportedFeature("tags"), None, PERMANENT),
        (AnymailSerializationError(), None, PERMANENT),
        (botocore.exceptions.NoCredentialsError(), None, CONFIGURATION),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="https://email.example"), None, TRANSIENT),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="https://email.example"), None, UNKNOWN),
        (requests.ConnectTimeout("slow"), None, TRANSIENT),
        (requests.ReadTimeout("slow"), None, UNKNOWN),
        (requests.exceptions.ChunkedEncodingError("cut off"), None, UNKNOWN),
        (requests.exceptions.MissingSchema("no scheme"), None, CONFIGURATION),
        (UnicodeEncodeError("ascii", "ü", 0, 1, "no"), None, PERMANENT),
        (TypeError("what"), None, PERMANENT),
        (ZeroDivisionError(), None, PERMANENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_means_what_its_class_and_stage_say(error: Exception, stage: Stage | None, kind: Kind) -> None:
    diagnosis = diagnosed(error, stage)

    assert diagnosis.kind == kind
    if kind in {TRANSIENT, CONFIGURATION}:
        assert diagnosis.certainly_not_sent
    if kind == UNKNOWN:
        assert not diagnosis.certainly_not_sent


def _of_requests(reason: Exception) -> requests.ConnectionError:
    return requests.ConnectionError(MaxRetryError(None, "/send", reason))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_of_requests(NewConnectionError(None, "refused")), TRANSIENT),  # type: ignore[arg-type]
        (_of_requests(NameResolutionError("api.example", None, socket.gaierror(-2, "no"))), TRANSIENT),  # type: ignore[arg-type]
        (requests.ConnectionError(ProtocolError("Connection aborted.", ConnectionResetError(104, "reset"))), UNKNOWN),
        (_of_requests(ProtocolError("Connection aborted.")), UNKNOWN),
        (requests.exceptions.SSLError(ssl.SSLCertVerificationError("certificate verify failed")), CONFIGURATION),
        (requests.exceptions.SSLError("EOF occurred in violation of protocol"), UNKNOWN),
    ],
    ids=["refused", "DNS", "reset", "aborted", "certificate", "TLS cut off"],
)
def test_a_fault_of_requests_is_told_by_what_it_was_made_from(error: requests.RequestException, kind: Kind) -> None:
    """Anymail raises a class that it derives from its own and requests'; both must mean the same."""
    anymails = type("AnymailRequestsAPIError", (AnymailRequestsAPIError, type(error)), {})("Error posting")
    anymails.__cause__ = error

    assert diagnosed(error).kind == kind
    assert diagnosed(anymails).kind == kind


def a_response(status: int, body: str = "{}", **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.reason = "Because"
    response._content = body.encode()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


def an_api_error(status: int, body: str = "{}", *, esp: str = "Test", **headers: str) -> AnymailRequestsAPIError:
    return AnymailRequestsAPIError(response=a_response(status, body, **headers), esp_name=esp)


@pytest.mark.parametrize(
    ("status", "body", "kind", "not_sent"),
    [
        (200, "not json", ACCEPTED, False),
        (202, "", ACCEPTED, False),
        (301, "", CONFIGURATION, True),
        (400, "{}", PERMANENT, True),
        (401, "{}", CONFIGURATION, True),
        (402, "{}", CONFIGURATION, True),
        (403, "{}", CONFIGURATION, True),
        (404, "{}", CONFIGURATION, True),
        (405, "{}", CONFIGURATION, True),
        (408, "{}", TRANSIENT, True),
        (409, '{"name": "invalid_idempotent_request"}', PERMANENT, True),
        (409, '{"name": "concurrent_idempotent_requests"}', TRANSIENT, False),
        (410, "{}", PERMANENT, True),
        (413, "{}", PERMANENT, True),
        (415, "{}", PERMANENT, True),
        (420, "{}", THROTTLED, True),
        (422, "{}", PERMANENT, True),
        (425, "{}", TRANSIENT, True),
        (429, "{}", THROTTLED, True),
        (500, "{}", UNKNOWN, False),
        (502, "{}", UNKNOWN, False),
        (503, "{}", TRANSIENT, True),
        (504, "{}", UNKNOWN, False),
        (599, "{}", UNKNOWN, False),
    ],
)
def test_a_providers_status_means_what_the_table_says(status: int, body: str, kind: Kind, not_sent: bool) -> None:
    diagnosis = diagnosed(an_api_error(status, body))

    assert (diagnosis.kind, diagnosis.certainly_not_sent, diagnosis.code) == (kind, not_sent, f"http {status}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (an_api_error(200, "Mailgun Magnificent API", esp="Mailgun"), CONFIGURATION),
        (an_api_error(200, '{"status": "error", "data": {"code": "NoRecipients"}}', esp="Postal"), PERMANENT),
        (an_api_error(200, '{"status": "error", "data": {"code": "AccessDenied"}}', esp="Postal"), CONFIGURATION),
        (requests.HTTPError("no", response=a_response(503)), TRANSIENT),
        (botocore.exceptions.ClientError({"ResponseMetadata": {"HTTPStatusCode": 429}}, "SendEmail"), THROTTLED),
    ],
    ids=["Mailgun", "Postal's error", "Postal's key", "requests alone", "boto"],
)
def test_success_is_not_always_success_and_others_carry_a_status_too(error: Exception, kind: Kind) -> None:
    assert diagnosed(error).kind == kind


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry_After": "3"}, 3),
        ({"Retry_After": "0.5"}, 0.5),
        ({"Retry_After": "-5"}, 0),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "1e30"}, 7 * 86400),
        ({"Retry_After": "Sun, 22 Nov 2026 10:05:00 GMT"}, 300),
        ({"Retry_After": "Sun, 22 Nov 2026 10:05:00 GMT", "Date": "Sun, 22 Nov 2026 10:04:00 GMT"}, 60),
        ({"Retry_After": "Sun, 22 Nov 2026 09:00:00 GMT"}, 0),
        ({}, None),
    ],
    ids=["seconds", "fraction", "negative", "nan", "words", "absurd", "date", "by its own clock", "past", "none"],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers: dict[str, str], wait_s: float | None) -> None:
    context = Context(now=datetime(2026, 11, 22, 10, 0, tzinfo=UTC))

    assert diagnose(an_api_error(429, **headers), context).wait_s == wait_s
    assert diagnose(an_api_error(503, **headers), context).wait_s == wait_s


NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
#: in the header fields that give a time and no number of seconds
SOON = int(NOW.timestamp()) + 90
USED_UP = {"X_Sib_RateLimit_Reset": "9", "X_Sib_RateLimit_Remaining": "0"}


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"RateLimit_Reset": "7"}, 7),
        ({"RateLimit_Reset": "7", "RateLimit_Remaining": "0"}, 7),
        ({"X_RateLimit_Reset": "7.5"}, 7.5),
        ({"X_RateLimit_Reset": str(SOON)}, 90),
        ({"X_RateLimit_Reset": f"{SOON}.5"}, 90.5),
        ({"X_RateLimit_Reset": str(SOON * 1000)}, 90),
        ({"X_RateLimit_Reset": str(SOON), "Date": "Sun, 22 Nov 2026 10:01:00 GMT"}, 30),
        ({"X_RateLimit_Reset": str(SOON - 1000)}, 0),
        ({"X_RateLimit_Reset": "2026-11-22T10:02:00Z"}, 120),
        ({"X_RateLimit_Reset": "2026-11-22T10:02:00"}, 120),
        ({"X_RateLimit_Reset": "Sun, 22 Nov 2026 10:02:00 GMT"}, 120),
        ({"X_Rate_Limit_Reset": "8"}, 8),
        ({"X_Sib_RateLimit_Reset": "9"}, 9),
        ({"X_RateLimit_Reset": "soon"}, None),
        ({"X_RateLimit_Reset": "inf"}, 7 * 86400),
        ({"X_RateLimit_Reset": "7", "Retry_After": "3"}, 3),
        ({"X_RateLimit_Reset": "7", "Retry_After": "soon"}, 7),
        ({"X_RateLimit_Reset": "7", "X_RateLimit_Remaining": "5"}, 7),
        (USED_UP | {"RateLimit_Reset": "1", "RateLimit_Remaining": "5"}, 9),
        (USED_UP | {"RateLimit_Reset": "1", "RateLimit_Remaining": "0"}, 9),
        (USED_UP | {"RateLimit_Reset": "99", "RateLimit_Remaining": "0"}, 99),
        ({"X_RateLimit_Reset": "7", "X_APIQuota_Reset": "2026-11-23T00:00:00Z", "X_APIQuota_Remaining": "99"}, 7),
        ({"X_RateLimit_Remaining": "0"}, None),
    ],
    ids=str,
)
def test_the_reset_of_a_limit_is_a_wait(headers: dict[str, str], wait_s: float | None) -> None:
    for status in (420, 429):
        assert diagnose(an_api_error(status, **headers), Context(now=NOW)).wait_s == wait_s


@pytest.mark.parametrize(("remaining", "wait_s"), [("0", 7), ("-1", 7), ("5", None), ("many", None), (None, None)])
def test_of_other_statuses_only_a_limit_that_is_used_up_is_a_wait(remaining: str | None, wait_s: float | None) -> None:
    """Most APIs send these with every answer, also with one that failed for another reason."""
    headers = {"X_RateLimit_Reset": "7"} | ({"X_RateLimit_Remaining": remaining} if remaining else {})

    assert diagnosed(an_api_error(503, **headers)).wait_s == wait_s
    assert diagnosed(an_api_error(500, **headers)).wait_s == wait_s
    assert diagnosed(an_api_error(401, **headers)).wait_s is None


def test_a_text_is_asked_when_no_header_says_how_long() -> None:
    later = '{"message": "Please try again in 2 minutes"}'

    assert diagnosed(an_api_error(429, later)).wait_s == 120
    assert diagnosed(an_api_error(429, later, Retry_After="3")).wait_s == 3


def test_a_quota_waits_longer_than_a_rate_unless_the_provider_says() -> None:
    quota = '{"name": "daily_quota_exceeded"}'

    assert diagnosed(an_api_error(429, quota)).wait_s == 600
    assert diagnosed(an_api_error(429, quota, RateLimit_Reset="1")).wait_s == 600
    assert diagnosed(an_api_error(429, quota, Retry_After="30")).wait_s == 30


def test_a_provider_is_known_by_its_name_or_by_the_backends_path() -> None:
    answer = a_response(422, '{"ErrorCode": 400}')
    unnamed = AnymailRequestsAPIError(response=answer)

    by_name = diagnosed(AnymailRequestsAPIError(response=answer, esp_name="Postmark"))
    by_path = diagnose(unnamed, Context(backend="anymail.backends.postmark.EmailBackend"))
    unknown = diagnose(unnamed, Context(backend="mine.backends.postmark.EmailBackend"))

    assert (by_name.code, by_path.code, unknown.code) == ("http 422 postmark 400", "http 422 postmark 400", "http 422")
    assert by_name.concerns == by_path.concerns == Scope.SENDER


@pytest.mark.parametrize(
    "body",
    ['{"name": "ann@example.org"}', '{"name": "unheard"}', '{"name": ["rate_limit_exceeded"]}', "[" * 100_000, "\x00"],
    ids=["address", "unheard of", "list", "deep", "NUL"],
)
def test_words_that_no_table_knows_are_no_codes(body: str) -> None:
    assert diagnosed(an_api_error(422, body, esp="Resend")).code == "http 422"


def test_an_answer_whose_body_cannot_be_read_is_judged_by_its_status() -> None:
    class Broken(requests.Response):
        @property
        def content(self) -> bytes:
            raise RuntimeError("The content was consumed")

    response = Broken()
    response.status_code = 429

    assert diagnosed(requests.HTTPError("no", response=response)).kind == THROTTLED


def test_what_the_reading_of_a_success_raises_does_not_undo_it() -> None:
    """Anymail raises whatever its own reading of an unexpected body does, with no word of the answer."""

    def parse_recipient_status(response: requests.Response) -> Any:
        return response.json()["emails"]

    with pytest.raises(KeyError) as caught:
        parse_recipient_status(a_response(200))
    with pytest.raises(KeyError) as refused:
        parse_recipient_status(a_response(401))

    assert diagnosed(caught.value).kind == ACCEPTED
    assert diagnosed(refused.value).kind == CONFIGURATION


def test_the_error_that_boto_was_made_from_tells_a_certificate_from_a_lost_connection() -> None:
    certificate = ssl.SSLCertVerificationError("certificate verify failed")

    assert diagnosed(botocore.exceptions.SSLError(endpoint_url="https://x", error=certificate)).kind == CONFIGURATION
    assert diagnosed(botocore.exceptions.SSLError(endpoint_url="https://x", error=OSError("EOF"))).kind == UNKNOWN


def test_the_page_has_the_tables_as_the_code_has_them() -> None:
    """Written by ``python -m mail_service.diagnosis.page``."""
    written_down = page.PAGE.read_text()

    assert page.written(written_down) == written_down
    assert set(re.findall(r"<!-- table: (\w+) -->", written_down)) == page.tables().keys()


def test_the_page_is_written_by_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "page.md"
    copy.write_text("before\n<!-- table: http -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(sys, "argv", ["page", str(copy)])

    page.main()

    assert copy.read_text().startswith("before\n<!-- table: http -->\n\n| answer |")
    assert copy.read_text().endswith(" |\n\n<!-- end -->\nafter\n")


def test_a_providers_library_speaks_through_anymails_wrapper() -> None:
    wrapper = AnymailAPIError("could not send")
    wrapper.__cause__ = botocore.exceptions.NoCredentialsError()

    assert diagnosed(wrapper).kind == CONFIGURATION


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("sent", ACCEPTED),
        ("queued", ACCEPTED),
        ("unknown", ACCEPTED),
        (None, ACCEPTED),
        ("rejected", PERMANENT),
        ("invalid", PERMANENT),
        ("failed", PERMANENT),
    ],
)
def test_anymails_status_of_a_recipient(status: str | None, kind: Kind) -> None:
    assert diagnose_status(status).kind == kind


def test_an_error_of_the_closing_quit_does_not_undo_an_accepted_mail() -> None:
    diagnosis = diagnosed(smtplib.SMTPResponseException(500, b"what"), "quit")

    assert diagnosis.kind == ACCEPTED


def test_an_error_of_the_closing_quit_does_not_hide_the_mails_own() -> None:
    error = smtplib.SMTPResponseException(500, b"what")
    error.__context__ = smtplib.SMTPDataError(451, b"later")

    assert diagnosed(error, "quit").kind == TRANSIENT


class _Silent:
    """Takes the connection and hangs up as soon as it hears *word*."""

    def __init__(self, word: bytes) -> None:
        self.sent: list[bytes] = []
        self._word = word

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def makefile(self, _mode: str) -> _Silent:
        return self

    def readline(self, _limit: int) -> bytes:
        if self.sent and self.sent[-1].upper().startswith(self._word):
            return b""
        return b"354 go on\r\n" if self.sent and self.sent[-1] == b"data\r\n" else b"250 ok\r\n"

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("word", "stage"), [(b"EHLO", "helo"), (b"MAIL", "mail"), (b"RCPT", "rcpt"), (b"DATA", "body"), (b"HELLO", "body")]
)
def test_the_stage_is_read_from_smtplibs_part_of_the_traceback(word: bytes, stage: Stage) -> None:
    """For backends that use smtplib and do not tell; DATA and the content are one call there."""
    client = smtplib.SMTP()
    client.sock = _Silent(word)  # type: ignore[assignment]

    with pytest.raises(smtplib.SMTPServerDisconnected) as caught:
        client.sendmail("a@example.org", ["b@example.org"], b"hello")

    assert stage_of(caught.value) == stage


def test_the_stage_of_an_error_that_smtplib_had_no_part_in_is_not_known() -> None:
    assert stage_of(ValueError()) is None


class _Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit("out of here")


class _Liar(smtplib.SMTPDataError):
    def __init__(self) -> None:
        super().__init__(0, b"")
        self.smtp_code = "many"  # type: ignore[assignment]

    @property
    def response(self) -> Any:
        raise MemoryError


class _LyingResponse(AnymailAPIError):
    @property
    def status_code(self) -> Any:
        raise RecursionError

    @status_code.setter
    def status_code(self, value: object) -> None:
        pass


@pytest.mark.parametrize(
    "error",
    [_Hostile(), _Liar(), _LyingResponse(), smtplib.SMTPRecipientsRefused({"a": "nonsense"}), MemoryError()],  # type: ignore[dict-item]
    ids=["str raises", "no number", "attribute raises", "no replies", "MemoryError"],
)
def test_an_error_that_cannot_be_read_is_permanent_and_does_no_harm(error: Exception) -> None:
    diagnosis = diagnosed(error)

    assert diagnosis.kind == PERMANENT
    assert diagnosis.code == type(error).__name__


def test_an_unknown_error_keeps_its_class_as_code_and_its_words_as_text() -> None:
    diagnosis = diagnosed(KeyError("a@example.org"))

    assert diagnosis == Diagnosis(kind=PERMANENT, text="KeyError: 'a@example.org'", code="KeyError")


def test_errors_that_refer_to_each_other_are_read_once() -> None:
    first, second = requests.ConnectionError("a"), requests.ConnectionError("b")
    first.__cause__, second.__cause__ = second, first

    assert diagnosed(first).kind == UNKNOWN


def test_diagnosing_imports_no_django_and_no_provider() -> None:
    program = (
        "import sys, smtplib; from mail_service.diagnosis import Context, diagnose\n"
        "diagnose(smtplib.SMTPDataError(451, b'later'), Context())\n"
        "print([m for m in ('django', 'anymail', 'requests', 'botocore', 'eventlet', 'nameko') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
