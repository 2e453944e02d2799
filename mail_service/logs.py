"""
How log lines look: a sentence for people, fields for machines, and nothing of a mail in either.

``say`` writes a line with fields, ``TextFormatter`` and ``JsonFormatter`` print it, ``quiet_the_stack`` makes nameko's
and kombu's own lines as discreet. The id, the mailer, the attempt and the verdict may be logged. Addresses, bodies and
secrets may not, and so no exception's text either, since backends and databases quote in it what they were given. The
formatters see to that for every logger, also where an address got into a line by mistake.
"""

from __future__ import annotations

import json
import logging
import math
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mail_service.errors import ConfigurationError, MailServiceError
from mail_service.settings.masks import MASK, is_secret_name, mask_text

#: a run of characters that a bare address may have on either side of its @
_RUN: Final = r"""[^\s<>"'(),;:=|@/\\*\[\]{}]"""
#: from the beginning of a run, so that a long text without an @ takes no longer than its length
_ADDRESS: Final = re.compile(rf'(?:"[^"\n]{{0,256}}"|(?<!{_RUN}){_RUN}+)(?:@|%40)(?:{_RUN}+|\[[^]\s]*\])')
_ADDRESS_SHOWN: Final = "[address]"
#: fields that hold a mail's content or say whom it is for, should somebody hand one over
_PRIVATE_FIELDS: Final = frozenset(
    {"to", "cc", "bcc", "from_email", "reply_to", "recipient", "recipients", "address", "sender", "envelope_sender"}
    | {"subject", "body", "html", "text", "content", "message", "payload", "headers", "attachments", "mime"}
)
#: keys of a JSON line that a field may not replace
_RESERVED: Final = frozenset({"time", "level", "logger", "message", "exception"})
#: characters; what is longer holds more than a sentence
_LONGEST: Final = 2000
_MOST_FRAMES: Final = 30
_MOST_CAUSES: Final = 10
_FRAMES_ON_A_LINE: Final = 4
#: whose own ``strerror`` is about the system, never about a mail; smtplib's exceptions are OSErrors too
_SYSTEM_MODULES: Final = frozenset({"builtins", "socket", "ssl"})


def say(
    logger: logging.Logger, level: int, sentence: str, /, *, cause: BaseException | None = None, **fields: object
) -> None:
    """
    Log *sentence* with *fields*, which it may use: ``say(log, INFO, "%(id)s waits %(seconds).1f s", id=a, seconds=2)``.

    As text, fields that the sentence does not use follow it as ``key=value``, except ``event``; as JSON, all are keys.

    Args:
        cause: its traceback is printed below, without its text.
    """
    if not logger.isEnabledFor(level):
        return
    args = (fields,) if fields else ()
    logger.log(level, sentence, *args, extra={"mail": fields}, exc_info=cause, stacklevel=2)


class TextFormatter(logging.Formatter):
    """``2026-11-22T03:15:00.123+00:00 INFO mail_service.delivery attempt 2 of 0b9 by default: deferred in 0.031 s``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and below it the frames of a traceback if there is one."""
        rest = [f"{name}={_as_word(value)}" for name, value in _unsaid_fields(record)]
        line = " ".join([_time(record), record.levelname, record.name, _sentence(record), *rest])
        exc = _exception(record)
        below = [safe_traceback(exc)] if exc is not None else []
        if record.stack_info:
            below.append(_clean_lines(record.stack_info))
        return "\n".join([line, *below])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, and ``exception`` with type and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, all of it ASCII."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _sentence(record),
        }
        for name, value in _fields(record).items():
            line[f"mail_{name}" if name in _RESERVED else name] = value
        exc = _exception(record)
        if exc is not None:
            line["exception"] = {"type": type(exc).__name__, "traceback": safe_traceback(exc)}
        return json.dumps(line)


def safe_traceback(exc: BaseException) -> str:
    """The traceback of *exc* and its causes as Python prints it, without the exceptions' texts and any values."""
    blocks = []
    for link, cause in _causes_first(exc):
        frames = traceback.StackSummary.extract(traceback.walk_tb(cause.__traceback__), limit=-_MOST_FRAMES)
        lines = ["Traceback (most recent call last):", *"".join(frames.format()).splitlines()] if frames else []
        blocks.append("\n".join([*([link, ""] if link else []), *lines, _class_name(cause)]))
    return _clean_lines("\n\n".join(blocks))


def describe(exc: BaseException) -> str:
    """*exc* in a few words fit for a log: its class, and the operating system's reason where that is all it says."""
    name = type(exc).__name__
    if isinstance(exc, ConfigurationError):
        return str(exc)
    if isinstance(exc, OSError) and type(exc).__module__ in _SYSTEM_MODULES and isinstance(exc.strerror, str):
        return f"{name} ({exc.strerror})"
    return name


def quiet_the_stack() -> None:
    """
    Make the libraries below us as discreet as we are. May be called more than once.

    Deprecation warnings about nameko, kombu and eventlet themselves are dropped: who runs this cannot mend them.
    nameko's lines about a failed call have its arguments' values and a traceback in them, and kombu's about an
    unreadable message its body: they become one line without values.
    """
    warnings.filterwarnings("ignore", message=r"(?s).*Eventlet is deprecated")
    warnings.filterwarnings("ignore", message=r"pkg_resources is deprecated")
    warnings.filterwarnings("ignore", message=r"Deprecated call to `pkg_resources")
    libraries = r"(nameko|nameko_amqp_retry|kombu|amqp|vine|eventlet|greenlet|six|pkg_resources)(\.|$)"
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=libraries)
    for name in ("nameko.containers", "kombu.mixins"):
        logging.getLogger(name).addFilter(_DISCRETION)
    for name in ("sqlalchemy", "alembic", "psycopg"):
        # They run in native threads, where a logging lock that the hub's thread holds is never handed over.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class _Discretion(logging.Filter):
    """Rewrites the records of nameko.containers (2.14.1) and kombu.mixins (5.7), before any handler sees them."""

    def filter(self, record: logging.LogRecord) -> bool:
        exc = _exception(record)
        template = str(record.msg)
        if template.endswith("error handling worker %s: %s"):
            record.levelno, text = _outcome_of_a_call(record)
        elif template.startswith("Can't decode message body"):
            text = "a message could not be decoded; its body is not shown"
        else:
            text = _sentence(record) + (f": {_class_and_place(exc)}" if exc is not None else "")
        record.levelname = logging.getLevelName(record.levelno)
        record.msg, record.args = text, ()
        record.exc_info = record.exc_text = None
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


