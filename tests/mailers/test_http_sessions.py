"""Connections to providers' APIs are kept between mails, and given up when in doubt."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections import Counter
from typing import Any

import pytest

from mail_service.local.http_server import HttpServer, Rule
from mail_service.mailers.django_backend import DjangoMailer
from mail_service.mailers.sessions import FRESH_S, KEEP_S, Household, Sessions
from mail_service.outcome import Kind
from mail_service.settings import Limit, MailerSettings
from tests.support.waiting import eventually

from .building import kinds
from .providers import TO, backend_of, failure, send, ses_settings, settings_for, yes

ACCEPTED = {TO: Kind.ACCEPTED}


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server(http_server: HttpServer) -> HttpServer:
    http_server.script(yes("mailersend"))
    return http_server


def a_mailer(server: HttpServer, **entry: Any) -> DjangoMailer:
    return DjangoMailer(settings_for("mailersend", server, **entry))


def connections(server: HttpServer) -> list[int]:
    return [request.connection for request in server.requests()]


def test_mails_one_after_the_other_go_over_one_connection(server: HttpServer) -> None:
    mailer = a_mailer(server)

    for _ in range(5):
        assert kinds(send(mailer)) == ACCEPTED

    assert len(connections(server)) == 5
    assert len(set(connections(server))) == 1


def test_amazons_client_is_made_once_and_keeps_its_connection(http_server: HttpServer) -> None:
    http_server.script(Rule(status=200, body={"MessageId": "id-$number"}))
    mailer = DjangoMailer(ses_settings(http_server))

    ids = [send(mailer)[0].message_id for _ in range(3)]

    assert len(set(ids)) == 3
    assert len(set(connections(http_server))) == 1


def test_mails_at_the_same_time_go_over_connections_of_their_own(server: HttpServer) -> None:
    server.script(yes("mailersend", hang_s=0.5))
    mailer = a_mailer(server)

    _at_once(4, lambda: send(mailer))
    first = connections(server)
    _at_once(4, lambda: send(mailer))

    assert len(set(first)) == 4
    assert set(connections(server)[4:]) <= set(first)


def _at_once(number: int, do: Any) -> None:
    threads = [threading.Thread(target=do) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


def test_no_more_are_kept_than_may_be_used(server: HttpServer) -> None:
    server.script(yes("mailersend", hang_s=0.5))
    mailer = a_mailer(server, limit=Limit(concurrency=1))

    _at_once(3, lambda: send(mailer))

    assert len(set(connections(server))) == 3
    assert len(mailer._sessions._idle) == 1


@pytest.mark.parametrize(
    ("rule", "is_kept"),
    [
        (Rule(status=400, body="no"), True),
        (Rule(status=422, body="no"), True),
        (Rule(status=429, headers={"Retry-After": "1"}), True),
        (Rule(status=401, body="who?"), False),
        (Rule(status=403, body="not you"), False),
        (Rule(status=500, body="oh"), False),
        (Rule(status=503, body="oh"), False),
        (Rule(drop="request"), False),
        (Rule(status=202, body="x" * 50, cut_after=10), False),
        (Rule(garbage="SMTP ready\r\n"), False),
    ],
    ids=lambda value: "" if isinstance(value, bool) else f"{value.status or value.drop or 'garbage'}",
)
def test_a_session_is_kept_after_a_clear_no_and_not_when_anything_is_in_doubt(
    server: HttpServer, rule: Rule, is_kept: bool
) -> None:
    mailer = a_mailer(server)
    send(mailer)
    server.script(rule)

    failure(mailer)

    assert len(mailer._sessions._idle) == int(is_kept)


def test_what_the_backend_cannot_express_costs_no_session(server: HttpServer) -> None:
    """Anymail refuses it before it asks; another mailer may be tried."""
    mailer = a_mailer(server)
    send(mailer)

    diagnosis = failure(mailer, envelope_sender="bounce@example.org")

    assert (diagnosis.kind, diagnosis.certainly_not_sent) == (Kind.PERMANENT, True)
    assert kinds(send(mailer)) == ACCEPTED
    assert connections(server) == [connections(server)[0]] * 2


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(server: HttpServer) -> None:
    """Its end shows before anything is sent, so the outcome is not unknown."""
    server.script(yes("mailersend", close=True))
    mailer = a_mailer(server)

    for number in range(1, 4):
        assert kinds(send(mailer)) == ACCEPTED
        eventually(lambda: _has_ended(mailer))
        assert len(set(connections(server))) == number


def _has_ended(mailer: DjangoMailer) -> bool:
    """Whether the connections of the session that waits are known to be closed by the other side."""
    (idle,) = mailer._sessions._idle
    pools = idle.backend.session.get_adapter("http://").poolmanager.pools
    # urllib3's container has no iteration of its own
    return all(not each.is_connected for key in pools.keys() for each in pools[key].pool.queue if each)  # noqa: SIM118


def test_a_connection_that_the_server_closed_with_a_crash_is_replaced(server: HttpServer) -> None:
    mailer = a_mailer(server)
    send(mailer)

    server.kill9()
    server.start()

    assert kinds(send(mailer)) == ACCEPTED


def test_connections_that_nobody_used_for_long_are_not_used_again(server: HttpServer) -> None:
    clock = Clock()
    mailer = DjangoMailer(settings_for("mailersend", server), clock=clock)

    send(mailer)
    clock.now += FRESH_S - 0.1
    send(mailer)
    clock.now += FRESH_S
    send(mailer)

    first, second, third = connections(server)
    assert first == second != third


def test_amazons_client_outlives_its_connections(http_server: HttpServer) -> None:
    http_server.script(Rule(status=200, body={"MessageId": "id"}))
    clock = Clock()
    mailer = DjangoMailer(ses_settings(http_server), clock=clock)
    send(mailer)
    (idle,) = mailer._sessions._idle
    client = idle.backend.client

    clock.now += KEEP_S - 1
    send(mailer)

    (idle,) = mailer._sessions._idle
    assert idle.backend.client is client
    assert len(set(connections(http_server))) == 2


def test_an_attempt_that_is_cut_off_leaves_no_session(server: HttpServer) -> None:
    mailer = a_mailer(server)
    send(mailer)

    class CutOff(BaseException):
        pass

    (idle,) = mailer._sessions._idle

    def cut_off(*_: object, **__: object) -> None:
        raise CutOff

    idle.backend.session.request = cut_off
    with pytest.raises(CutOff):
        send(mailer)

    assert mailer._sessions._idle == []
    assert kinds(send(mailer)) == ACCEPTED


def test_closing_ends_the_connections_and_the_mailer_can_be_used_again(server: HttpServer) -> None:
    mailer = a_mailer(server)
    send(mailer)
    mailer.close()

    assert kinds(send(mailer)) == ACCEPTED
    assert len(set(connections(server))) == 2


class Backend:
    """Counts what is done to it."""

    def __init__(self) -> None:
        self.closed: Counter[str] = Counter()
        self.session = self

    def close(self) -> None:
        self.closed["all"] += 1


def test_a_rush_leaves_nothing_behind_for_ever() -> None:
    clock = Clock()
    sessions, others = (Sessions(10, clock, household=household) for household in [Household()] * 2)
    backends = [Backend() for _ in range(5)]
    for backend in backends:
        sessions.put(backend)

    clock.now += KEEP_S
    others.put(Backend())

    assert [backend.closed["all"] for backend in backends] == [1] * 5
    assert sessions.take() is None


def test_of_all_mailers_together_only_so_many_wait_and_the_oldest_go() -> None:
    clock = Clock()
    household = Household(most=3)
    members = [Sessions(10, clock, household=household) for _ in range(4)]
    backends = [Backend() for _ in members]
    for sessions, backend in zip(members, backends, strict=True):
        clock.now += 1
        sessions.put(backend)

    clock.now += FRESH_S
    last = Backend()
    members[0].put(last)

    assert [backend.closed["all"] for backend in backends] == [1, 1, 0, 0]
    assert members[0].take() is last


def test_a_mailer_that_nobody_has_any_more_is_not_kept_by_its_sessions() -> None:
    household = Household()
    sessions = Sessions(10, Clock(), household=household)
    assert len(household._members) == 1

    del sessions
    gc.collect()

    assert len(household._members) == 0


def test_all_are_kept_without_a_limit() -> None:
    sessions = Sessions(None, Clock(), household=Household())
    backends = [Backend() for _ in range(100)]
    for backend in backends:
        sessions.put(backend)

    assert [backend.closed["all"] for backend in backends] == [0] * 100


def test_other_backends_are_made_for_each_mail() -> None:
    mailer = DjangoMailer(MailerSettings(name="default", backend="anymail.backends.test.EmailBackend"))

    send(mailer)

    assert mailer._sessions._idle == []


def test_amazon_is_asked_once_in_an_attempt(http_server: HttpServer) -> None:
    """boto would ask three or five times by itself, also after an answer that did not come."""
    http_server.script(Rule(status=500, body={"message": "oh"}))

    assert failure(DjangoMailer(ses_settings(http_server))).kind in {Kind.UNKNOWN, Kind.TRANSIENT}
    assert len(http_server.requests()) == 1


def test_amazon_is_asked_as_often_as_the_options_say(http_server: HttpServer) -> None:
    http_server.script(Rule(status=500, body={"message": "oh"}))

    failure(DjangoMailer(ses_settings(http_server, retries={"total_max_attempts": 2})))

    assert len(http_server.requests()) == 2


def test_no_wait_for_an_api_is_longer_than_an_attempt(http_server: HttpServer) -> None:
    http_server.script(Rule(status=200, hang_s=30))
    mailers = [
        DjangoMailer(settings_for("mailersend", http_server, options={"timeout": 600}), attempt_timeout_s=0.4),
        DjangoMailer(settings_for("mailersend", http_server), attempt_timeout_s=0.4),
        DjangoMailer(ses_settings(http_server), attempt_timeout_s=0.4),
    ]

    assert [failure(mailer).kind for mailer in mailers] == [Kind.UNKNOWN] * 3


PROGRAM = """
import eventlet; eventlet.monkey_patch()
from mail_service.mailers import open_mailer
from mail_service.mailers.django_backend import configure_django
from mail_service.settings import MailerSettings
configure_django()
from django.core.mail import EmailMessage
mailer = open_mailer(MailerSettings(
    name="default", backend="BACKEND", options={"api_token": "key", "api_url": "URL"},
))
def send(n):
    return mailer.send(EmailMessage("s", "b", "from@example.org", [f"to-{n}@example.org"]), [f"to-{n}@example.org"])
