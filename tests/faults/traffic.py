"""
A program that hands in mail all the time, through every door, and remembers what it was told about each.

What each mail is, and what the mail server will think of it, comes from the seed; the moments at which things happen do
not.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from mail_service.client import MailClient
from mail_service.errors import MailServiceError, Timeout, Unavailable
from mail_service.local.smtp_server import Rule
from tests.support.messages import a_message
from tests.support.outside import BROKEN, dispatch
from tests.support.waiting import eventually

#: what becomes of whom, by the first word of the address, and how many in a thousand are like that
FATES: dict[str, tuple[int, tuple[Rule, ...]]] = {
    "good": (800, ()),
    "once": (120, (Rule(at="rcpt", to="once-*", reply="450 4.2.0 Come back once", times=1),)),
    "refused": (40, (Rule(at="rcpt", to="refused-*", reply="550 5.1.1 No such person"),)),
    # taken, and the connection is gone before the server said so
    "cut": (20, (Rule(at="end", to="cut-*", accept=True, drop=True, times=1),)),
    "lazy": (20, (Rule(at="end", to="lazy-*", hang_s=0.5, times=1),)),
}
RULES = tuple(rule for _, rules in FATES.values() for rule in rules)

#: seconds that a call may take
TIMEOUT_S = 5.0
#: of the source whose events are mail
SOURCE = "orders"
#: of a hundred calls, how many go through each door: submit, submit_many, submit by RPC, event
DOORS = (60, 25, 10, 5)


class Traffic:
    """
    ``with Traffic(uri, name="kill", seed=1, rate=50) as traffic: ...``; `finish` before its mails are counted.

    Args:
        name: Begins the id of each mail.
        rate: Mails per second, if the doors are as quick as that.
        mailer: Name of the configured mailer.
        doors: Of a hundred calls, how many go through each door.
        batch: Mails in one submit_many.
        may_go_on: Asked before each call, with the number of mails so far; none is handed in while it says no.
    """

    def __init__(
        self,
        amqp_uri: str,
        *,
        name: str,
        seed: int,
        rate: float,
        mailer: str | None = None,
        doors: tuple[int, int, int, int] = DOORS,
        batch: int = 5,
        may_go_on: Callable[[int], bool] = lambda _accepted: True,
    ) -> None:
        #: the ids of those that were confirmed
        self.accepted: list[str] = []
        #: the ids of those of which nobody knows, by their message and options
        self.doubtful: dict[str, dict[str, Any]] = {}
        #: the ids of those that nobody has, as the caller was told
        self.refused: list[str] = []
        self._amqp_uri = amqp_uri
        self.name = name
        self._rate = rate
        self._mailer = mailer
        self._doors = doors
        self._batch = batch
        self._may_go_on = may_go_on
        self._random = random.Random(f"{seed} {name}")
        self._number = 0
        self._client = MailClient(amqp_uri, timeout=TIMEOUT_S)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._problem: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(60)
        self._client.close()

    def finish(self) -> None:
        """Hand in no more, but for what is doubtful: a caller who does not know hands it in again with the same id."""
        self._stopped.set()
        self._thread.join(60)
        if self._problem:
            raise self._problem
        self._client.close()
        for mail_id, mail in list(self.doubtful.items()):
            eventually(partial(self._hand_in_again, mail_id, mail), 60)
            self.accepted.append(mail_id)
            del self.doubtful[mail_id]

    def _hand_in_again(self, mail_id: str, mail: dict[str, Any]) -> bool:
        try:
            self._client.submit(mail, id=mail_id, **self._options)
        except (Unavailable, Timeout):
            return False
        return True

    @property
    def _options(self) -> dict[str, Any]:
        return {"mailer": self._mailer} if self._mailer else {}

    def _run(self) -> None:
        doors = (self._submit, self._submit_many, self._ask, self._dispatch)
        due = time.monotonic()
        try:
            while not self._stopped.is_set():
                if not self._may_go_on(len(self.accepted)):
                    self._stopped.wait(0.02)
                    continue
                (door,) = self._random.choices(doors, weights=self._doors)
                due = max(due, time.monotonic() - 1) + door() / self._rate
                self._stopped.wait(max(0.0, due - time.monotonic()))
        except BaseException as problem:
            self._problem = problem
            raise

    def _mail(self) -> tuple[str, dict[str, Any]]:
        self._number += 1
        mail_id = f"{self.name}-{self._number}"
        (fate,) = self._random.choices(list(FATES), weights=[weight for weight, _ in FATES.values()])
        return mail_id, a_message(to=[f"{fate}-{mail_id}@example.org"])

    def _submit(self) -> int:
        mail_id, mail = self._mail()
        self._note([mail_id], [mail], lambda: self._client.submit(mail, id=mail_id, **self._options))
        return 1

    def _submit_many(self) -> int:
        ids, mails = zip(*(self._mail() for _ in range(self._batch)), strict=True)
        given = [mail | {"options": {"id": mail_id, **self._options}} for mail_id, mail in zip(ids, mails, strict=True)]
        self._note(list(ids), list(mails), lambda: self._client.submit_many(given))
        return self._batch

    def _ask(self) -> int:
        """By RPC: the service itself accepts it."""
        mail_id, mail = self._mail()
        self._note([mail_id], [mail], lambda: self._client.call("submit", mail, id=mail_id, **self._options))
        return 1

    def _dispatch(self) -> int:
        mail_id, mail = self._mail()
        payload = mail | {"options": {"id": mail_id, **self._options}}
        try:
            dispatch(self._amqp_uri, SOURCE, payload, timeout_s=TIMEOUT_S)
        except BROKEN:
            # published, perhaps
            self.doubtful[mail_id] = mail
        else:
            self.accepted.append(mail_id)
        return 1

    def _note(self, ids: list[str], mails: list[dict[str, Any]], hand_in: Callable[[], Any]) -> None:
        for mail_id, mail in zip(ids, mails, strict=True):
            self.doubtful[mail_id] = mail
        try:
            answer = hand_in()
        except Unavailable as problem:
            if "did not confirm" in str(problem):
                # the service's own words, which are about RabbitMQ: it may have the mail
                return
            self.refused += ids
        except Timeout:
            return
        except MailServiceError as problem:
            raise AssertionError(f"{ids} were refused") from problem
        else:
            answers = answer if isinstance(answer, list) else [answer]
            # the others of a batch are as doubtful as if nothing had been answered
            ids = [each["id"] for each in answers if "error" not in each]
            self.accepted += ids
        for mail_id in ids:
            del self.doubtful[mail_id]