_DISCRETION: Final = _Discretion()


def _outcome_of_a_call(record: logging.LogRecord) -> tuple[int, str]:
    """
    The level and the sentence for what nameko's ``_run_worker`` says when a method raised.

    A refusal is the caller's matter, so INFO; a Backoff is told of by whoever takes the next attempt, so DEBUG.
    """
    worker, exc = record.args if isinstance(record.args, tuple) and len(record.args) == 2 else (None, None)
    entrypoint = getattr(worker, "entrypoint", None)
    method = f"{getattr(worker, 'service_name', 'a service')}.{getattr(entrypoint, 'method_name', 'method')}"
    if not isinstance(exc, BaseException):
        return record.levelno, f"{method} failed"
    if any(cls.__name__ == "Backoff" for cls in type(exc).__mro__):
        return logging.DEBUG, f"{method} is tried again later: {type(exc).__name__}"
    if isinstance(exc, MailServiceError) or str(record.msg).startswith("(expected)"):
        return logging.INFO, f"{method} refused: {type(exc).__name__}"
    return record.levelno, f"{method} failed: {_class_and_place(exc)}"


def _class_and_place(exc: BaseException) -> str:
    """``KeyError at service.py:40 send > delivery.py:88 settle``: the innermost frames, the last one raised it."""
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(exc.__traceback__), limit=-_FRAMES_ON_A_LINE, lookup_lines=False
    )
    places = " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{describe(exc)} at {places}" if places else describe(exc)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _sentence(record: logging.LogRecord) -> str:
    """The record's message on one line, exceptions among its arguments by their class only. Never raises."""
    try:
        template = describe(record.msg) if isinstance(record.msg, BaseException) else str(record.msg)
        args = _without_exceptions(record.args)
        return _clean(template % args if args else template)
    except Exception:  # noqa: BLE001 - logging would print the arguments' values to stderr
        return _clean(f"{record.msg} (its arguments do not fit)" if isinstance(record.msg, str) else "(no text)")


def _without_exceptions(args: Mapping[str, object] | Sequence[object] | None) -> object:
    if isinstance(args, Mapping):
        return {name: _without_exception(value) for name, value in args.items()}
    return tuple(_without_exception(value) for value in args or ())


def _without_exception(value: object) -> object:
    return describe(value) if isinstance(value, BaseException) else value


def _fields(record: logging.LogRecord) -> dict[str, object]:
    given = getattr(record, "mail", None)
    return {str(name): _field(str(name), value) for name, value in given.items()} if isinstance(given, Mapping) else {}


def _field(name: str, value: object) -> object:
    if name in _PRIVATE_FIELDS or is_secret_name(name):
        return MASK
    if isinstance(value, (list, tuple)):
        return [_scalar(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> object:
    match value:
        case None | bool() | int():
            return value
        case float():
            return round(value, 6) if math.isfinite(value) else str(value)
        case str() | datetime():
            return _clean(str(value))
        case BaseException():
            return describe(value)
        case _:
            return type(value).__name__


def _unsaid_fields(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    used = str(record.msg) if isinstance(record.args, Mapping) else ""
    for name, value in _fields(record).items():
        if name != "event" and value is not None and f"%({name})" not in used:
            yield name, value


def _as_word(value: object) -> str:
    text = str(value)
    return text if text and not re.search(r'[\s="]', text) else json.dumps(text, ensure_ascii=False)


def _exception(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if isinstance(record.exc_info, tuple) else None


def _causes_first(exc: BaseException) -> list[tuple[str, BaseException]]:
    """*exc* and what led to it, the first cause first, each with the words that link it to the one before."""
    chain: list[tuple[str, BaseException]] = []
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen and len(chain) < _MOST_CAUSES:
        seen.add(id(current))
        cause, context = current.__cause__, None if current.__suppress_context__ else current.__context__
        link = "which was the cause of:" if cause else "during the handling of which came:" if context else ""
        chain.append((link, current))
        current = cause or context
    link, first = chain[-1]
    chain[-1] = ("", first)
    return chain[::-1]


def _class_name(exc: BaseException) -> str:
    name = f"{type(exc).__module__}.{type(exc).__qualname__}".removeprefix("builtins.")
    if isinstance(exc, BaseExceptionGroup):
        return f"{name} of {', '.join(_class_name(part) for part in exc.exceptions)}"
    return name


def _clean(text: str) -> str:
    """*text* on one line, without addresses and the passwords of URLs, cut where no sentence is that long."""
    shown = mask_text(text[: 2 * _LONGEST])
    if "@" in shown or "%40" in shown:
        shown = _ADDRESS.sub(_ADDRESS_SHOWN, shown)
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
    return shown if shown.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in shown)


def discreet(text: str) -> str:
    """*text* as it may be shown to anybody: on one line, without addresses and passwords, cut when it is very long."""
    return _clean(text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _clean_lines(text: str) -> str:
    return "\n".join(_clean(line) for line in text.splitlines())
