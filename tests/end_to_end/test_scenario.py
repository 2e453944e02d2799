"""
All of it at once: three mailers, four processes, two tenants, bulk and high mail, a limit, a pause, suppressed people,
an outage and mail that gets stale. Every mail ends as it should, nobody is mailed twice, and ``explain`` is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy

from mail_service.local.http_server import HttpServer
from mail_service.local.node import Node
from mail_service.local.smtp_server import Rule, SmtpServer

from ..support.postgresql import Postgresql
from ..support.waiting import eventually
from .conftest import SMTP, House, open_house
from .test_explaining import told
from .test_four_providers import YES, taken
from .test_holds import changes_of
from .test_limits import busiest
from .test_rpc_methods import mail

#: of the mailer ``limited``, mails in a second
RATE = 10

PEOPLE = (
    Rule(at="rcpt", to="refused*", reply="550 5.1.1 No such person"),
    Rule(at="rcpt", to="later*", reply="450 4.2.0 Come back later"),
    Rule(at="rcpt", to="once*", reply="450 4.2.0 Come back once", times=1),
    # so that bulk mail is still waiting while the rest goes on
    Rule(at="end", to="slow*", hang_s=0.5),
)

SCHEDULES = {
    "patient": {"schedule": [500, 1000], "limit": 0, "max_age": 600_000},
    "quick": {"schedule": [100, 200], "limit": 2},
}


@dataclass(frozen=True)
class Kind:
    """Mail that has the same fate."""

    count: int
    #: how the addresses of its people begin, which decides what the mail server thinks of them
    person: str
    options: dict[str, Any]
    #: its status at the end
    end: str
    #: what ``explain`` then says has happened; empty where that is chance
    timeline: list[str]
    #: words of its reason
    why: str = "Every recipient was accepted."


ONCE = ["accepted", "attempt", "sent"]
KINDS = {
    "bulk": Kind(320, "slow", {"tenant": "acme", "priority": "bulk"}, "sent", ONCE),
    "high": Kind(10, "ann", {"tenant": "globex", "priority": "high"}, "sent", ONCE),
    "put off": Kind(20, "once", {"tenant": "acme"}, "sent", ["accepted", "attempt", "attempt", "sent"]),
    "refused": Kind(
        10, "refused", {"tenant": "acme"}, "failed", ["accepted", "attempt", "failed"], "550 5.1.1 No such person"
    ),
    "given up": Kind(
        10,
        "later",
        {"tenant": "acme", "backoff": "quick"},
        "expired",
        ["accepted", "attempt", "attempt", "attempt", "expired"],
        "450 4.2.0 Come back later",
    ),
    "over the limit": Kind(80, "ann", {"tenant": "acme", "mailer": "limited"}, "sent", ONCE),
    "paused": Kind(30, "ann", {"tenant": "globex"}, "sent", ONCE),
    "stale": Kind(10, "ann", {"tenant": "globex"}, "expired", ["accepted", "expired"], "expires_at"),
    "before the outage": Kind(20, "ann", {"mailer": "provider"}, "sent", ONCE),
    "in the outage": Kind(40, "ann", {"mailer": "provider"}, "sent", []),
    "late in the outage": Kind(1, "ann", {"mailer": "provider"}, "sent", []),
    "suppressed": Kind(10, "gone", {}, "suppressed", ["accepted", "suppressed"], "asked us to stop"),
    "suppressed in part": Kind(
        10, "ann", {}, "partly_sent", ["accepted", "attempt", "partly_sent"], "asked us to stop"
    ),
}


@dataclass
class Day:
    """What was handed in, and what was seen and told meanwhile."""

    house: House
    provider: HttpServer
    #: of each kind, address by id
    mails: dict[str, dict[str, str]] = field(default_factory=dict)
    #: what ``explain`` said of mail that waited
    stories: dict[str, dict[str, Any]] = field(default_factory=dict)

    def hand_in(self, name: str, *more: str, **options: Any) -> dict[str, str]:
        """All mail of a kind, and *more* recipients for each."""
        kind = KINDS[name]
        people = [self.house.person(kind.person) for _ in range(kind.count)]
        options = {**kind.options, **options}
        answers = self.house.rpc.submit_many([mail([person, *more], options=options) for person in people])
        self.mails[name] = {answer["id"]: person for answer, person in zip(answers, people, strict=True)}
        return self.mails[name]

    def last(self, name: str) -> str:
        return list(self.mails[name])[-1]

    def all_are(self, name: str, *statuses: str) -> None:
        for mail_id in self.mails[name]:
            self.house.becomes(mail_id, *statuses, timeout_s=30)

    def ask_while_held(self, name: str) -> None:
        """About one of them, the last of those that are held."""

        def held() -> list[str]:
            statuses = self.statuses()
            return [mail_id for mail_id in self.mails[name] if statuses.get(mail_id) == "held"]

        self.stories[name] = told(self.house, eventually(held, 30)[-1])

    def statuses(self) -> dict[str, str]:
        """Of all mail that the database knows, by id."""
        engine = sqlalchemy.create_engine(self.house.database)
        with engine.connect() as connection:
            rows = connection.execute(sqlalchemy.text("select id, status from mail")).all()
        engine.dispose()
        return dict(map(tuple, rows))

    def people(self, *names: str) -> Counter[str]:
        return Counter(person for name in names for person in self.mails[name].values())


@pytest.fixture(scope="module")
def day(rabbitmq_4: Node, postgresql: Postgresql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    rabbitmq_4.add_vhosts("scenario")
    folder = tmp_path_factory.mktemp("scenario")
    with ExitStack() as stack:
        smtp = stack.enter_context(SmtpServer(*PEOPLE))
        provider = stack.enter_context(HttpServer(YES))
        options = {"host": "127.0.0.1", "port": smtp.port, "timeout": 10}
        resend = {"api_key": "key", "api_url": provider.url, "requests_timeout": 5}
        house = open_house(
            stack,
            rabbitmq_4.uri("scenario"),
            folder,
            postgresql.fresh_database(),
            processes=4,
            mailers={
                "default": {"BACKEND": SMTP, "OPTIONS": options},
                "limited": {"BACKEND": SMTP, "OPTIONS": options, "limit": {"rate": RATE}},
                "provider": {"BACKEND": "anymail.backends.resend.EmailBackend", "OPTIONS": resend},
            },
            schedules=SCHEDULES,
            backoff=dict.fromkeys(("send", "submit", "event"), "patient"),
            attempt_timeout=20,
        )
        house.smtp = smtp
        played = Day(house, provider)
        _morning(played)
        _trouble(played)
        _evening(played)
        yield played


def _morning(day: Day) -> None:
    """Someone is on the list, a tenant's normal mail is paused, and all but the provider's mail comes in."""
    rpc = day.house.rpc
    gone = day.house.person("gone")
    rpc.suppress(gone, "asked us to stop")
    rpc.pause(tenant="globex", priority="normal", reason="moving house")
    day.hand_in("over the limit")
    day.ask_while_held("over the limit")
    for name in ("bulk", "high", "before the outage", "put off", "refused", "given up", "paused"):
        day.hand_in(name)
    day.hand_in("stale", expires_at=(datetime.now(UTC) + timedelta(seconds=3)).isoformat())
    day.hand_in("suppressed in part", gone)
    answers = rpc.submit_many([mail(gone)] * KINDS["suppressed"].count)
    day.mails["suppressed"] = {answer["id"]: gone for answer in answers}
    day.ask_while_held("paused")


def _trouble(day: Day) -> None:
    """The provider goes away."""
    day.all_are("before the outage", "sent")
    day.provider.stop()
    day.hand_in("in the outage")
    eventually(lambda: ("mailer_held", "down") in changes_of(day.house.events, "provider"), 30)
    day.hand_in("late in the outage")
    day.ask_while_held("late in the outage")


def _evening(day: Day) -> None:
    """Everything that kept mail waiting is over."""
    day.all_are("stale", "expired")
    day.house.rpc.resume(tenant="globex")
    day.provider.start()
    eventually(lambda: not set(day.statuses().values()) & {"queued", "deferred", "held"}, 60, every_s=0.2)


def test_every_mail_ends_as_it_should(day: Day) -> None:
    assert day.statuses() == {mail_id: kind.end for name, kind in KINDS.items() for mail_id in day.mails[name]}
    assert {name: len(day.mails[name]) for name in KINDS} == {name: kind.count for name, kind in KINDS.items()}


def test_nobody_is_mailed_twice_and_nobody_who_should_not_be(day: Day) -> None:
    over_http = [name for name in KINDS if KINDS[name].options.get("mailer") == "provider"]
    over_smtp = [name for name in KINDS if KINDS[name].end in ("sent", "partly_sent") and name not in over_http]

    assert Counter(person for each in day.house.smtp.accepted() for person in each.rcpt_tos) == day.people(*over_smtp)
    assert taken(day.provider) == day.people(*over_http)
    assert len(day.provider.requests()) == sum(KINDS[name].count for name in over_http)


def test_high_mail_did_not_wait_for_bulk(day: Day) -> None:
    order = [person for each in day.house.smtp.accepted() for person in each.rcpt_tos]
    bulk = day.people("bulk")

    last_of_high = max(order.index(person) for person in day.people("high"))

    # more than the workers of all processes may have had in hand
    assert sum(person in bulk for person in order[last_of_high:]) > 4 * 10


def test_the_limit_was_kept_by_all_processes(day: Day) -> None:
    limited = day.people("over the limit")
    times = [each.time for each in day.house.smtp.accepted() if each.rcpt_tos[0] in limited]

    assert len(times) == len(limited)
    # some may be late on a busy machine, and then several come at once
    assert busiest(times, 3) <= 4 * RATE


def test_explain_says_what_mail_waits_for(day: Day) -> None:
    over, paused, outage = (day.stories[name] for name in ("over the limit", "paused", "late in the outage"))

    assert f"over the limit of mailer limited: {RATE} in 1 s" in over["why"]
    assert "when its turn comes" in over["next"]
    assert "It is paused (tenant globex, priority normal" in paused["why"]
    assert "moving house" in paused["why"]
    assert "mail-service resume --tenant globex --priority normal" in paused["next"]
    assert "mailer provider is held since" in outage["why"]
    assert "(down)" in outage["why"]
    assert "mail-service retry-now --mailer provider" in outage["next"]
    for story in (over, paused):
        assert [event["what"] for event in story["timeline"]] == ["accepted", "held"]
    # it may have been the probe meanwhile
    assert [outage["timeline"][place]["what"] for place in (0, -1)] == ["accepted", "held"]


@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name].timeline])
def test_explain_says_how_mail_ended(day: Day, name: str) -> None:
    kind = KINDS[name]

    story = told(day.house, day.last(name))

    assert story["record"]["status"] == kind.end
    assert kind.why in story["why"]
    assert [event["what"] for event in story["timeline"]] == kind.timeline


def test_explain_says_who_was_asked_in_the_outage_and_went_through_later(day: Day) -> None:
    stories = [told(day.house, mail_id) for mail_id in day.mails["in the outage"]]
    tried_before = next(story for story in stories if story["record"]["attempts"] > 1)

    first, *_, last = [event["text"] for event in tried_before["timeline"] if event["what"] == "attempt"]
    assert first.startswith("attempt 1 by mailer provider failed in a way that may pass")
    assert "by mailer provider accepted" in last
    assert {story["why"] for story in stories} == {"Every recipient was accepted."}


def test_explain_says_what_the_mail_server_said_at_each_attempt(day: Day) -> None:
    story = told(day.house, day.last("put off"))

    first, second = [event["text"] for event in story["timeline"] if event["what"] == "attempt"]
    assert "450 4.2.0 Come back once" in first
    assert "250" in second
