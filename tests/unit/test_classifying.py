"""A classifier made of lists: what it decides itself, and what it leaves to the default."""

from __future__ import annotations

import smtplib
from typing import Any
from urllib.error import HTTPError

import pytest

from mail_service.classifying import classifier
from mail_service.diagnosis import Context, diagnose
from mail_service.outcome import Diagnosis, Kind, Scope

HERE = __name__
CONTEXT = Context(mailer="default")


class Busy(Exception):
    """The provider of somebody's own backend is busy."""


class VeryBusy(Busy):
    """It is."""


def http_error(status: int) -> HTTPError:
    return HTTPError("https://api.example.org", status, "text", {}, None)  # type: ignore[arg-type]


def reply(code: int, text: bytes = b"text") -> smtplib.SMTPDataError:
    return smtplib.SMTPDataError(code, text)


@pytest.mark.parametrize(
    ("lists", "kind"),
    [
        ({}, Kind.PERMANENT),
        ({"transient": [Busy]}, Kind.TRANSIENT),
        ({"transient": [f"{HERE}.Busy"]}, Kind.TRANSIENT),
        ({"held": [Busy]}, Kind.CONFIGURATION),
        ({"transient": [Exception], "permanent": [Busy]}, Kind.PERMANENT),
        ({"transient": [Busy], "permanent": [Exception]}, Kind.TRANSIENT),
        ({"transient": [Busy], "held": [VeryBusy]}, Kind.CONFIGURATION),
        pytest.param({"transient": (cls for cls in [Busy])}, Kind.TRANSIENT, id="a generator"),
        ({"transient": [KeyError, "TimeoutError", "smtplib.SMTPException"]}, Kind.PERMANENT),
    ],
    ids=str,
)
def test_exceptions_are_known_by_their_classes_the_nearest_first(lists: dict[str, Any], kind: Kind) -> None:
    assert classifier(**lists)(VeryBusy("x"), CONTEXT).kind == kind


def test_what_an_error_was_made_from_counts_after_the_error_itself() -> None:
    def made_from(cause: Exception) -> RuntimeError:
        error = RuntimeError("wrapped")
        error.__cause__ = cause
        return error

    assert classifier(transient=[Busy])(made_from(Busy()), CONTEXT).kind == Kind.TRANSIENT
    assert classifier(transient=[Busy], held=[RuntimeError])(made_from(Busy()), CONTEXT).kind == Kind.CONFIGURATION


@pytest.mark.parametrize(
    ("statuses", "error", "kind"),
    [
        ({}, http_error(404), Kind.CONFIGURATION),
        ({404: "transient"}, http_error(404), Kind.TRANSIENT),
        ({"404": "transient"}, http_error(404), Kind.TRANSIENT),
        ({"http 404": Kind.TRANSIENT}, http_error(404), Kind.TRANSIENT),
        ({"HTTP 404": "transient"}, http_error(404), Kind.TRANSIENT),
        ({"smtp 404": "transient"}, http_error(404), Kind.CONFIGURATION),
        ({403: "transient"}, http_error(404), Kind.CONFIGURATION),
        ({500: "held"}, http_error(500), Kind.CONFIGURATION),
        ({500: "throttled"}, http_error(500), Kind.THROTTLED),
        ({550: "transient"}, reply(550), Kind.TRANSIENT),
        ({"smtp 550": "transient"}, reply(550, b"5.2.2 full"), Kind.TRANSIENT),
        ({"smtp 550 5.2.2": "transient"}, reply(550, b"5.2.2 full"), Kind.TRANSIENT),
        ({"smtp 550 5.2.2": "transient"}, reply(550, b"5.1.1 nobody"), Kind.PERMANENT),
        ({"smtp 550 5.2.2": "transient", 550: "held"}, reply(550, b"5.2.2 full"), Kind.TRANSIENT),
        ({"smtp 550 5.2.2": "transient", 550: "held"}, reply(550, b"5.1.1 nobody"), Kind.CONFIGURATION),
        ({"smtp 550": "transient", 550: "held"}, reply(550), Kind.TRANSIENT),
    ],
    ids=str,
)
def test_statuses_are_known_by_number_protocol_and_enhanced_code(
    statuses: dict[int | str, Kind | str], error: Exception, kind: Kind
) -> None:
    assert classifier(statuses=statuses)(error, CONTEXT).kind == kind


def test_exceptions_come_before_statuses() -> None:
    classify = classifier(permanent=[HTTPError], statuses={404: "transient"})

    assert classify(http_error(404), CONTEXT).kind == Kind.PERMANENT


def test_the_default_decides_everything_else_and_all_details() -> None:
    classify = classifier(transient=[Busy], statuses={404: "transient"})

    assert classify(http_error(401), CONTEXT) == diagnose(http_error(401), CONTEXT)
    changed, default = classify(http_error(404), CONTEXT), diagnose(http_error(404), CONTEXT)
    assert (changed.text, changed.code, changed.certainly_not_sent) == (default.text, default.code, True)


def test_a_list_that_agrees_with_the_default_changes_nothing() -> None:
    assert classifier(statuses={401: "held"})(http_error(401), CONTEXT) == diagnose(http_error(401), CONTEXT)


def test_who_else_would_fail_alike_goes_by_the_new_kind() -> None:
    def default(_: BaseException, __: Context) -> Diagnosis:
        return Diagnosis(kind=Kind.PERMANENT, scope=Scope.MAIL, certainly_not_sent=True, code="http 402")

    held = classifier(statuses={402: "held"}, default=default)(Busy(), CONTEXT)
    accepted = classifier(statuses={402: "accepted"}, default=default)(Busy(), CONTEXT)

    assert held.concerns == Scope.MAILER
    assert not accepted.certainly_not_sent


def test_another_classifier_may_be_asked_for_the_rest() -> None:
    first = classifier(transient=[Busy])
    both = classifier(held=[KeyError], default=first)

    assert both(Busy(), CONTEXT).kind == Kind.TRANSIENT
    assert both(KeyError(), CONTEXT).kind == Kind.CONFIGURATION


@pytest.mark.parametrize(
    ("lists", "error"),
    [
        ({"transient": ["no.such.module.Error"]}, ImportError),
        ({"transient": ["smtplib.NoSuchError"]}, ImportError),
        ({"transient": ["NoSuchError"]}, ImportError),
        ({"transient": ["smtplib.SMTP"]}, TypeError),
        ({"transient": [Busy()]}, TypeError),
        ({"transient": "smtplib.SMTPException"}, TypeError),
        ({"transient": [Busy], "held": [f"{HERE}.Busy"]}, ValueError),
        ({"statuses": {404: "later"}}, ValueError),
        ({"statuses": {"4xx": "transient"}}, ValueError),
        ({"statuses": {True: "transient"}}, ValueError),
        ({"statuses": {44: "transient"}}, ValueError),
        ({"statuses": {"": "transient"}}, ValueError),
        ({"statuses": {"http": "transient"}}, ValueError),
        ({"statuses": {"http 404 5.1.1": "transient"}}, ValueError),
        ({"statuses": {"404 5.1.1": "transient"}}, ValueError),
        ({"statuses": {"smtp 550 5.1.1 x": "transient"}}, ValueError),
    ],
    ids=str,
)
def test_mistakes_are_found_when_it_is_made(lists: dict[str, Any], error: type[Exception]) -> None:
    """So at the start of the service, which imports the module that makes it."""
    with pytest.raises(error):
        classifier(**lists)
