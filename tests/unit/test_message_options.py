"""The options beside a message."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mail_service.errors import InvalidMessage
from mail_service.message import Options
from tests.support.messages import examples

NAMES = {"mailers": ["default", "second"], "schedules": ["fixed", "dynamic"]}

REFUSED: dict[str, tuple[Any, str, str]] = {
    "not an object": ([], "options", "an object, not a list"),
    "unknown": ({"prioritty": "bulk"}, "options.prioritty", "did you mean 'priority'"),
    "unknown and null": ({"foo": None}, "options.foo", "no such option"),
    "id empty": ({"id": ""}, "id", "empty"),
    "id too long": ({"id": "x" * 201}, "id", "at most 200"),
    "id with a control character": ({"id": "a\x07"}, "id", "control"),
    "id with a C1 control character": ({"id": "a\x85"}, "id", "control"),
    "id half a surrogate pair": ({"id": "\ud800"}, "id", "control"),
    "id a number": ({"id": 7}, "id", "a string, not a number"),
    "unknown mailer": ({"mailer": "secnd"}, "mailer", "did you mean 'second'"),
    "unknown schedule": ({"backoff": "dinamic"}, "backoff", "did you mean 'dynamic'"),
    "unknown priority": ({"priority": "urgent"}, "priority", "high, normal, bulk"),
    "priority a number": ({"priority": 1}, "priority", "a string"),
    "expires_at not a time": ({"expires_at": "tomorrow"}, "expires_at", "ISO 8601"),
    "expires_at a number": ({"expires_at": 5}, "expires_at", "ISO 8601, not a number"),
    "expires_at out of range": ({"expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at", "ISO 8601"),
    "tenant too long": ({"tenant": "x" * 201}, "tenant", "at most 200"),
    "tenant with a line break": ({"tenant": "a\nb"}, "tenant", "control"),
}


@pytest.mark.parametrize(("options", "field", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_option_is_refused_by_name(options: Any, field: str, problem: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        Options.parse(options, **NAMES)

    assert refused.value.field == field
    assert problem in refused.value.problem


@pytest.mark.parametrize("nothing", [None, {}, {"id": None, "mailer": None}], ids=["None", "empty", "nulls"])
def test_nothing_given_is_nothing_chosen(nothing: Any) -> None:
    assert Options.parse(nothing) == Options()
    assert Options.parse(nothing).to_json() == {}


def test_without_the_names_a_client_lets_any_mailer_and_schedule_pass() -> None:
    assert Options.parse({"mailer": "unheard-of", "backoff": "of"}).mailer == "unheard-of"


EXPIRIES: dict[str, tuple[Any, datetime]] = {
    "without offset is UTC": ("2030-01-31T12:00:00", datetime(2030, 1, 31, 12, tzinfo=UTC)),
    "Z": ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
    "offset": ("2030-01-31T12:00:00+02:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
    "date only": ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
    "past": ("1999-01-01T00:00:00Z", datetime(1999, 1, 1, tzinfo=UTC)),
    "datetime, from Python": (
        datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(2029, 12, 31, 23, tzinfo=UTC),
    ),
}


@pytest.mark.parametrize(("text", "meant"), EXPIRIES.values(), ids=EXPIRIES.keys())
def test_expires_at_is_read_as_utc(text: Any, meant: datetime) -> None:
    expires_at = Options.parse({"expires_at": text}).expires_at

    assert expires_at == meant
    assert expires_at is not None
    assert expires_at.utcoffset() == timedelta(0)


some_text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=200)
some_options = st.fixed_dictionaries(
    {},
    optional={
        "id": some_text,
        "mailer": st.sampled_from(NAMES["mailers"]),
        "backoff": st.sampled_from(NAMES["schedules"]),
        "priority": st.sampled_from(["high", "normal", "bulk"]),
        "tenant": some_text,
        "expires_at": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    },
)


@settings(max_examples=examples(50), deadline=None)
@given(some_options)
def test_options_survive_json_unchanged(options: dict[str, str]) -> None:
    parsed = Options.parse(options, **NAMES)
    travelled = json.loads(json.dumps(parsed.to_json()))

    assert travelled.keys() == options.keys()
    assert Options.parse(travelled, **NAMES) == parsed
