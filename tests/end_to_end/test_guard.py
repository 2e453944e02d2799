"""A staging service mails nobody outside, whatever door a mail comes through, and its records say what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mail_service.local.smtp_server import SmtpServer

from ..support.messages import a_message
from ..support.outside import dispatch
from ..support.service import Service, configuration
from ..support.waiting import eventually

STAGING = "staging@example.org"
OUTSIDE = "ann@elsewhere.example"


@contextmanager
def a_service(amqp_uri: str, folder: Path, **mail: Any) -> Iterator[tuple[Service, SmtpServer]]:
    with SmtpServer() as smtp:
        config = configuration(amqp_uri, folder, smtp_port=smtp.port, event_sources=["orders"], **mail)
        with Service(config, folder) as service:
            yield service, smtp


def by_rpc(service: Service, _uri: str, message: dict[str, Any]) -> None:
    service.rpc.call("send", message)


def by_client(service: Service, _uri: str, message: dict[str, Any]) -> None:
    service.rpc.submit(message)


def by_event(_service: Service, uri: str, message: dict[str, Any]) -> None:
    dispatch(uri, "orders", message)


@pytest.mark.parametrize("hand_in", [by_rpc, by_client, by_event])
def test_mail_from_every_door_goes_to_the_one_address(
    hand_in: Callable[[Service, str, dict[str, Any]], None], amqp_uri: str, tmp_path: Path
) -> None:
    with a_service(amqp_uri, tmp_path, redirect_to=STAGING, allow_recipients=["*@example.org"]) as (service, smtp):
        hand_in(service, amqp_uri, a_message(to=[OUTSIDE, "bob@elsewhere.example"], cc=["carl@example.org"]))

        (taken,) = eventually(smtp.accepted, 20)

        assert sorted(taken.rcpt_tos) == ["carl@example.org", STAGING]
        assert taken.email["To"] == STAGING
        assert taken.email["X-Original-To"] == f"{OUTSIDE}, bob@elsewhere.example"
        assert "mail.redirect_to is set" in service.log
        assert STAGING not in service.log


def test_the_record_names_the_recipients_and_who_got_the_mail(amqp_uri: str, tmp_path: Path) -> None:
    with a_service(amqp_uri, tmp_path, redirect_to=STAGING) as (service, _):
        record = service.rpc.send(a_message(to=[OUTSIDE]), timeout=20)

        assert record["status"] == "sent"
        assert record["recipients"][OUTSIDE]["detail"] == f"sent to {STAGING} instead (mail.redirect_to)"


def test_without_another_address_nobody_outside_is_mailed(amqp_uri: str, tmp_path: Path) -> None:
    with a_service(amqp_uri, tmp_path, allow_recipients=["*@example.org"]) as (service, smtp):
        partly = service.rpc.call("submit", a_message(to=[OUTSIDE, "bob@example.org"]))["id"]
        nobody = service.rpc.call("submit", a_message(to=[OUTSIDE]))["id"]

        eventually(lambda: service.rpc.status(nobody)["status"] == "suppressed", 20)
        eventually(lambda: service.rpc.status(partly)["status"] == "partly_sent", 20)

        assert service.rpc.status(partly)["recipients"][OUTSIDE]["status"] == "suppressed"
        assert "mail.allow_recipients" in str(service.rpc.status(nobody)["error"])
        assert [mail.rcpt_tos for mail in smtp.accepted()] == [("bob@example.org",)]
