"""What is counted, under which labels, and what is never in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mail_service.delivery.copies import Delivery
from mail_service.envelope import seal
from mail_service.ledger.records import Attempt, Change, Mail
from mail_service.message import Options
from mail_service.outcome import Status
from mail_service.settings import Settings, load_settings
from mail_service.web.folder import FOLDER, shared_folder, web_address
from mail_service.web.metrics import Gauge, Metrics

from ..support.messages import a_message

MAIL = Mail(id="order-17", status=Status.SENT, mailer="default", tenant="acme")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)


def an_attempt(mailer: str = "default", diagnosis: str = "accepted", milliseconds: int = 200) -> Attempt:
    return Attempt(
        at="2026-11-22T00:00:00+00:00",
        mailer=mailer,
        diagnosis=diagnosis,
        text="<ann@example.org> said no",
        milliseconds=milliseconds,
        recipients={},
    )


def a_delivery(door: str = "submit", *, generation: int = 0, redelivered: bool = False) -> Delivery:
    mail = replace(MAIL, status=Status.QUEUED, generation=generation)
    envelope = seal(a_message(), {}, door=door)
    return Delivery(envelope=envelope, canonical={}, options=Options.parse({}), mail=mail, redelivered=redelivered)


def samples(metrics: Metrics, *gauges: Gauge) -> Mapping[tuple[str, tuple[str, ...]], float]:
    """By name without the prefix, and the values of the labels in the order of their names."""
    return {
        (
            sample.name.removeprefix("mail_service_"),
            tuple(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(metrics.text(gauges).decode())
        for sample in family.samples
    }


def test_an_attempt_is_counted_by_mailer_and_diagnosis_with_its_time() -> None:
    metrics = Metrics(Settings())

    metrics.closed(a_delivery(), Change(mail=MAIL, attempts=[an_attempt(), an_attempt(diagnosis="unknown")]))

    found = samples(metrics)
    assert found["attempts_total", ("accepted", "default")] == 1
    assert found["attempts_total", ("unknown", "default")] == 1
    assert found["attempt_seconds_sum", ("default",)] == pytest.approx(0.4)
    assert found["attempt_seconds_bucket", ("0.1", "default")] == 0
    assert found["attempt_seconds_bucket", ("0.3", "default")] == 2
    assert found["ended_total", ("sent",)] == 1


def test_what_is_known_beforehand_begins_at_zero() -> None:
    found = samples(Metrics(Settings()))

    assert found["attempts_total", ("permanent", "default")] == 0
    assert found["accepted_total", ("event",)] == 0
    assert found["ended_total", ("failed",)] == 0
    assert found["errors_total", ("broker",)] == 0
    assert not any(name.endswith("_created") for name, _ in found)


def test_a_mail_that_goes_on_has_not_ended() -> None:
    metrics = Metrics(Settings())

    metrics.closed(a_delivery(), Change(mail=replace(MAIL, status=Status.DEFERRED), attempts=[an_attempt()]))

    assert sum(value for (name, _), value in samples(metrics).items() if name == "ended_total") == 0


@pytest.mark.parametrize(
    ("delivery", "count"),
    [
        pytest.param(a_delivery("client"), 1, id="the first copy"),
        pytest.param(a_delivery("client", generation=1), 0, id="a later copy"),
        pytest.param(a_delivery("client", redelivered=True), 0, id="a copy that comes again"),
        pytest.param(a_delivery("submit"), 0, id="what its door has counted"),
    ],
)
def test_what_clients_put_into_a_lane_is_counted_once(delivery: Delivery, count: int) -> None:
    metrics = Metrics(Settings())

    metrics.closed(delivery, Change(mail=MAIL))

    assert samples(metrics)["accepted_total", ("client",)] == count


def test_no_label_has_a_tenant_or_a_mailer_that_nobody_configured() -> None:
    settings = load_settings({"mail": {"tenants": {"acme": {"mailers": {"own": {"BACKEND": "a.b.EmailBackend"}}}}}})
    metrics = Metrics(settings)

    for mailer in ("own/acme", "default/ann@example.org", "ann@example.org", "made-up"):
        metrics.closed(a_delivery(), Change(mail=MAIL, attempts=[an_attempt(mailer)]))
    metrics.accepted("ann@example.org")

    found = samples(metrics)
    mailers = {labels[1] for name, labels in found if name == "attempts_total"}
    assert mailers == {"default", "own", "other"}
    assert found["attempts_total", ("accepted", "other")] == 2
    text = metrics.text([]).decode()
    assert "@" not in text
    assert "acme" not in text


def test_gauges_stand_beside_the_counters() -> None:
    gauges: tuple[Gauge, ...] = (("up", {("broker",): 0.0}), ("waiting", {("bulk", "held"): 3.0}))

    found = samples(Metrics(Settings()), *gauges)

    assert found["up", ("broker",)] == 0
    assert found["waiting", ("bulk", "held")] == 3


@pytest.mark.parametrize(
    ("config", "address"),
    [
        pytest.param({}, None, id="not set"),
        pytest.param({"WEB_SERVER_ADDRESS": None}, None, id="null"),
        pytest.param({"WEB_SERVER_ADDRESS": 8000}, "8000", id="a port alone"),
        pytest.param({"WEB_SERVER_ADDRESS": "127.0.0.1:8000"}, "127.0.0.1:8000", id="an address"),
    ],
)
def test_the_address_is_namekos_without_its_default(config: dict[str, Any], address: str | None) -> None:
    assert web_address(config) == address


def test_processes_share_a_folder_that_is_gone_afterwards() -> None:
    with shared_folder({"WEB_SERVER_ADDRESS": "127.0.0.1:8000"}) as environment:
        folder = Path(environment[FOLDER])
        assert folder.is_dir()

    assert not folder.exists()


def test_without_an_address_there_is_no_folder() -> None:
    with shared_folder({}) as environment:
        assert FOLDER not in environment


def test_a_folder_that_somebody_chose_is_used_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))

    with shared_folder({"WEB_SERVER_ADDRESS": "127.0.0.1:8000"}) as environment:
        assert environment[FOLDER] == str(tmp_path)

    assert tmp_path.exists()
