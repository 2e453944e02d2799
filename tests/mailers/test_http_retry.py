"""``http_retry``: repeats inside one attempt, and what is said about them at start."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError
from urllib3.util import Retry

from mail_service.local.http_server import HttpServer, Rule
from mail_service.mailers import http
from mail_service.mailers.cautions import cautions
from mail_service.mailers.django_backend import DjangoMailer
from mail_service.outcome import Kind
from mail_service.settings import load_settings

from .building import an_email, kinds
from .providers import TO, failure, send, settings_for, yes

ACCEPTED = {TO: Kind.ACCEPTED}
POST = ["POST"]


def a_mailer(server: HttpServer, http_retry: dict[str, Any] | None, **more: Any) -> DjangoMailer:
    settings = settings_for("mailersend", server, http_retry=http_retry, options=more.pop("options", {}))
    return DjangoMailer(settings, **more)


@pytest.mark.parametrize(
    ("http_retry", "rule", "requests_made"),
    [
        (None, Rule(drop="request"), 1),
        ({"connect": 3}, Rule(drop="request"), 1),
        ({"total": 3}, Rule(drop="request"), 1),
        ({"read": 3}, Rule(drop="request"), 1),
        ({"read": 2, "allowed_methods": POST}, Rule(drop="request"), 3),
        ({"read": 2, "allowed_methods": ["post"]}, Rule(drop="request"), 3),
        ({"read": 2, "allowed_methods": None}, Rule(drop="request"), 3),
        ({"read": 2, "allowed_methods": []}, Rule(drop="request"), 3),
        ({"read": 5, "total": 1, "allowed_methods": POST}, Rule(drop="request"), 2),
        (None, Rule(status=503), 1),
        ({"connect": 3}, Rule(status=503, headers={"Retry-After": "0"}), 1),
        ({"total": 3, "allowed_methods": POST}, Rule(status=503, headers={"Retry-After": "0"}), 1),
        ({"status": 2, "status_forcelist": [503]}, Rule(status=503), 1),
        ({"status": 2, "status_forcelist": [503], "allowed_methods": POST}, Rule(status=503), 3),
        ({"status_forcelist": [503], "allowed_methods": POST}, Rule(status=503), 1 + http.DEFAULT_REPEATS),
        ({"total": 4, "status_forcelist": [503], "allowed_methods": POST}, Rule(status=503), 5),
        ({"status": None, "status_forcelist": [503], "allowed_methods": POST}, Rule(status=503), 3),
        ({"status": 2, "status_forcelist": [500], "allowed_methods": POST}, Rule(status=503), 1),
        ({"status": 0, "status_forcelist": [503], "allowed_methods": POST}, Rule(status=503), 1),
    ],
    ids=str,
)
def test_what_is_named_is_repeated_and_nothing_else(
    http_server: HttpServer, http_retry: dict[str, Any] | None, rule: Rule, requests_made: int
) -> None:
    http_server.script(rule)

    failure(a_mailer(http_server, http_retry))

    assert len(http_server.requests()) == requests_made


def test_a_repeat_that_succeeds_makes_the_attempt_a_success(http_server: HttpServer) -> None:
    http_server.script(Rule(status=503, times=1), yes("mailersend"))
    words = {"status": 1, "status_forcelist": [503], "allowed_methods": POST}

    assert kinds(send(a_mailer(http_server, words))) == ACCEPTED


def test_the_last_answer_says_what_to_do_when_the_repeats_are_used_up(http_server: HttpServer) -> None:
    """urllib3 alone would raise an error in which the status is lost."""
    http_server.script(Rule(status=503, headers={"Retry-After": "7"}, body="later"))
    words = {"status": 1, "status_forcelist": [503], "allowed_methods": POST, "respect_retry_after_header": False}

    diagnosis = failure(a_mailer(http_server, words))

    assert (diagnosis.kind, diagnosis.code.split()[:2], diagnosis.wait_s) == (Kind.TRANSIENT, ["http", "503"], 7)


def _connections_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often somebody tried to connect, to nobody."""
    made: list[int] = []

    def connect(*_: object, **__: object) -> None:
        made.append(1)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    return made


@pytest.mark.parametrize(
    ("http_retry", "tries"),
    [
        (None, 1),
        ({"connect": 0}, 1),
        ({"connect": 3}, 4),
        ({"connect": None}, 1 + http.DEFAULT_REPEATS),
        ({"total": 1}, 2),
        ({"total": 1, "connect": 5}, 2),
        ({"total": False}, 1),
        ({"backoff_factor": 0.001}, 1 + http.DEFAULT_REPEATS),
    ],
    ids=str,
)
def test_connecting_is_repeated(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch, http_retry: dict[str, Any] | None, tries: int
) -> None:
    made = _connections_made(monkeypatch)

    diagnosis = failure(a_mailer(http_server, http_retry))

    assert len(made) == tries
    assert (diagnosis.kind, diagnosis.certainly_not_sent) == (Kind.TRANSIENT, True)


