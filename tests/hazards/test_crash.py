"""Hazard 22: kill -9 loses nobody, and mails somebody twice only where an attempt was in flight, and then says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mail_service.local.node import Node
from mail_service.local.smtp_server import Accepted, Rule, SmtpServer
from tests.support.messages import a_message
from tests.support.service import configuration

from .stacks import Caller, Probe, Real, both, depth, put, rows

#: limit 2 of either schedule
ATTEMPTS = 3


class Crashing(Real):
    """The real service, killed by itself at a point."""

    def __init__(self, config: dict[str, Any], folder: Path, point: str | None, **kwargs: Any) -> None:
        super().__init__(config, folder, module="tests.support.crashing", **kwargs)
        self._point = {"CRASH_AT": point or "", "CRASHED": str(folder / "crashed")}

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self._point


def crash(stack: str, amqp_uri: str, folder: Path, smtp_server: SmtpServer, point: str | None) -> Real:
    """A mail to ann, id ``mail``, and the death of the process that attempts it; a new one is running."""
    environment = {"SMTP_PORT": str(smtp_server.port), "CRASH_AT": point or "", "CRASHED": str(folder / "crashed")}
    service: Real
    if stack == "stock":
        service = Probe(stack, amqp_uri, folder, environment=environment)
        service.start()
        put(amqp_uri, "probe", {"id": "mail", "mail": "ann@example.org"})
    else:
        service = Crashing(configuration(amqp_uri, folder, smtp_port=smtp_server.port), folder, point)
        service.start()
        service.rpc.submit(a_message(to=["ann@example.org"]), id="mail")
    if point is None:
        service.until(smtp_server.fired)
        service.kill9()
    assert service.process.wait(20) == -9
    service.start()
    return service


@pytest.fixture
def crashed(
    stack: str, amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer, request: pytest.FixtureRequest
) -> Callable[..., Real]:
    def start(point: str | None) -> Real:
        service = crash(stack, amqp_uri, tmp_path, smtp_server, point)
        request.addfinalizer(service.close)
        return service

    return start


def quiet(service: Real, amqp_uri: str) -> None:
    """Wait until nothing more can come: a later mail is through, and the first one's queues are empty."""
    if isinstance(service, Probe):
        put(amqp_uri, "probe", {"id": "later", "seconds": 2})
        service.until(lambda: service.noted("done", "later"))
        return
    service.until(lambda: service.rpc.status("mail")["status"] not in ("queued", "deferred", "held"))
    service.until(lambda: depth(amqp_uri, "mail.send.v1.normal") == 0)
    # a double would be a second late at most, as delays are here
    service.rpc.call("submit", a_message(to=["later@example.org"]), id="later")
    service.until(lambda: service.rpc.status("later")["status"] not in ("queued", "deferred", "held"))


def attempts(folder: Path, mail_id: str = "mail") -> list[str]:
    """The diagnoses of a mail's attempts; the stock packages know of none."""
    query = "select diagnosis from attempt where mail_id = ? order by n"
    return [diagnosis for (diagnosis,) in rows(folder / "mail.db", query, mail_id)]


def to_ann(smtp_server: SmtpServer) -> list[Accepted]:
    return [mail for mail in smtp_server.accepted() if mail.rcpt_tos == ("ann@example.org",)]


