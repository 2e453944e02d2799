"""What an error means that is no answer: made by real faults between real backends and real servers where possible."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anymail.exceptions import AnymailCancelSend
from anymail.signals import post_send, pre_send

from mail_service.diagnosis import diagnose
from mail_service.local.http_server import HttpServer
from mail_service.outcome import Kind

from .asking import ESPS, a_mailer, send, yes
from .faults import CASES, Case
from .sending import Servers


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_means_what_its_table_says(servers: Servers, case: Case) -> None:
    diagnosis = diagnose(*case.happen(servers))

    assert (diagnosis.kind, diagnosis.concerns) == (case.kind, case.concerns)
    assert diagnosis.certainly_not_sent is (case.kind not in {Kind.UNKNOWN, Kind.ACCEPTED})
    assert diagnosis.wait_s is None


@pytest.fixture
def _a_receiver_that_fails() -> Iterator[None]:
    def fail(**_: object) -> None:
        raise ZeroDivisionError("a bug in a receiver")

    post_send.connect(fail)
    yield
    post_send.disconnect(fail)


@pytest.mark.usefixtures("_a_receiver_that_fails")
@pytest.mark.parametrize("esp", ESPS)
def test_an_error_of_a_receiver_of_post_send_does_not_undo_an_accepted_mail(http_server: HttpServer, esp: str) -> None:
    http_server.script(yes(esp))

    [receipt] = send(a_mailer(esp, http_server.url))

    assert receipt.diagnosis.kind == Kind.ACCEPTED


@pytest.fixture
def _a_receiver_that_cancels() -> Iterator[None]:
    def cancel(**_: object) -> None:
        raise AnymailCancelSend

    pre_send.connect(cancel)
    yield
    pre_send.disconnect(cancel)


@pytest.mark.usefixtures("_a_receiver_that_cancels")
def test_a_mail_that_a_receiver_of_pre_send_cancels_was_not_accepted(http_server: HttpServer) -> None:
    [receipt] = send(a_mailer("resend", http_server.url))

    assert (receipt.diagnosis.kind, receipt.diagnosis.certainly_not_sent) == (Kind.PERMANENT, True)
    assert http_server.requests() == []
