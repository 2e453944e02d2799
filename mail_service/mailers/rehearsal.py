"""
A Django email backend that keeps what it gets and fails as it is told to: for demos, tests, and trying out settings.

It behaves like Django's SMTP backend in front of a server that has moods, and raises what that raises. How to tell it:

    nobody-1@example.org            accepted
    refuse@example.org              refused for good; the other recipients of the mail are not
    transient-2@example.org         refused for now, twice for each mail, then accepted
    OPTIONS: {script: [transient, {do: throttle, wait_s: 5}, {do: hang, seconds: 3, times: 2}]}
    OPTIONS: {rules: {"*@slow.example": {do: hang, seconds: 3}}}

A script is played one step per hand-over, whatever the mail, and then everything is accepted. A rule's key is a shell
pattern for recipients. Words in front of the @ (``WORDS``), with the number of times, are rules too, unless ``by_name``
is false.

What was accepted is in ``outbox``. With the option ``folder`` it is also in ``outbox.jsonl`` there, and each mail in a
file beside it, for other processes to look at; and "twice" means twice over all processes, restarts included.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import json
import math
import os
import re
import signal
import smtplib
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.module_loading import import_string

from mail_service.mailers.content import bare, mime_bytes

#: what a step or a rule can do, and a recipient's name can ask for
WORDS: Final[Mapping[str, str]] = {
    "accept": "takes the mail",
    "refuse": "550 to this recipient",
    "transient": "451 to this recipient",
    "throttle": "454 to the mail, with the wait of wait_s",
    "login": "535, as if the password were wrong",
    "hang": "takes the mail after some seconds",
    "timeout": "TimeoutError after some seconds; nobody can tell whether the mail was taken",
    "drop": "takes the mail and closes the connection instead of saying so",
    "crash": "kills this process with the mail in hand",
    "vanish": "takes the mail and kills this process",
    "nothing": "returns 0",
    "nonsense": "takes the mail and returns a word",
    "raise": "raises the class of the dotted path in error, with args",
}
#: those that concern one recipient; the others concern the mail as a whole
_PERSONAL: Final = frozenset({"accept", "refuse", "transient"})
_KEEPS: Final = frozenset({"accept", "hang", "drop", "vanish", "nonsense"})
_BY_NAME = re.compile(rf"({'|'.join(WORDS)})(?:-(\d+))?(?:[-+.].*)?", re.IGNORECASE)

_REPLIES: Final[Mapping[str, tuple[int, bytes]]] = {
    "refuse": (550, b"5.1.1 No such person (rehearsal)"),
    "transient": (451, b"4.3.0 Not now (rehearsal)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A mail that was accepted."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    message_id: str
    #: seconds since the epoch
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do with a mail, or one of its recipients."""

    do: str = "accept"
    #: how often; None is always for a rule, and once for a step of a script
    times: int | None = None
    #: shell pattern of the recipients concerned, for a step of a script
    only: str = "*"
    #: for ``throttle``
    wait_s: float = 1.0
    #: for ``hang`` and ``timeout``
    seconds: float = 60.0
    #: for ``raise``: dotted path of an exception class
    error: str = "RuntimeError"
    #: for ``raise``
    args: tuple[object, ...] = ("rehearsal",)


#: the last thousand accepted mails of this process
outbox: deque[Kept] = deque(maxlen=1000)

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def clear() -> None:
    """Forget the accepted mails and how often each step was played, in this process; a folder keeps both."""
    outbox.clear()
    with _lock:
        _counts.clear()