@both("22: nobody knows that an attempt was in flight")
def test_an_attempt_that_was_in_flight_is_known_to_be_unknown(
    crashed: Callable[..., Real], amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    """Killed before the server's reply."""
    smtp_server.script(Rule(at="end", hang_s=60, times=1))

    service = crashed(None)

    service.until(lambda: to_ann(smtp_server))
    quiet(service, amqp_uri)
    assert len(to_ann(smtp_server)) == 1
    assert attempts(tmp_path) == ["unknown", "accepted"]


@both("22: a second mail that nobody can tell from the first")
@pytest.mark.parametrize("point", ["accepted", None])
def test_who_is_mailed_twice_gets_the_same_message_id_and_the_log_says_why(
    point: str | None, crashed: Callable[..., Real], amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    """Killed after the server took the mail, but before it said so, or before we wrote it down."""
    smtp_server.script(*([] if point else [Rule(at="end", hang_s=60, accept=True, times=1)]))

    service = crashed(point)

    service.until(lambda: len(to_ann(smtp_server)) == 2)
    quiet(service, amqp_uri)
    assert len(to_ann(smtp_server)) == 2
    assert len({mail.email["Message-ID"] for mail in to_ann(smtp_server)} - {None}) == 1
    assert attempts(tmp_path) == ["unknown", "accepted"]


@both("22: a mail that was accepted is sent again after a crash before the acknowledgement")
def test_a_recipient_on_record_is_never_mailed_again(
    crashed: Callable[..., Real], amqp_uri: str, smtp_server: SmtpServer
) -> None:
    service = crashed("committed")

    quiet(service, amqp_uri)
    assert len(to_ann(smtp_server)) == 1


@both("22: a crash between republish and acknowledgement leaves two copies that both carry on")
@pytest.mark.parametrize("point", ["republished"])
def test_two_copies_of_one_mail_do_not_both_carry_on(
    point: str, crashed: Callable[..., Real], amqp_uri: str, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="rcpt", to="ann@*", reply="450 4.2.0 later"))

    service = crashed(point)

    service.until(lambda: len(smtp_server.fired()) >= ATTEMPTS)
    quiet(service, amqp_uri)
    assert len(smtp_server.fired()) == ATTEMPTS


@pytest.mark.parametrize("stack", ["ours"])
def test_a_retry_that_was_written_down_and_not_republished_is_carried_on(
    crashed: Callable[..., Real], amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="rcpt", to="ann@*", reply="450 4.2.0 later", times=1))

    service = crashed("committed")

    service.until(lambda: to_ann(smtp_server))
    quiet(service, amqp_uri)
    assert attempts(tmp_path) == ["transient", "accepted"]


def test_the_caller_of_send_is_answered_after_a_crash(amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer) -> None:
    """The process that took the request died after the ledger's commit; the answer comes from the next one."""
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port)
    with Crashing(config, tmp_path, "committed") as service, Caller(amqp_uri) as caller:
        asked = caller.request("mail_service.send", a_message(to=["ann@example.org"]))
        assert service.process.wait(20) == -9
        service.start()

        assert caller.reply(asked, service)["result"]["status"] == "sent"
        assert len(to_ann(smtp_server)) == 1


def test_a_mail_that_ends_the_process_each_time_is_given_up(amqp_uri: str, tmp_path: Path) -> None:
    """Found out by the ledger, long before the broker's delivery limit."""
    config = configuration(amqp_uri, tmp_path)
    config["mail"]["schedules"]["quick"]["limit"] = 0
    config["mail"]["mailers"] = {"default": {"BACKEND": "tests.hazards.deadly_backend.EmailBackend"}}
    with Real(config, tmp_path) as service:
        service.rpc.submit(a_message(), id="mail")
        deaths = 0
        while not given_up(tmp_path):
            if not service.is_alive:
                deaths += 1
                assert deaths < 10
                service.start(wait=False)

        assert deaths == 5
        assert attempts(tmp_path) == ["unknown"] * 4 + ["permanent"]
        service.until(lambda: depth(amqp_uri, "mail.send.v1.normal") == 0)


def given_up(folder: Path) -> bool:
    return bool(rows(folder / "mail.db", "select 1 from mail where status = 'failed'"))


def test_a_hundred_mails_survive_kill_9_in_the_middle(
    amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer, rabbitmq: Node
) -> None:
    """Every third is refused once; who gets two of one mail had an attempt in flight, and the log says so."""
    smtp_server.script(
        *(Rule(at="rcpt", to=f"*{last}@*", reply="450 4.2.0 later", times=1) for last in (0, 3, 6)),
        Rule(at="end", hang_s=0.05),
    )
    ids = [f"mail {number}" for number in range(100)]
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port)
    with Real(config, tmp_path) as service:
        service.rpc.call(
            "submit_many",
            [a_message(to=[f"to{n}@example.org"], options={"id": mail_id}) for n, mail_id in enumerate(ids)],
        )
        service.until(lambda: len(smtp_server.accepted()) >= 30)
        service.kill9()
        service.start()

        def all_sent() -> bool:
            return rows(tmp_path / "mail.db", "select count(*) from mail where status = 'sent'") == [(100,)]

        service.until(all_sent, 40)
        taken = Counter(mail.rcpt_tos[0] for mail in smtp_server.accepted())
        assert len(taken) == 100
        for recipient, copies in taken.items():
            number = recipient.removeprefix("to").partition("@")[0]
            unknown = attempts(tmp_path, f"mail {number}").count("unknown")
            assert copies <= 1 + unknown
        twice = [recipient for recipient, copies in taken.items() if copies > 1]
        for recipient in twice:
            copies_ = [mail for mail in smtp_server.accepted() if mail.rcpt_tos == (recipient,)]
            assert len({mail.email["Message-ID"] for mail in copies_}) == 1
