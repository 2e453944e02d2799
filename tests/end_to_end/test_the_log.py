"""No address, body or secret in a log; also not in what all the tests before have left in the shared ones."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from ..support.outside import RemoteError, dispatch
from ..support.waiting import eventually
from .conftest import SMTP, House, open_house
from .test_rpc_methods import mail

SECRET = "s3cret-word"
BODY = "the-body-of-the-mail"


def everything_that_goes_wrong(house: House) -> None:
    for name in ("ann", "refused", "later", "spam", "dropped", "overfull"):
        with suppress(RemoteError):
            mailer = "throttling" if name == "overfull" else "default"
            house.rpc.send(mail(house.person(name), body=BODY, subject=BODY), mailer=mailer)
    for name in ("type", "unicode", "exit", "unprintable", "recursion", "zero", "nul"):
        with suppress(RemoteError):
            house.rpc.send(mail(house.person(name), body=BODY), mailer="fussy")
    with suppress(RemoteError):
        house.rpc.send(mail(house.person(), body=BODY), mailer="wrong_password")
    with suppress(RemoteError):
        house.rpc.send(mail("ann <" + house.person(), body=BODY))
    with suppress(RemoteError):
        house.rpc.submit(mail(house.person(), body=BODY), unknown=house.person())
    house.rpc.publish("submit", BODY.encode(), content_type="text/plain", content_encoding="utf-8")
    dispatch(house.amqp_uri, "orders", b'{"to": "x@example.org", "body": "' + BODY.encode())
    dispatch(house.amqp_uri, "orders", mail(house.person("refused"), body=BODY))
    dispatch(house.amqp_uri, "orders", mail(["a@b@example.org"], body=BODY))
    house.rpc.health()


FORMATS: dict[str, Any] = {
    "nameko's own format": None,
    "text": "text",
    "json": "json",
}


def logging_in(format_: str) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"()": "mail_service.logs.TextFormatter"},
            "json": {"()": "mail_service.logs.JsonFormatter"},
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": format_}},
        "root": {"level": "DEBUG", "handlers": ["console"]},
    }


@pytest.mark.parametrize("format_", FORMATS.values(), ids=FORMATS)
def test_no_log_line_has_an_address_a_body_or_a_secret(amqp_uri: str, tmp_path: Path, format_: str | None) -> None:
    options = {"host": "127.0.0.1", "port": 1, "username": "user", "password": SECRET}
    extra = {"wrong_password": {"BACKEND": SMTP, "OPTIONS": options}}
    with ExitStack() as stack:
        logging = logging_in(format_) if format_ else None
        database = f"sqlite:///{tmp_path / 'mail.db'}"
        house = open_house(stack, amqp_uri, tmp_path, database, logging=logging, more_mailers=extra)

        everything_that_goes_wrong(house)
        record = house.rpc.send(mail(house.person("twice")))

        eventually(lambda: len(house.rpc.errors()) >= 10)
        house.service.stop()

    log = house.log
    for private in ("@example.org", BODY, SECRET, "guest:guest"):
        assert private not in log
    if format_ == "json":
        check_json(log, record["id"])
    else:
        assert len(re.findall(rf"attempt \d of {record['id']}", log)) == 3


def check_json(log: str, mail_id: str) -> None:
    """One object a line, and one line for each attempt."""
    # what nameko's command prints before it has read the configuration is no log
    text = log[log.index("\n{") + 1 :].splitlines()
    assert [line for line in text if not line.startswith("{")] == []
    lines = [json.loads(line) for line in text]
    attempts = [line for line in lines if line.get("id") == mail_id and "attempt" in line]
    assert [line["attempt"] for line in attempts] == [1, 2, 3]
    assert [line["verdict"] for line in attempts] == ["deferred", "deferred", "sent"]
    assert all({"id", "mailer", "attempt", "verdict", "seconds"} <= set(line) for line in attempts)


def test_nobody_is_named_in_the_log_of_all_the_tests_before(any_house: House) -> None:
    # ids may be logged, and those of the tests have addresses in them
    log = re.sub(r"(attempt \d+ of|mail) \S+", "", any_house.log)

    assert log
    for private in ("@example.org", "@example.com", "guest:guest", "Zażółć", "shop@"):
        assert private not in log
