"""Hazard 24: who waits in ``send`` uses no worker, and who stops waiting does no harm."""

from __future__ import annotations

from pathlib import Path

from mail_service.local.smtp_server import Rule, SmtpServer
from tests.support.messages import a_message
from tests.support.service import configuration

from .stacks import Caller, Probe, Real, both

WORKERS = 2


def service_of(stack: str, amqp_uri: str, folder: Path, smtp_server: SmtpServer) -> Real:
    """Either stack with two workers: the stock one mails in its rpc method, as there is nothing else to do it in."""
    if stack == "stock":
        environment = {"SMTP_PORT": str(smtp_server.port)}
        return Probe(stack, amqp_uri, folder, environment=environment, config={"max_workers": WORKERS})
    config = configuration(amqp_uri, folder, smtp_port=smtp_server.port) | {"max_workers": WORKERS}
    return Real(config, folder)


def send(stack: str, caller: Caller, recipient: str, mail_id: str) -> str:
    if stack == "stock":
        # without headers it would lose its method, which is hazard 13
        return caller.request("probe.ask", {"id": mail_id, "mail": recipient}, headers={"with": "a header"})
    body = {"args": [a_message(to=[recipient])], "kwargs": {"id": mail_id}}
    return caller.request("mail_service.send", body=body)


@both("24: those who wait for slow mail hold all workers")
def test_callers_who_wait_keep_nobody_else_from_being_answered(
    stack: str, amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="end", hang_s=3))
    with service_of(stack, amqp_uri, tmp_path, smtp_server) as service, Caller(amqp_uri) as caller:
        waiting = [send(stack, caller, "slow@example.org", f"slow {number}") for number in range(2 * WORKERS)]
        service.until(lambda: len(smtp_server.fired()) == WORKERS)

        asked = caller.request("probe.ping") if stack == "stock" else caller.request("mail_service.errors")
        caller.reply(asked, service)

        assert not set(waiting) & set(caller.order()[: caller.order().index(asked)])


@both("24: who gave up waiting and asks again mails twice")
def test_a_caller_who_asks_again_with_the_same_id_mails_once(
    stack: str, amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="rcpt", reply="450 4.2.0 later", times=1), Rule(at="end", hang_s=1))
    with service_of(stack, amqp_uri, tmp_path, smtp_server) as service, Caller(amqp_uri) as caller:
        send(stack, caller, "ann@example.org", "mail")
        service.until(smtp_server.fired)
        again = send(stack, caller, "ann@example.org", "mail")
        assert caller.reply(again, service)["error"] is None
        later = send(stack, caller, "last@example.org", "last")
        assert caller.reply(later, service)["error"] is None

        assert [mail.rcpt_tos[0] for mail in smtp_server.accepted()] == ["ann@example.org", "last@example.org"]


def test_more_callers_than_workers_wait_for_mail_that_is_put_off(
    amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer
) -> None:
    smtp_server.script(Rule(at="rcpt", to="late*", reply="450 4.2.0 later", times=1))
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port) | {"max_workers": WORKERS}
    config["mail"]["schedules"]["quick"] = {"schedule": [3000], "limit": 1}
    with Real(config, tmp_path) as service, Caller(amqp_uri) as caller:
        waiting = [send("ours", caller, f"late{n}@example.org", f"late {n}") for n in range(3 * WORKERS)]
        service.until(lambda: len(smtp_server.fired()) == 3 * WORKERS)
        asked = send("ours", caller, "good@example.org", "good")

        assert caller.reply(asked, service)["result"]["status"] == "sent"
        assert not set(waiting) & set(caller.order())
        assert {caller.reply(each, service)["result"]["status"] for each in waiting} == {"sent"}


def test_all_who_wait_for_one_mail_are_answered(amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="rcpt", reply="450 4.2.0 later", times=1))
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port)
    config["mail"]["schedules"]["quick"] = {"schedule": [1000], "limit": 1}
    with Real(config, tmp_path) as service, Caller(amqp_uri) as caller:
        first = send("ours", caller, "ann@example.org", "mail")
        service.until(lambda: service.rpc.call("errors", limit=1) == [] and smtp_server.fired())
        others = [send("ours", caller, "ann@example.org", "mail") for _ in range(3)]

        answers = [caller.reply(each, service)["result"] for each in [first, *others]]
        assert [answer["status"] for answer in answers] == ["sent"] * 4
        assert len(smtp_server.accepted()) == 1


def test_a_caller_who_is_gone_is_nobodys_trouble(amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="end", hang_s=1, times=1))
    config = configuration(amqp_uri, tmp_path, smtp_port=smtp_server.port)
    with Real(config, tmp_path) as service:
        with Caller(amqp_uri) as caller:
            send("ours", caller, "ann@example.org", "mail")
            service.until(smtp_server.fired)

        service.until(lambda: service.rpc.status("mail")["status"] == "sent")
        assert service.rpc.send(a_message())["status"] == "sent"
