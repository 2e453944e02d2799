"""One trace, from the span of whoever hands a mail in to each attempt to deliver it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mail_service import tracing
from mail_service.local.node import Node

from ..support import traced
from ..support.messages import a_message
from ..support.outside import dispatch
from ..support.waiting import eventually
from .conftest import House, open_house


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces") / "spans"


@pytest.fixture(scope="module")
def traced_house(rabbitmq_3: Node, spans: Path) -> Iterator[House]:
    rabbitmq_3.add_vhosts("traces")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv(traced.VARIABLE, str(spans))
        database = f"sqlite:///{spans.parent / 'mail.db'}"
        tracer = "tests.support.traced.set_up"
        yield open_house(stack, rabbitmq_3.uri("traces"), spans.parent, database, tracing=tracer)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def order(exporter: InMemorySpanExporter) -> Iterator[Any]:
    """The span of the program that hands a mail in, which is current meanwhile."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("shop").start_as_current_span("order") as span:
        yield span.get_span_context()


def of_mail(spans: Path, mail_id: str, count: int) -> list[dict[str, Any]]:
    """The service's spans about a mail, in the order in which they ended, when there are so many."""

    def found() -> list[dict[str, Any]]:
        lines = spans.read_text().splitlines() if spans.exists() else []
        mine = [span for span in map(json.loads, lines) if span.get("mail.id") == mail_id]
        assert len(mine) == count, mine
        return mine

    return eventually(found, 20)


def by_client(house: House, message: dict[str, Any]) -> None:
    house.service.rpc.submit(message, id="client", backoff="quick")


def by_rpc(house: House, message: dict[str, Any]) -> None:
    house.service.rpc.call("submit", message, id="rpc", backoff="quick")


def by_event(house: House, message: dict[str, Any]) -> None:
    headers = {f"nameko.{name}": value for name, value in tracing.current().items()}
    payload = {**message, "options": {"id": "event", "backoff": "quick"}}
    dispatch(house.amqp_uri, "orders", payload, headers=headers)


@pytest.mark.parametrize(("hand_in", "doors"), [(by_client, 0), (by_rpc, 1), (by_event, 1)])
def test_each_attempt_is_part_of_the_callers_trace(
    traced_house: House, spans: Path, order: Any, hand_in: Callable[..., None], doors: int
) -> None:
    mail_id = hand_in.__name__.removeprefix("by_")

    hand_in(traced_house, a_message(to=[traced_house.person("once")]))

    found = of_mail(spans, mail_id, doors + 2)
    accepted, attempts = found[:doors], found[doors:]
    parent = accepted[0]["span"] if accepted else f"{order.span_id:016x}"
    assert {span["trace"] for span in found} == {f"{order.trace_id:032x}"}
    assert [(span["name"], span["parent"]) for span in accepted] == [
        ("mail accept", f"{order.span_id:016x}") for _ in accepted
    ]
    assert [(span["name"], span["parent"]) for span in attempts] == [("mail attempt", parent)] * 2
    assert [(span["mail.attempt"], span["mail.outcome"], span["is_error"]) for span in attempts] == [
        (1, "transient", True),
        (2, "accepted", False),
    ]


def test_no_address_is_in_a_span(traced_house: House, spans: Path) -> None:
    traced_house.rpc.send(a_message(to=[traced_house.person()]), id="private")

    of_mail(spans, "private", 2)

    assert "@" not in spans.read_text()


def test_mail_without_a_trace_begins_one(traced_house: House, spans: Path) -> None:
    traced_house.rpc.send(a_message(to=[traced_house.person()]), id="alone")

    accepted, attempt = of_mail(spans, "alone", 2)

    assert accepted["parent"] is None
    assert attempt["parent"] == accepted["span"]