def test_no_wait_goes_beyond_the_attempts_time(http_server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off in a wait, the attempt would have an unknown outcome, though nothing was ever sent."""
    made = _connections_made(monkeypatch)
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)

    diagnosis = failure(a_mailer(http_server, {"connect": 100, "backoff_factor": 1, "backoff_max": 1000}))

    # the waits are 0, 2, 4, 8, 16, 32 and 64 s: of the 120 s, 30 to connect and 30 to answer have to be left
    assert slept == [2, 4, 8, 16, 32]
    assert len(made) == 7
    assert (diagnosis.kind, diagnosis.certainly_not_sent) == (Kind.TRANSIENT, True)


def test_a_wait_that_a_provider_asks_for_is_not_waited_for_when_it_is_too_long(http_server: HttpServer) -> None:
    http_server.script(Rule(status=503, headers={"Retry-After": "3600"}))
    words = {"status": 1, "status_forcelist": [503], "allowed_methods": POST}

    diagnosis = failure(a_mailer(http_server, words))

    assert len(http_server.requests()) == 1
    assert (diagnosis.kind, diagnosis.wait_s) == (Kind.TRANSIENT, 3600)


def test_a_wait_that_cannot_be_read_says_nothing(http_server: HttpServer) -> None:
    http_server.script(Rule(status=503, times=1, headers={"Retry-After": "soon"}), yes("mailersend"))
    words = {"status": 1, "status_forcelist": [503], "allowed_methods": POST}

    assert kinds(send(a_mailer(http_server, words))) == ACCEPTED


def test_time_used_up_by_tries_counts() -> None:
    now = 0.0
    budget = http.budget_of((30, 30), 120, lambda: now)

    assert budget.allows(0)
    now = 60.0
    assert budget.allows(0)
    now = 60.1
    assert not budget.allows(0)


@pytest.mark.parametrize(
    ("configured", "attempt_s", "expected"),
    [
        (30, 120, (30, 30)),
        (None, 120, (30, 30)),
        (600, 120, (60, 120)),
        ((3, 600), 120, (3, 120)),
        ([3, 4], 120, (3, 4)),
        ((None, 5), 120, (30, 5)),
        (30, 1, (0.5, 1)),
        ("30", 120, None),
        ((1, 2, 3), 120, None),
        ((1, "2"), 120, None),
    ],
)
def test_timeouts_fit_into_an_attempt(configured: object, attempt_s: float, expected: object) -> None:
    assert http.timeouts(configured, attempt_s) == expected


def test_the_adapters_of_a_session_stay_as_they_are_otherwise() -> None:
    session = requests.Session()
    own = requests.adapters.HTTPAdapter(pool_maxsize=3, max_retries=Retry(7))
    session.mount("https://api.example.org/", own)

    http.mount(session, {"connect": 1}, http.budget_of((1, 1), 10))

    assert session.get_adapter("https://api.example.org/send") is own
    assert (own._pool_maxsize, own.max_retries.connect) == (3, 1)  # type: ignore[attr-defined]
    assert {adapter.max_retries.connect for adapter in session.adapters.values()} == {1}  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [NewConnectionError(None, "refused"), ProtocolError("gone")], ids=["new", "broken"])  # type: ignore[arg-type]
def test_every_step_keeps_to_the_same_budget(error: Exception) -> None:
    retry = http.BoundedRetry(**http.words({"connect": 9, "read": 9, "allowed_methods": None}))
    now = 0.0
    retry.budget = http.budget_of((1, 1), 10, lambda: now)
    for _ in range(3):
        retry = retry.increment("POST", "/", error=error)

    now = 9.5
    with pytest.raises(MaxRetryError) as caught:
        retry.increment("POST", "/", error=error)

    assert caught.value.reason is error


class OnRequests:
    """A backend of somebody's own, with a session of requests and nothing of Anymail."""

    def __init__(self, url: str, **_: Any) -> None:
        self.url = url
        self.session: requests.Session | None = None

    def open(self) -> None:
        self.session = requests.Session()

    def close(self) -> None:
        if self.session:
            self.session.close()

    def send_messages(self, messages: Any) -> int:
        assert self.session
        self.session.post(self.url, timeout=5).raise_for_status()
        return len(messages)


def test_any_backend_built_on_requests_repeats(http_server: HttpServer) -> None:
    http_server.script(Rule(status=503, times=1), Rule(status=200))
    words = {"status": 1, "status_forcelist": [503], "allowed_methods": POST}
    settings = settings_for("mailersend", http_server, backend=f"{__name__}.OnRequests", http_retry=words)
    mailer = DjangoMailer(type(settings)(**{**_fields(settings), "options": {"url": http_server.url}}))

    assert kinds(send(mailer)) == ACCEPTED


def _fields(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__slots__}


def test_a_host_that_is_not_there_is_given_up_well_before_the_attempt_ends(http_server: HttpServer) -> None:
    with socket.socket() as nobody:
        # bound and full: the system answers to no further connection
        nobody.bind(("127.0.0.1", 0))
        nobody.listen(0)
        with socket.create_connection(nobody.getsockname()):
            url = "http://{}:{}".format(*nobody.getsockname())
            diagnosis = failure(a_mailer(http_server, None, options={"api_url": url}, attempt_timeout_s=0.6))

    assert (diagnosis.kind, diagnosis.certainly_not_sent) == (Kind.TRANSIENT, True)


def test_the_time_that_is_left_of_an_attempt_bounds_each_send_by_itself(http_server: HttpServer) -> None:
    """As when another mailer has used up the rest; the next attempt has all of it again."""
    http_server.script(yes("mailersend"))
    mailer = a_mailer(http_server, None)
    used = []

    for within_s in (None, 4, None):
        mailer.send(an_email(TO), [TO], within_s=within_s)
        (idle,) = mailer._sessions._idle
        used.append(idle.backend.timeout)

    assert used == [(30, 30), (2, 4), (30, 30)]


def cautions_about(backend: str, http_retry: dict[str, Any]) -> list[str]:
    entry = {"BACKEND": backend, "http_retry": http_retry}
    return cautions(load_settings({"mail": {"mailers": {"default": entry}}}))


MAILERSEND, RESEND = "anymail.backends.mailersend.EmailBackend", "anymail.backends.resend.EmailBackend"
TWICE = "may send a mail twice: the provider may have taken it before, and knows no idempotency key"


@pytest.mark.parametrize(
    ("backend", "http_retry", "caution"),
    [
        (MAILERSEND, {}, None),
        (MAILERSEND, {"connect": 3, "backoff_factor": 1}, None),
        (MAILERSEND, {"total": 3}, None),
        (MAILERSEND, {"read": 1, "allowed_methods": POST}, f"read {TWICE}"),
        (MAILERSEND, {"read": 1, "allowed_methods": ["post"]}, f"read {TWICE}"),
        (MAILERSEND, {"read": 1, "allowed_methods": None}, f"read {TWICE}"),
        (MAILERSEND, {"read": 0, "allowed_methods": POST}, None),
        (MAILERSEND, {"other": 1}, f"other {TWICE}"),
        (MAILERSEND, {"read": 1, "other": 1, "allowed_methods": POST}, f"read and other {TWICE}"),
        (MAILERSEND, {"status_forcelist": [500], "allowed_methods": POST}, f"status {TWICE}"),
        (MAILERSEND, {"status_forcelist": [429, 503], "allowed_methods": POST}, None),
        (MAILERSEND, {"status": 0, "status_forcelist": [500], "allowed_methods": POST}, None),
        (
            MAILERSEND,
            {"read": 1, "status_forcelist": [503]},
            "read and status has no effect, since allowed_methods leaves out POST, with which all mail is sent",
        ),
        (RESEND, {"read": 1, "other": 1, "allowed_methods": POST}, None),
        (f"{__name__}.OnRequests", {"other": 1}, f"other {TWICE}"),
        (
            "anymail.backends.amazon_ses.EmailBackend",
            {"connect": 1},
            "has no effect, since this backend is not built on requests",
        ),
        (
            "django.core.mail.backends.smtp.EmailBackend",
            {"connect": 1},
            "has no effect, since this backend is not built on requests",
        ),
    ],
)
def test_what_is_said_at_start(backend: str, http_retry: dict[str, Any], caution: str | None) -> None:
    expected = [] if caution is None else [f"mail.mailers.default.http_retry: {caution}"]

    assert cautions_about(backend, http_retry) == expected


@pytest.mark.parametrize(
    ("backend", "bounce", "is_said"),
    [
        (RESEND, {"to_sender": True}, True),
        ("django.core.mail.backends.filebased.EmailBackend", {"to_sender": True}, True),
        (RESEND, {"to_sender": False}, False),
        (RESEND, {"to_sender": True, "mailer": "post"}, False),
        ("django.core.mail.backends.smtp.EmailBackend", {"to_sender": True}, False),
        ("mail_service.mailers.rehearsal.EmailBackend", {"to_sender": True}, False),
    ],
)
def test_it_is_said_when_nobody_can_send_reports(backend: str, bounce: dict[str, Any], is_said: bool) -> None:
    post = {"BACKEND": "django.core.mail.backends.smtp.EmailBackend"}
    config = {"mailers": {"default": {"BACKEND": backend}, "post": post}, "bounce": bounce}

    assert bool(cautions(load_settings({"mail": config}))) is is_said


def test_tenants_mailers_are_looked_at_as_well() -> None:
    own = {"mailers": {"own": {"BACKEND": MAILERSEND, "http_retry": {"other": 1}}}}

    (caution,) = cautions(load_settings({"mail": {"tenants": {"acme": own}}}))

    assert caution.startswith("mail.tenants.acme.mailers.own.http_retry: other may send")
