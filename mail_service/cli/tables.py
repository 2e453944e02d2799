"""Answers of the service for people: short, aligned, without characters that a terminal would obey."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mail_service.cli.common import TRACEBACK, printable, without_traceback

#: characters of a long text in a table
_LONGEST_CELL = 70
#: characters of a value in a message that is shown; attachments are longer
_LONGEST_VALUE = 500

Record = Mapping[str, Any]


def record(answer: Record) -> str:
    """A mail: what is known about it, then its recipients."""
    facts = [
        # a list shortens an error; here is the place to read it
        (name.replace("_", " "), _headline(answer[name]) if name == "error" else _cell(name, answer[name]))
        for name in _RECORD_FACTS
        if answer.get(name) not in (None, "")
    ]
    recipients = [
        ("  " + address, str(state.get("status", "")), state.get("message_id") or "", state.get("detail") or "")
        for address, state in (answer.get("recipients") or {}).items()
    ]
    return "\n".join([*aligned(facts), *(["recipients"] if recipients else []), *aligned(recipients)])


def records(answer: Sequence[Record]) -> str:
    """The error log, one mail a line."""
    if not answer:
        return "no entries"
    rows = [tuple(_cell(name, each.get(name)) for name in _LIST_FACTS) for each in answer]
    return "\n".join(aligned([tuple(name.replace("_", " ").upper() for name in _LIST_FACTS), *rows]))


def entry(answer: Record) -> str:
    """A mail of the error log with its attempts and what was handed in."""
    attempts = [
        (_cell("at", each.get("at")), *(_headline(each.get(name)) for name in ("mailer", "diagnosis", "text")))
        for each in answer.get("attempts") or ()
    ]
    parts = [record(answer["record"]), "", "attempts", *(["  none"] if not attempts else _indented(aligned(attempts)))]
    if traceback := _last_traceback(answer):
        parts += ["", "traceback", *_indented(traceback)]
    for name in ("options", "message"):
        if value := answer.get(name):
            parts += ["", name, *_indented(json.dumps(_shortened(value), indent=2, ensure_ascii=False).split("\n"))]
    return printable("\n".join(parts))


def health(answer: Mapping[str, Record]) -> str:
    """One part a line."""
    return "\n".join(
        aligned([(name, "ok" if part.get("ok") else "BAD", _line(part.get("text"))) for name, part in answer.items()])
    )


def suppressions(answer: Sequence[Record]) -> str:
    """Who is not mailed, one entry a line."""
    return _listed(answer, ("address", "tenant", "since", "until", "reason")) or "nobody is suppressed"


def pauses(answer: Sequence[Record]) -> str:
    """What is or was paused, one pause a line; what does not matter to it is left empty."""
    return _listed(answer, ("mailer", "tenant", "priority", "since", "until", "reason")) or "nothing is paused"


def story(answer: Record) -> str:
    """What happened to a mail, why it is where it is, and what happens next."""
    events = [(_cell("at", each.get("at")), _line(each.get("text"))) for each in answer["timeline"]]
    facts = answer["record"]
    head = f"{facts['id']}: {facts['status']}"
    return printable("\n".join([head, "", *aligned(events), "", _line(answer["why"]), _line(answer["next"])]))


def _listed(answer: Sequence[Record], names: Sequence[str]) -> str:
    rows = [tuple(_cell(name, each.get(name)) for name in names) for each in answer]
    return "\n".join(aligned([tuple(name.upper() for name in names), *rows])) if rows else ""


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns two spaces apart, empty ones left out; the last one is as long as it is."""
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip() for row in cells
    ]


_RECORD_FACTS = (
    "id",
    "status",
    "mailer",
    "tenant",
    "priority",
    "attempts",
    "submitted_at",
    "updated_at",
    "next_attempt_at",
    "error",
)
_TIMES = ("at", "submitted_at", "updated_at", "next_attempt_at", "since", "until")
_LIST_FACTS = ("id", "status", "mailer", "attempts", "updated_at", "recipients", "error")


def _cell(name: str, value: Any) -> str:
    if name in _TIMES and isinstance(value, str):
        # all times are in UTC; a table needs neither microseconds nor the offset
        return value[:19].replace("T", " ")
    if name == "recipients" and isinstance(value, Mapping):
        first, *others = [*value, ""]
        return f"{first} and {len(others) - 1} more" if len(others) > 1 else first
    return _shorter(value) if name == "error" else _line(value)


def _line(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def _headline(value: Any) -> str:
    """A text on one line, without the traceback that may follow it."""
    return "" if value is None else _line(without_traceback(str(value)))


def _last_traceback(answer: Record) -> list[str]:
    texts = [answer["record"].get("error"), *(each.get("text") for each in answer.get("attempts") or ())]
    found = [text for text in texts if isinstance(text, str) and TRACEBACK in text]
    return found[-1][found[-1].index(TRACEBACK) :].rstrip().split("\n") if found else []


def _shorter(value: Any) -> str:
    text = _headline(value)
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _shortened(value: Any) -> Any:
    """*value* with long strings cut, which are attachments as a rule."""
    if isinstance(value, str) and len(value) > _LONGEST_VALUE:
        return f"{value[:_LONGEST_VALUE]}… ({len(value):,} characters)"
    if isinstance(value, Mapping):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return value
