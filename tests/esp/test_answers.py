"""What a provider's answer means: real Anymail backends, asking a real server that answers as the providers do."""

from __future__ import annotations

import pytest

from mail_service.diagnosis import PROVIDERS, diagnose
from mail_service.local.http_server import HttpServer, Rule
from mail_service.outcome import Kind

from .answers import CASES, Case
from .asking import ESPS, A, a_mailer, failure, send, yes


@pytest.mark.parametrize("esp", ESPS)
def test_a_yes_is_a_yes(http_server: HttpServer, esp: str) -> None:
    http_server.script(yes(esp))

    receipts = send(a_mailer(esp, http_server.url))

    assert [(receipt.address, receipt.diagnosis.kind) for receipt in receipts] == [(A, Kind.ACCEPTED)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_answer_means_what_its_table_says(http_server: HttpServer, case: Case) -> None:
    http_server.script(Rule(status=case.status, headers=case.headers, body=case.body))

    error, context = failure(a_mailer(case.esp, http_server.url))
    diagnosis = diagnose(error, context)

    assert (diagnosis.kind, diagnosis.concerns) == (case.kind, case.concerns)
    assert diagnosis.code == f"http {case.status} {case.code}".strip()
    assert diagnosis.certainly_not_sent is not case.may_be_sent
    assert diagnosis.wait_s == pytest.approx(case.wait_s) if case.wait_s else diagnosis.wait_s is None
    assert len(http_server.requests()) == 1


def test_every_esp_that_anymail_has_is_known() -> None:
    assert PROVIDERS.keys() == set(ESPS)
    for esp in ESPS:
        assert any(case.esp == esp for case in CASES)
