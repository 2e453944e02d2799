"""Which mailer takes a mail: by its option, by rules, by its tenant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mail_service.local.smtp_server import Rule, SmtpServer

from .conftest import SMTP, House, open_house
from .test_rpc_methods import mail

#: what ``mail.tenant_mailers`` names below
LOADER = "tests.end_to_end.test_routing.load_mailer"


def load_mailer(tenant: str, name: str) -> dict[str, Any] | None:
    """A tenant's mailer as its database might have it; the port stands in the tenant's name."""
    kind, _, port = tenant.partition(":")
    if kind == "broken":
        raise LookupError("the tenants' database is away")
    if kind != "loaded" or name != "default":
        return None
    return {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1", "port": int(port)}}


@pytest.fixture
def own_server() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture
def house(own_server: SmtpServer, amqp_uri: str, tmp_path: Path) -> Iterator[House]:
    options = {"host": "127.0.0.1", "port": own_server.port}
    with ExitStack() as stack:
        yield open_house(
            stack,
            amqp_uri,
            tmp_path,
            f"sqlite:///{tmp_path / 'mail.db'}",
            more_mailers={"own": {"BACKEND": SMTP, "OPTIONS": options}},
            routing=[{"tag": "newsletter", "mailer": "own"}, {"recipient_domain": "far.example", "mailer": {"own": 1}}],
            tenants={"acme": {"mailers": {"default": {"BACKEND": SMTP, "OPTIONS": options}}}},
            tenant_mailers=LOADER,
            hold_probe=2,
        )


@pytest.mark.parametrize(
    ("message", "options", "is_own"),
    [
        pytest.param({}, {}, False, id="no rule fits"),
        pytest.param({"tags": ["newsletter", "spring"]}, {}, True, id="tag"),
        pytest.param({"to": ["ann@far.example"]}, {}, True, id="domain of the recipient"),
        pytest.param({"tags": ["newsletter"]}, {"mailer": "second"}, False, id="its own option wins"),
        pytest.param({}, {"tenant": "acme"}, True, id="mailer of its tenant"),
        pytest.param({}, {"tenant": "other"}, False, id="tenant without a mailer of its own"),
    ],
)
def test_the_mailer_is_chosen(
    house: House, own_server: SmtpServer, message: dict[str, Any], options: dict[str, Any], is_own: bool
) -> None:
    written = mail(house.person()) | message
    # tags have no words in SMTP: what is looked at is where the mail went
    if "tags" in message:
        mail_id = house.rpc.submit(written, **options)["id"]
        assert house.becomes(mail_id, "failed")["mailer"] == ("own" if is_own else "second")
        return

    assert house.rpc.send(written, **options)["status"] == "sent"

    assert len(own_server.accepted()) == is_own
    assert len(house.smtp.accepted()) == (not is_own)


def test_a_mailer_is_loaded_for_its_tenant(house: House, own_server: SmtpServer) -> None:
    record = house.rpc.send(mail(house.person()), tenant=f"loaded:{own_server.port}")

    assert record["status"] == "sent"
    assert len(own_server.accepted()) == 1


def test_a_tenant_whose_mailer_cannot_be_loaded_disturbs_no_other(house: House) -> None:
    assert house.rpc.send(mail(house.person()), tenant="broken")["status"] == "held"

    assert house.rpc.send(mail(house.person()))["status"] == "sent"
    assert house.rpc.send(mail(house.person()), tenant="other")["status"] == "sent"


def test_a_fault_of_one_tenants_mailer_holds_this_tenants_mail_alone(house: House, own_server: SmtpServer) -> None:
    own_server.script(Rule(at="mail", reply="530 5.7.0 Authentication required"))
    mail_id = house.rpc.submit(mail(house.person()), tenant="acme")["id"]
    house.becomes(mail_id, "held")

    assert house.rpc.send(mail(house.person()), tenant="other")["status"] == "sent"
    assert not house.rpc.health()["mailer default/acme"]["ok"]
    assert house.rpc.health()["mailer default"]["ok"]

    own_server.script()
    house.becomes(mail_id, "sent")
