"""Mailers by name and tenant: which one a mail gets, and how far a tenant's mistake reaches."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from mail_service.diagnosis import Context, DeadlineExceeded, diagnose
from mail_service.local.http_server import HttpServer
from mail_service.mailers import Mailer, tenants
from mail_service.mailers.book import MailerBook
from mail_service.outcome import Kind
from mail_service.settings import load_settings

from .building import an_email, kinds
from .providers import TO, backend_of, yes

LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
FILEBASED = "django.core.mail.backends.filebased.EmailBackend"
DUMMY = "django.core.mail.backends.dummy.EmailBackend"
#: what a loader may say that is no mailer
NONSENSE: dict[str, Any] = {
    "a text": LOCMEM,
    "a list": [LOCMEM],
    "a number": 5,
    "an unknown key": {"BACKEND": LOCMEM, "api_key": "hunter2"},
    "no such backend": {"BACKEND": "no.such.Backend"},
    "no backend at all": {"BACKEND": "mail_service.errors.NotFound"},
    "itself as a second": {"BACKEND": LOCMEM, "failover": ["default"]},
    "a second that is not there": {"BACKEND": LOCMEM, "failover": ["nobody"]},
    "the service itself": {"BACKEND": "mail_service.django.EmailBackend"},
    "what is kept of its mail": {"BACKEND": LOCMEM, "content": "drop"},
    "keys that are no texts": {1: 2},
}


class Loader:
    """Says what it is told to, and counts how often it was asked."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    def __call__(self, tenant: str, name: str) -> Any:
        self.asked.append((tenant, name))
        answer = self.answer(tenant, name) if callable(self.answer) else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_book(load: Callable[[str, str], object] | None = None, /, *, mail: Any = None, **more: Any) -> MailerBook:
    everybodys = {"default": {"BACKEND": LOCMEM}, "second": {"BACKEND": DUMMY}}
    return MailerBook(load_settings({"mail": {"mailers": everybodys, **(mail or {})}}), load=load, **more)


def found(book: MailerBook, name: str, tenant: str | None = None) -> Mailer:
    mailer = book.get(name, tenant)
    assert mailer is not None
    return mailer


def problem_of(mailer: Mailer) -> str:
    """What a mailer that cannot be used says, by send and by check alike."""
    with pytest.raises(ImproperlyConfigured) as caught:
        mailer.send(an_email(TO), [TO])
    with pytest.raises(ImproperlyConfigured):
        mailer.check()
    diagnosis = diagnose(caught.value, Context())
    assert (diagnosis.kind, diagnosis.certainly_not_sent) == (Kind.CONFIGURATION, True)
    return str(caught.value)


ACME = {"tenants": {"acme": {"mailers": {"default": {"BACKEND": FILEBASED}, "own": {"BACKEND": DUMMY}}}}}


@pytest.mark.parametrize(
    ("name", "tenant", "key"),
    [
        ("default", None, "default"),
        ("default", "acme", "default/acme"),
        ("default", "other", "default"),
        ("own", "acme", "own/acme"),
        ("second", "acme", "second"),
    ],
)
def test_a_tenants_own_mailer_comes_before_everybodys(name: str, tenant: str | None, key: str) -> None:
    assert found(a_book(mail=ACME), name, tenant).name == key


@pytest.mark.parametrize("tenant", [None, "other", "ACME", "acme "])
def test_nobody_else_has_a_tenants_mailer(tenant: str | None) -> None:
    assert a_book(mail=ACME).get("own", tenant) is None


def test_the_same_mailer_is_given_each_time_so_that_its_connections_are_shared() -> None:
    book = a_book(Loader({"BACKEND": DUMMY}), mail=ACME)

    for name, tenant in (("default", None), ("default", "acme"), ("default", "loaded")):
        assert found(book, name, tenant) is found(book, name, tenant)


def test_all_are_listed_by_their_keys_and_can_be_closed() -> None:
    book = a_book(Loader(lambda tenant, name: {"BACKEND": DUMMY} if tenant == "loaded" else None), mail=ACME)
    found(book, "default", "loaded")
    found(book, "default", "nobody")

    assert set(book.all()) == {"default", "second", "default/acme", "own/acme", "default/loaded"}
    assert all(key == mailer.name for key, mailer in book.all().items())
    book.close()


CHAINS = {
    "mailers": {
        "default": {"BACKEND": LOCMEM, "failover": ["second", "third"]},
        "second": {"BACKEND": DUMMY, "failover": ["fourth"]},
        "third": {"BACKEND": DUMMY, "failover": ["fourth"]},
        "fourth": {"BACKEND": DUMMY},
    },
    "tenants": {"acme": {"mailers": {"second": {"BACKEND": FILEBASED, "failover": ["own"]}, "own": None}}},
}


