"""Reads exceptions without trusting them: one whose ``__str__`` raises or whose attributes lie disturbs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from mail_service.diagnosis.context import Stage

#: characters of a diagnosis' text
LONGEST_TEXT: Final = 500
_LONGEST_CODE: Final = 100
_DEEPEST: Final = 12

_NOT_IN_A_NAME = re.compile(r"[^\w.]")

#: in which of smtplib's methods an exception passed by; its ``data`` sends the command and the content in one
_STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "connect": "connect",
        "ehlo": "helo",
        "helo": "helo",
        "starttls": "starttls",
        "auth": "auth",
        "mail": "mail",
        "rcpt": "rcpt",
        "data": "body",
        "quit": "quit",
    }
)


def class_names(error: BaseException) -> frozenset[str]:
    """The full names of the error's class and of its bases: ``smtplib.SMTPDataError``, ``builtins.OSError``."""
    return frozenset(f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__)


def class_name(error: BaseException) -> str:
    """The name of the error's class, fit for logs."""
    return _NOT_IN_A_NAME.sub("", str(type(error).__name__))[:_LONGEST_CODE] or "Exception"


def text_of(error: BaseException) -> str:
    """What the error says, in one line; empty when it says nothing or cannot say it."""
    try:
        return one_line(str(error))
    except BaseException:  # noqa: BLE001 - whatever a foreign __str__ raises, the mail is what matters
        return ""


def described(error: BaseException) -> str:
    """The error for people: ``ValueError: no such thing``."""
    text = text_of(error)
    return one_line(f"{class_name(error)}: {text}") if text else class_name(error)


def one_line(text: str) -> str:
    """*text* without line breaks and at most ``LONGEST_TEXT`` characters."""
    joined = " ".join(text[: 4 * LONGEST_TEXT].split())
    return joined if len(joined) <= LONGEST_TEXT else f"{joined[: LONGEST_TEXT - 1]}…"


def reply_text(reply: object) -> str:
    """A server's reply as text, which smtplib gives as bytes and in several lines."""
    return one_line(reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply))


def inside(error: BaseException) -> Iterator[BaseException]:
    """
    The errors that *error* was made from: its cause, those among its arguments, urllib3's ``reason``, boto's ``error``,
    and theirs.

    Not ``__context__``, which is only what happened to be handled at the time.
    """
    seen: list[BaseException] = [error]
    for current in seen:
        reason = getattr(current, "reason", None)
        # botocore/exceptions.py keeps what it was called with
        called_with = getattr(current, "kwargs", None)
        cause = called_with.get("error") if isinstance(called_with, dict) else None
        for candidate in (current.__cause__, reason, cause, *getattr(current, "args", ())):
            if (
                isinstance(candidate, BaseException)
                and len(seen) < _DEEPEST
                and not any(candidate is one for one in seen)
            ):
                seen.append(candidate)
                yield candidate


def stage_of(error: BaseException) -> Stage | None:
    """
    How far an SMTP conversation was, read from the traceback; None when smtplib had no part in it.

    For backends that use smtplib without telling, such as subclasses of Django's.
    """
    stage: Stage | None = None
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename.endswith("smtplib.py"):
            stage = _STAGES.get(code.co_name, stage)
        traceback = traceback.tb_next
    return stage
