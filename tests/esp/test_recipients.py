"""What an answer means for each recipient, where it tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from anymail.exceptions import AnymailRecipientsRefused
from anymail.message import AnymailStatus

from mail_service.diagnosis import Context, diagnose, diagnose_recipient
from mail_service.local.http_server import HttpServer, Rule
from mail_service.mailers.django_backend import construct
from mail_service.outcome import Diagnosis, Kind
from tests.mailers.building import an_email

from .asking import A, B, a_mailer, failure, options_for, path_of, send
from .recipients import ALIKE, CASES, Case


def asked(server: HttpServer, case: Case) -> Callable[[str], Diagnosis]:
    """Let the real backend ask. Gives what judges a recipient by its answer."""
    server.script(Rule(status=case.status, headers=case.headers, body=case.body))
    path = path_of(case.esp)
    email = an_email(A, B, **case.attributes)
    with suppress(AnymailRecipientsRefused):
        construct("default", path, options_for(case.esp, server.url)).send_messages([email])
    context, status = Context(mailer="default", backend=path), email.anymail_status
    words = {address.lower(): each.status for address, each in status.recipients.items()}
    return lambda address: diagnose_recipient(address, words.get(address), status, context, to=email.to)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_recipient_is_judged_by_what_the_provider_says_about_it(http_server: HttpServer, case: Case) -> None:
    judge = asked(http_server, case)
    found = {address: judge(address) for address in (A, B)}

    assert {address: (one.kind, one.concerns, one.code, one.wait_s) for address, one in found.items()} == case.expected


@pytest.mark.parametrize("case", CASES, ids=str)
def test_its_receipt_says_so(http_server: HttpServer, case: Case) -> None:
    http_server.script(Rule(status=case.status, headers=case.headers, body=case.body))

    receipts = send(a_mailer(case.esp, http_server.url), A, B, **case.attributes)

    told = {each.address: each.diagnosis for each in receipts}
    assert {address: (one.kind, one.concerns, one.code, one.wait_s) for address, one in told.items()} == case.expected


@pytest.mark.parametrize("code", ALIKE)
def test_a_bulk_request_that_fails_alike_for_all_is_judged_by_its_first(http_server: HttpServer, code: str) -> None:
    text, kind, concerns, wait_s = ALIKE[code]
    http_server.script(Rule(status=200, body={"BulkEmailEntryResults": [{"Status": code, "Error": text}] * 2}))
    batch = {"merge_data": {A: {}, B: {}}, "template_id": "welcome", "subject": "", "body": ""}

    diagnosis = diagnose(*failure(a_mailer("amazon_ses", http_server.url), A, B, **batch))

    assert (diagnosis.kind, diagnosis.concerns, diagnosis.wait_s) == (kind, concerns, wait_s)
    assert diagnosis.code == f"http 200 amazon_ses {code}"


class Answered:
    """As a response of requests."""

    status_code = 200
    content = b'{"failed_emails": {"a@example.org": "temporary_unavailable"}}'


def test_a_provider_is_also_known_by_the_name_that_a_class_of_the_users_own_has_from_anymail() -> None:
    status = AnymailStatus()
    status.esp_response = Answered()

    diagnosis = diagnose_recipient(A, "failed", status, Context(backend="mine.Backend"), esp_name="Unisender Go")

    assert diagnosis.code == "http 200 unisender_go temporary_unavailable"


@pytest.mark.parametrize("anymail_status", [None, object(), AnymailStatus()], ids=["none", "no status", "no answer"])
def test_without_an_answer_the_word_decides(anymail_status: object) -> None:
    assert diagnose_recipient(A, "sent", anymail_status, Context()).kind == Kind.ACCEPTED
    assert diagnose_recipient(A, "failed", anymail_status, Context()).kind == Kind.PERMANENT