class EmailBackend(BaseEmailBackend):
    """See the module. Its options are those of ``Step``, as defaults, and the ones below."""

    def __init__(
        self,
        *,
        script: Sequence[object] = (),
        rules: Mapping[str, object] | None = None,
        by_name: bool = True,
        folder: str | None = None,
        wait_s: float = 1.0,
        seconds: float = 60.0,
        expresses: Sequence[str] = (),
        **options: Any,
    ) -> None:
        unknown = options.keys() - {"alias", "fail_silently", "_ignore_unknown_kwargs"}
        if unknown:  # Django ignores them before 6.1
            raise ImproperlyConfigured(f"rehearsal: no option {', '.join(sorted(unknown))}")
        super().__init__(**options)
        self._defaults: dict[str, Any] = {"wait_s": wait_s, "seconds": seconds}
        self._script = [self._step(given) for given in script]
        self._rules = {pattern: self._step(given) for pattern, given in (rules or {}).items()}
        self._by_name = by_name
        self._folder = Path(folder) if folder else None
        #: Anymail's fields that this rehearsal is to take as a provider would: ``[template_id, merge_data]``
        self.expresses = tuple(expresses)
        self.connection: _Pretence | None = None
        self._returns: object = None

    def open(self) -> bool:
        """Make believe that a connection is opened."""
        if self.connection:
            return False
        self.connection = _Pretence(self)
        return True

    def close(self) -> None:
        """Drop the pretended connection."""
        self.connection = None

    def send_messages(self, email_messages: Sequence[Any]) -> Any:
        """Play each message's steps, and return the number of those that at least one recipient accepted."""
        count = 0
        for message in email_messages or ():
            if not message.recipients():
                continue
            connection = self.connection or _Pretence(self)
            connection.message_id = _message_id(message)
            connection.sendmail(message.from_email, list(map(bare, message.recipients())), mime_bytes(message))
            count += 1
        return count if self._returns is None else self._returns

    def play(
        self, sender: str, recipients: Sequence[str], content: bytes, message_id: str
    ) -> dict[str, tuple[int, bytes]]:
        """Do what the script, the rules and the names say. Returns the replies of refused recipients."""
        steps = self._steps(recipients, message_id)
        refused = {address: _REPLIES[step.do] for address, step in steps.items() if step.do in _REPLIES}
        if len(refused) == len(recipients):
            raise smtplib.SMTPRecipientsRefused(refused)
        whole = next((step for step in steps.values() if step.do not in _PERSONAL), Step())
        taken = tuple(address for address in recipients if address not in refused)
        if whole.do in {"hang", "timeout"}:
            time.sleep(whole.seconds)
        if whole.do in _KEEPS:
            self._keep(Kept(sender=sender, recipients=taken, content=content, message_id=message_id, at=time.time()))
        self._returns = {"nothing": 0, "nonsense": "nonsense"}.get(whole.do)
        _misbehave(whole)
        return refused

    def _step(self, given: object) -> Step:
        facts = {"do": given} if isinstance(given, str) else given
        if not isinstance(facts, Mapping) or facts.get("do", "accept") not in WORDS:
            raise ImproperlyConfigured(f"rehearsal: {given!r} is no step; {{do: ...}} takes one of {', '.join(WORDS)}")
        try:
            step = Step(**{**self._defaults, **facts})
        except TypeError as error:
            raise ImproperlyConfigured(f"rehearsal: {given!r} is no step: {error}") from error
        return step

    def _steps(self, recipients: Sequence[str], message_id: str) -> dict[str, Step]:
        scripted = self._next_of_script()
        if scripted is not None:
            return {each: scripted if fnmatch.fnmatch(each, scripted.only) else Step() for each in recipients}
        return {each: self._rule_for(each, message_id) for each in recipients}

    def _next_of_script(self) -> Step | None:
        if not self._script:
            return None
        place = self._played(f"script {self._script!r}")
        for step in self._script:
            place -= 1 if step.times is None else step.times
            if place < 0:
                return step
        return None

    def _rule_for(self, recipient: str, message_id: str) -> Step:
        step = next((step for pattern, step in self._rules.items() if fnmatch.fnmatch(recipient, pattern)), None)
        if step is None and self._by_name and (asked := _BY_NAME.fullmatch(recipient.partition("@")[0])):
            step = Step(do=asked[1].lower(), times=int(asked[2]) if asked[2] else None, **self._defaults)
        if step is None or (
            step.times is not None and self._played(f"{message_id} {recipient} {step!r}") >= step.times
        ):
            return Step()
        return step

    def _played(self, what: str) -> int:
        """How often *what* was played before; counts this time."""
        if self._folder is None:
            with _lock:
                _counts[what] += 1
                return _counts[what] - 1
        self._folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(what.encode()).hexdigest()[:32]
        with (self._folder / f".played-{name}").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            before = os.fstat(file.fileno()).st_size
            file.write(b".")
        return before

    def _keep(self, kept: Kept) -> None:
        outbox.append(kept)
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(kept.at))}-{uuid.uuid4().hex[:12]}.eml"
        (self._folder / name).write_bytes(kept.content)
        facts = {"at": kept.at, "from": kept.sender, "to": kept.recipients, "message_id": kept.message_id, "file": name}
        with (self._folder / "outbox.jsonl").open("ab", buffering=0) as log:
            # one write in append mode: lines of several processes do not mix
            log.write(json.dumps(facts).encode() + b"\n")


class _Pretence:
    """Stands where smtplib's connection stands in Django's SMTP backend."""

    def __init__(self, backend: EmailBackend) -> None:
        self._backend = backend
        self.message_id = ""

    def sendmail(self, from_addr: str, to_addrs: Sequence[str], msg: bytes) -> dict[str, tuple[int, bytes]]:
        """Play, and return the refused recipients as smtplib does."""
        return self._backend.play(from_addr, to_addrs, msg, self.message_id)

    def close(self) -> None:
        """Nothing is open."""


def _misbehave(step: Step) -> None:
    match step.do:
        case "throttle":
            text = f"4.7.0 Throttling failure, try again in {math.ceil(step.wait_s)} seconds (rehearsal)"
            raise smtplib.SMTPDataError(454, text.encode())
        case "login":
            raise smtplib.SMTPAuthenticationError(535, b"5.7.8 Wrong password (rehearsal)")
        case "timeout":
            raise TimeoutError("timed out (rehearsal)")
        case "drop":
            raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed (rehearsal)")
        case "crash" | "vanish":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise _error_class(step.error)(*step.args)


def _error_class(path: str) -> type[BaseException]:
    try:
        found = import_string(path if "." in path else f"builtins.{path}")
    except ImportError as error:
        raise ImproperlyConfigured(f"rehearsal: no exception {path!r}") from error
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise ImproperlyConfigured(f"rehearsal: {path!r} is no exception")
    return found


def _message_id(message: Any) -> str:
    return next((str(value) for name, value in message.extra_headers.items() if name.lower() == "message-id"), "")