@pytest.mark.parametrize(
    ("name", "tenant", "keys"),
    [
        ("default", None, ["default", "second", "third", "fourth"]),
        ("default", "acme", ["default", "second/acme", "third", "own/acme", "fourth"]),
        ("second", "acme", ["second/acme", "own/acme"]),
        ("fourth", None, ["fourth"]),
        ("nobody", None, []),
    ],
)
def test_those_that_stand_in_follow_in_order_each_once(name: str, tenant: str | None, keys: list[str]) -> None:
    assert [mailer.name for mailer in a_book(mail=CHAINS).chain(name, tenant)] == keys


def test_those_that_stand_in_are_loaded_only_when_they_are_needed() -> None:
    loader = Loader(lambda _, name: {"BACKEND": DUMMY, "failover": ["second"]} if name == "default" else None)
    chain = a_book(loader).chain("default", "acme")

    assert next(chain).name == "default/acme"
    assert loader.asked == [("acme", "default")]
    assert [mailer.name for mailer in chain] == ["second"]
    assert loader.asked == [("acme", "default"), ("acme", "second")]


def test_two_loaded_mailers_that_stand_in_for_each_other_end_somewhere() -> None:
    """Each is fine by itself, so nothing is found when they are read."""
    other = {"default": "second", "second": "default"}
    book = a_book(Loader(lambda _, name: {"BACKEND": DUMMY, "failover": [other[name]]}))

    assert [mailer.name for mailer in book.chain("second", "acme")] == ["second/acme", "default/acme"]


@pytest.mark.parametrize(
    ("key", "names"), [("default", ("default", None)), ("own/acme", ("own", "acme")), ("own/a/b", ("own", "a/b"))]
)
def test_a_key_says_whose_mailer_it_is(key: str, names: tuple[str, str | None]) -> None:
    assert a_book(mail=ACME).names_of(key) == names


def test_a_name_that_looks_like_a_tenants_key_is_everybodys_where_no_tenant_has_mailers() -> None:
    assert a_book(mail={"mailers": {"default": None, "a/b": None}}).names_of("a/b") == ("a/b", None)


def test_a_loader_is_not_asked_for_mail_of_nobody_nor_for_what_is_configured() -> None:
    loader = Loader({"BACKEND": DUMMY})
    book = a_book(loader, mail=ACME)

    found(book, "default")
    found(book, "default", "acme")

    assert loader.asked == []


def test_a_loader_that_knows_no_mailer_leaves_everybodys() -> None:
    loader = Loader(None)
    book = a_book(loader)

    assert found(book, "default", "acme").name == "default"
    assert book.get("nobody", "acme") is None
    assert loader.asked == [("acme", "default"), ("acme", "nobody")]


def test_a_loaded_mailer_has_the_credentials_of_its_tenant(http_server: HttpServer) -> None:
    http_server.script(yes("mailersend"))
    book = a_book(
        Loader(
            lambda tenant, _: {
                "BACKEND": backend_of("mailersend"),
                "OPTIONS": {"api_token": f"key-of-{tenant}", "api_url": http_server.url},
            }
        )
    )

    for tenant in ("acme", "other", "acme"):
        assert kinds(found(book, "default", tenant).send(an_email(TO), [TO])) == {TO: Kind.ACCEPTED}

    sent = [(request.headers["authorization"], request.connection) for request in http_server.requests()]
    assert [header for header, _ in sent] == ["Bearer key-of-acme", "Bearer key-of-other", "Bearer key-of-acme"]
    assert sent[0][1] == sent[2][1] != sent[1][1]


def test_an_answer_holds_for_a_while_and_then_the_new_one() -> None:
    clock, loader = Clock(), Loader({"BACKEND": DUMMY})
    book = a_book(loader, clock=clock)
    first = found(book, "default", "acme")

    loader.answer = {"BACKEND": LOCMEM}
    clock.now += tenants.KEEP_S - 1
    assert found(book, "default", "acme") is first
    clock.now += 1
    second = found(book, "default", "acme")

    assert (first.backend, second.backend) == (DUMMY, LOCMEM)
    assert len(loader.asked) == 2


def test_the_same_answer_leaves_the_mailer_and_its_connections() -> None:
    clock, loader = Clock(), Loader(lambda *_: {"BACKEND": DUMMY, "OPTIONS": {"a": 1}})
    book = a_book(loader, clock=clock)
    first = found(book, "default", "acme")

    clock.now += tenants.KEEP_S

    assert found(book, "default", "acme") is first
    assert len(loader.asked) == 2


