"""``mail-service drain``: one pass over what is due, for those who send by cron. No service runs beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mail_service.client import MailClient
from mail_service.envelope import seal
from mail_service.local.smtp_server import Rule, SmtpServer

from ..hazards.stacks import put, rows
from ..support.messages import a_message
from ..support.service import ROOT, Service, configuration
from ..support.waiting import eventually

RULES = (
    Rule(at="rcpt", to="refused*", reply="550 5.1.1 No such person"),
    Rule(at="rcpt", to="later*", reply="450 4.2.0 Come back later"),
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


class Cron:
    """Runs the command, and hands mail to it."""

    def __init__(self, amqp_uri: str, folder: Path, smtp: SmtpServer, **mail: Any) -> None:
        self.amqp_uri, self.folder, self.smtp = amqp_uri, folder, smtp
        self.config = configuration(amqp_uri, folder, smtp_port=smtp.port, **mail)
        (folder / "config.yaml").write_text(yaml.safe_dump(self.config))

    def submit(self, *addresses: str, **options: Any) -> None:
        with MailClient(self.amqp_uri, timeout=10) as client:
            for address in addresses:
                client.submit(a_message(to=[address]), **options)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "mail_service.cli", "drain", "--json", *arguments],
            cwd=self.folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def drain(self, *arguments: str) -> dict[str, int]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            found: dict[str, int] = json.loads(out)
            return found


@pytest.fixture
def cron(amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer) -> Cron:
    smtp_server.script(*RULES)
    hourly = {"schedule": [3_600_000], "limit": 3}
    return Cron(amqp_uri, tmp_path, smtp_server, schedules={"quick": hourly})


def people(name: str, count: int) -> list[str]:
    return [f"{name}-{number}@example.org" for number in range(count)]


def test_everything_that_is_due_is_attempted_once(cron: Cron) -> None:
    cron.submit(*people("ann", 3), "refused@example.org", "later@example.org")

    assert cron.drain() == {"sent": 3, "deferred": 1, "held": 0, "failed": 1}
    assert cron.drain() == {"sent": 0, "deferred": 0, "held": 0, "failed": 0}
    assert len(cron.smtp.accepted()) == 3


def test_a_pass_ends_after_so_many_were_sent_and_the_next_goes_on(cron: Cron) -> None:
    cron.submit(*people("ann", 5))

    assert cron.drain("--max-batch", "2")["sent"] == 2
    assert cron.drain()["sent"] == 3


def test_a_pass_ends_after_so_many_were_put_off(cron: Cron) -> None:
    cron.submit(*people("later", 4))

    assert cron.drain("--max-deferred", "3")["deferred"] == 3
    assert cron.drain()["deferred"] == 1


def test_higher_priorities_come_first(cron: Cron) -> None:
    cron.submit(*people("slow", 2), priority="bulk")
    cron.submit(*people("fast", 2), priority="high")

    cron.drain("--max-batch", "2")

    assert [mail.rcpt_tos[0] for mail in cron.smtp.accepted()] == people("fast", 2)


def test_what_is_put_off_is_due_in_a_later_pass(amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="rcpt", to="once*", reply="450 4.2.0 Later", times=1))
    cron = Cron(amqp_uri, tmp_path, smtp_server, schedules={"quick": {"schedule": [100], "limit": 3}})
    cron.submit("once@example.org")

    assert cron.drain()["deferred"] == 1
    eventually(lambda: cron.drain()["sent"] == 1, 30)


def test_what_comes_back_during_a_pass_is_for_the_next(amqp_uri: str, tmp_path: Path, smtp_server: SmtpServer) -> None:
    smtp_server.script(Rule(at="rcpt", to="later*", reply="450 4.2.0 Later"))
    cron = Cron(amqp_uri, tmp_path, smtp_server, schedules={"quick": {"schedule": [100], "limit": 100}})
    cron.submit("later@example.org", *people("ann", 4))

    done = cron.drain("--throttle", "0.3")

    assert (done["sent"], done["deferred"]) == (4, 1)


def test_a_throttled_pass_ends_in_good_order_when_it_is_told_to(cron: Cron) -> None:
    cron.submit(*people("ann", 3))

    with cron.start("--throttle", "1000") as process:
        eventually(lambda: len(cron.smtp.accepted()) == 1, 30)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert json.loads(out)["sent"] == 1
    assert cron.drain()["sent"] == 2
    assert len(cron.smtp.accepted()) == 3


def test_what_cannot_be_used_is_in_the_error_log_and_stops_nothing(cron: Cron) -> None:
    cron.submit("ann@example.org")
    put(cron.amqp_uri, "mail.send.v1.normal", b"no JSON", content_type="application/json")
    body = seal(a_message(to=[]), {}, door="submit").body()
    put(cron.amqp_uri, "mail.send.v1.normal", body, content_type="application/json")
    cron.submit("bob@example.org")

    assert cron.drain() == {"sent": 2, "deferred": 0, "held": 0, "failed": 2}
    with Service(cron.config, cron.folder) as service:
        assert len(service.rpc.call("errors")) == 2


def test_a_broker_that_is_away_is_one_line_and_status_1(tmp_path: Path, smtp_server: SmtpServer) -> None:
    cron = Cron("amqp://guest:guest@127.0.0.1:1//", tmp_path, smtp_server)

    with cron.start() as process:
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "the broker is away" in err
    assert "Traceback" not in err


def test_what_is_old_is_deleted_where_no_service_runs(cron: Cron) -> None:
    cron.config["mail"]["retention"] = {"every": 1, "records": {"sent": 0.00001}}
    (cron.folder / "config.yaml").write_text(yaml.safe_dump(cron.config))
    cron.submit("ann@example.org", "refused@example.org")

    def statuses() -> list[str]:
        cron.drain()
        return [status for (status,) in rows(cron.folder / "mail.db", "select status from mail")]

    assert "failed" in statuses()
    eventually(lambda: statuses() == ["failed"], 30)


def test_what_is_over_a_limit_waits_until_it_may_go_also_with_another_configuration(cron: Cron) -> None:
    cron.config["mail"]["mailers"]["default"]["limit"] = {"rate": 1, "per": 3600}
    (cron.folder / "config.yaml").write_text(yaml.safe_dump(cron.config))
    cron.submit("a@example.org", "b@example.org", "c@example.org")

    assert cron.drain()["sent"] == 1

    del cron.config["mail"]["mailers"]["default"]["limit"]
    (cron.folder / "config.yaml").write_text(yaml.safe_dump(cron.config))
    assert cron.drain()["sent"] == 2
