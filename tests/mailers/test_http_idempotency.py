"""Idempotency keys: the same for each attempt of the same mail to the same recipients, and for nothing else."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from anymail.backends.resend import EmailBackend as AnymailsResend

from mail_service.local.http_server import HttpServer, Rule
from mail_service.mailers.django_backend import DjangoMailer, construct
from mail_service.mailers.idempotency import ResendKey, key_of
from mail_service.outcome import Kind

from .building import MESSAGE_ID, an_email, kinds
from .providers import failure, settings_for, yes

A, B, C = "a@example.org", "b@example.org", "c@example.org"
#: of the mail to A
KEY_OF_A = "2f1a9564-5f42-509a-bbae-fb4c0f020057"


def resend_key(request: Any) -> str | None:
    return request.headers.get("idempotency-key")  # type: ignore[no-any-return]


def brevo_key(request: Any) -> str | None:
    return request.json.get("headers", {}).get("idempotencyKey")  # type: ignore[no-any-return]


KEYED = {"resend": resend_key, "brevo": brevo_key}
both = pytest.mark.parametrize("provider", KEYED)


def keys(provider: str, server: HttpServer) -> list[str | None]:
    return [KEYED[provider](request) for request in server.requests()]


def a_mailer(provider: str, server: HttpServer, **entry: Any) -> DjangoMailer:
    server.script(yes(provider))
    return DjangoMailer(settings_for(provider, server, **entry))


@both
def test_each_attempt_has_the_same_key_which_is_a_uuid(http_server: HttpServer, provider: str) -> None:
    mailer = a_mailer(provider, http_server)

    for attempt in (1, 2):
        mailer.send(an_email(A, B), [A, B], attempt=attempt)

    first, second = keys(provider, http_server)
    assert first == second
    assert str(uuid.UUID(first)) == first


@both
def test_another_process_makes_the_same_key(http_server: HttpServer, provider: str) -> None:
    """A mail's retry may be some other process's; and keys of mails on their way outlive a new version of this code."""
    a_mailer(provider, http_server).send(an_email(A), [A])

    assert keys(provider, http_server) == [KEY_OF_A]


@both
def test_the_key_differs_when_somebody_has_got_the_mail(http_server: HttpServer, provider: str) -> None:
    mailer = a_mailer(provider, http_server)

    mailer.send(an_email(A, B, cc=[C]), [A, B, C])
    mailer.send(an_email(A, B, cc=[C]), [B])

    first, second = keys(provider, http_server)
    assert first != second


@pytest.mark.parametrize(
    "other",
    [
        an_email(B),
        an_email(A, B),
        an_email(A, cc=[B]),
        an_email(A, headers={"Message-ID": "<other@example.org>"}),
    ],
    ids=["other recipient", "one more", "one more in cc", "other message"],
)
def test_other_mails_have_other_keys(other: Any) -> None:
    assert key_of(other) != key_of(an_email(A))


def test_the_key_goes_by_the_bare_addresses_in_any_order() -> None:
    assert key_of(an_email(f"Ann <{A}>", B)) == key_of(an_email(B, A))
    assert key_of(an_email(A, B)) != key_of(an_email(A, cc=[B]))


def test_the_message_id_is_found_however_it_is_written() -> None:
    email = an_email(A)
    email.extra_headers = {"message-id": MESSAGE_ID}

    assert key_of(email) == key_of(an_email(A))


@both
def test_a_mail_without_a_message_id_has_no_key(http_server: HttpServer, provider: str) -> None:
    email = an_email(A)
    del email.extra_headers["Message-ID"]

    a_mailer(provider, http_server).send(email, [A])

    assert keys(provider, http_server) == [None]


def test_a_key_of_the_mails_own_stays(http_server: HttpServer) -> None:
    a_mailer("brevo", http_server).send(an_email(A, headers={"IdempotencyKey": "mine"}), [A])

    (request,) = http_server.requests()
    assert {name: value for name, value in request.json["headers"].items() if "dempotency" in name} == {
        "IdempotencyKey": "mine"
    }


@both
def test_a_batch_has_one_key(http_server: HttpServer, provider: str) -> None:
    body = {"data": [{"id": "1"}, {"id": "2"}]} if provider == "resend" else {"messageIds": ["1", "2"]}
    mailer = a_mailer(provider, http_server)
    http_server.script(Rule(status=200, body=body))

    receipts = mailer.send(an_email(A, B, merge_data={}), [A, B])

    assert [receipt.message_id for receipt in receipts] == ["1", "2"]
    assert keys(provider, http_server) == [key_of(an_email(A, B))]


@both
def test_repeats_inside_an_attempt_have_the_same_key(http_server: HttpServer, provider: str) -> None:
    mailer = a_mailer(provider, http_server, http_retry={"read": 1, "allowed_methods": ["POST"]})
    http_server.script(Rule(drop="request", times=1), yes(provider))

    assert kinds(mailer.send(an_email(A), [A])) == {A: Kind.ACCEPTED}
    assert len(keys(provider, http_server)) == 2
    assert len(set(keys(provider, http_server))) == 1


def test_the_same_key_with_another_mail_is_a_permanent_failure(http_server: HttpServer) -> None:
    """Somebody else used the key, or changed the mail on its way: repeating heals neither."""
    mailer = a_mailer("resend", http_server)
    http_server.script(Rule(status=409, body={"name": "invalid_idempotent_request", "message": "same key"}))

    assert failure(mailer).kind == Kind.PERMANENT


def test_a_repeated_request_that_brevo_refuses_was_accepted_before(http_server: HttpServer) -> None:
    mailer = a_mailer("brevo", http_server)
    http_server.script(Rule(status=400, body={"code": "duplicate_parameter", "message": "idempotencyKey exists"}))

    assert failure(mailer).kind == Kind.ACCEPTED


class Mine(AnymailsResend):
    """A class of somebody's own."""


class MineWithKeys(ResendKey, AnymailsResend):
    """Another one, which asks for keys."""


@pytest.mark.parametrize(("name", "has_key"), [("Mine", False), ("MineWithKeys", True)])
def test_a_class_of_the_users_own_gets_keys_when_it_asks(http_server: HttpServer, name: str, has_key: bool) -> None:
    a_mailer("resend", http_server, backend=f"{__name__}.{name}").send(an_email(A), [A])

    assert keys("resend", http_server) == [KEY_OF_A if has_key else None]


def test_anymails_own_class_is_derived_from_and_made_once() -> None:
    path, options = "anymail.backends.resend.EmailBackend", {"api_key": "key"}

    first, second = construct("x", path, options), construct("x", path, options)

    assert isinstance(first, AnymailsResend)
    assert type(first) is type(second)