def test_a_tenant_that_loses_its_mailer_gets_everybodys() -> None:
    clock, loader = Clock(), Loader({"BACKEND": DUMMY})
    book = a_book(loader, clock=clock)
    found(book, "default", "acme")

    loader.answer = None
    clock.now += tenants.KEEP_S

    assert found(book, "default", "acme").name == "default"


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_a_fault_of_that_tenants_mailer_alone(answer: Any) -> None:
    book = a_book(Loader(lambda tenant, _: answer if tenant == "bad" else {"BACKEND": DUMMY}))

    problem = problem_of(found(book, "default", "bad"))

    assert problem.startswith("mailer 'default/bad': ")
    assert "hunter2" not in problem
    assert kinds(found(book, "default", "good").send(an_email(TO), [TO])) == {TO: Kind.ACCEPTED}
    assert kinds(found(book, "second").send(an_email(TO), [TO])) == {TO: Kind.ACCEPTED}


def test_options_that_the_backend_does_not_take_are_that_tenants_fault() -> None:
    book = a_book(Loader({"BACKEND": backend_of("resend")}))

    with pytest.raises(ImproperlyConfigured):
        found(book, "default", "acme").send(an_email(TO), [TO])


@pytest.mark.parametrize("error", [ValueError("no row"), DeadlineExceeded("no end after 10 seconds"), KeyError("x")])
def test_a_loader_that_raises_is_a_fault_of_that_mailer_until_it_is_asked_again(error: Exception) -> None:
    clock, loader = Clock(), Loader(error)
    book = a_book(loader, clock=clock)

    assert "mail.tenant_mailers raised" in problem_of(found(book, "default", "acme"))
    found(book, "default", "acme")
    assert len(loader.asked) == 1

    loader.answer = {"BACKEND": DUMMY}
    clock.now += tenants.ASK_AGAIN_S
    assert kinds(found(book, "default", "acme").send(an_email(TO), [TO])) == {TO: Kind.ACCEPTED}


def test_a_loaders_error_shows_no_password_of_a_url() -> None:
    book = a_book(Loader(OSError("postgresql://mail:hunter2@db/mail is away")))

    assert "hunter2" not in problem_of(found(book, "default", "acme"))


def test_while_a_loader_raises_its_last_answer_goes_on_to_hold_for_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    """As when the database with the tenants is away: their mailers did not change by that."""
    clock, loader = Clock(), Loader({"BACKEND": DUMMY})
    book = a_book(loader, clock=clock)
    first = found(book, "default", "acme")

    loader.answer = OSError("hunter2")
    clock.now += tenants.KEEP_S
    assert found(book, "default", "acme") is first
    assert len(loader.asked) == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "hunter2" not in caplog.text

    clock.now += tenants.STALE_S
    assert "raised" in problem_of(found(book, "default", "acme"))


def test_a_last_answer_does_not_cover_up_nonsense() -> None:
    clock, loader = Clock(), Loader({"BACKEND": DUMMY})
    book = a_book(loader, clock=clock)
    found(book, "default", "acme")

    loader.answer = {"BACKEND": DUMMY, "OPTOINS": {}}
    clock.now += tenants.KEEP_S

    assert "did you mean OPTIONS?" in problem_of(found(book, "default", "acme"))


def test_a_loader_runs_under_the_guard() -> None:
    def guard(load: Callable[[], object]) -> object:
        raise DeadlineExceeded("no end after 10 seconds")

    loader = Loader({"BACKEND": DUMMY})

    assert "no end after 10 seconds" in problem_of(found(a_book(loader, guard=guard), "default", "acme"))
    assert loader.asked == []


def test_many_who_ask_at_once_cost_one_question_and_other_tenants_do_not_wait() -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def slow(tenant: str, _: str) -> Any:
        if tenant == "slow":
            is_asked.set()
            assert may_answer.wait(20)
        return {"BACKEND": DUMMY}

    loader = Loader(slow)
    book = a_book(loader)
    got: list[Mailer | None] = []
    threads = [threading.Thread(target=lambda: got.append(book.get("default", "slow"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert is_asked.wait(20)

    assert found(book, "default", "fast").name == "default/fast"
    assert got == []
    may_answer.set()
    for thread in threads:
        thread.join(20)

    assert len({id(mailer) for mailer in got}) == 1
    assert loader.asked.count(("slow", "default")) == 1


def test_no_more_are_kept_than_may_be_and_the_one_not_asked_for_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "MOST_KEPT", 3)
    loader = Loader({"BACKEND": DUMMY})
    book = a_book(loader)
    for tenant in ("a", "b", "c", "a", "d"):
        found(book, "default", tenant)

    assert {key for key in book.all() if "/" in key} == {"default/a", "default/c", "default/d"}
    gone = weakref.ref(found(book, "default", "b"))
    for tenant in ("x", "y", "z"):
        found(book, "default", tenant)
    gc.collect()

    assert gone() is None
    assert book._loaded is not None
    assert book._loaded._turns._locks == {}