"""


def _in_an_event_loop(server: HttpServer, program: str) -> list[str]:
    """What *program* prints, whose ``send`` sends through a green mailer."""
    code = PROGRAM.replace("BACKEND", backend_of("mailersend")).replace("URL", server.url) + program
    argv = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_green_threads_send_at_the_same_time_and_again_over_the_same_connections(server: HttpServer) -> None:
    server.script(yes("mailersend", hang_s=1))

    answers = _in_an_event_loop(
        server,
        """
pool = eventlet.GreenPool(10)
for _ in range(2):
    print(*[receipt.diagnosis.kind for receipts in pool.imap(send, range(10)) for receipt in receipts])
mailer.close()
""",
    )

    assert answers == ["accepted"] * 20
    requests = server.requests()
    assert len({request.connection for request in requests}) == 10
    for start in (0, 10):
        times = [request.time for request in requests[start : start + 10]]
        assert max(times) - min(times) < 1, "one after the other they would take 10 s"


def test_green_threads_see_that_a_server_has_closed_meanwhile(server: HttpServer) -> None:
    """urllib3 looks with poll, which eventlet takes away, or else with select, which eventlet replaces."""
    server.script(yes("mailersend", close=True))

    answers = _in_an_event_loop(
        server,
        """
def has_ended():
    pools = mailer._sessions._idle[0].backend.session.get_adapter("http://").poolmanager.pools
    return all(not each.is_connected for key in pools.keys() for each in pools[key].pool.queue if each)
for n in range(3):
    print(send(n)[0].diagnosis.kind)
    for _ in range(1000):
        if has_ended():
            break
        eventlet.sleep(0.01)
""",
    )

    assert answers == ["accepted"] * 3
    assert len(set(connections(server))) == 3
