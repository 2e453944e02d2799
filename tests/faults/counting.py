"""
What became of each mail: pure, from what the caller was told, what the mail servers have, and what the ledger says.

Delivered is what a server took, not what the ledger believes. A mail is doubled where a server took it more than once;
that is allowed for an attempt that was in flight at a crash, and then an attempt of the mail stands in the ledger as
``unknown``, and all copies have the same ``Message-ID``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from mail_service.outcome import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the ledger says of a mail."""

    status: Status
    #: of its attempts, those whose outcome is unknown
    unknown: int
    #: its content is there, so that it can be looked at and replayed
    has_content: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The count at the end. Whoever adds two gets the count of both."""

    #: RabbitMQ or the service had confirmed them
    accepted: int = 0
    #: a mail server took them
    delivered: int = 0
    #: in the error log, complete
    logged: int = 0
    #: neither, or the ledger says something else than the mail server
    lost: int = 0
    #: taken more than once
    doubled: int = 0
    #: of those, the ones that the ledger cannot explain, or with another Message-ID
    unmarked: int = 0
    #: the caller was told that nobody has them, and they came all the same
    denied: int = 0
    #: ids of some that are wrong
    wrong: tuple[str, ...] = field(default=())

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    @property
    def is_sound(self) -> bool:
        """Nothing was lost, and nobody needlessly mailed twice."""
        return not (self.lost or self.unmarked or self.denied)


def count(
    accepted: Sequence[str],
    refused: Sequence[str],
    taken: Mapping[str, Sequence[str | None]],
    ledger: Mapping[str, Known],
) -> Tally:
    """
    Count the mails with the ids *accepted*.

    Args:
        refused: Ids that the caller was told nobody has.
        taken: The Message-ID of each copy that a mail server took, by the mail's id; None where it does not show.
        ledger: What the ledger says, by the mail's id.
    """
    lost = [each for each in accepted if _is_lost(len(taken.get(each, ())), ledger.get(each))]
    doubled = [each for each in accepted if len(taken.get(each, ())) > 1]
    unmarked = [each for each in doubled if not _is_marked(taken[each], ledger.get(each))]
    denied = [each for each in refused if each in taken]
    return Tally(
        accepted=len(accepted),
        delivered=sum(each in taken for each in accepted),
        logged=sum(_is_logged(ledger.get(each)) for each in accepted),
        lost=len(lost),
        doubled=len(doubled),
        unmarked=len(unmarked),
        denied=len(denied),
        wrong=(*lost, *unmarked, *denied)[:10],
    )


def _is_logged(known: Known | None) -> bool:
    return known is not None and known.status.is_final and known.status != Status.SENT and known.has_content


def _is_lost(copies: int, known: Known | None) -> bool:
    if known is None:
        return True
    if known.status == Status.SENT:
        return copies == 0
    return not _is_logged(known) or (copies > 0 and known.unknown == 0)


def _is_marked(message_ids: Sequence[str | None], known: Known | None) -> bool:
    is_one_mail = len(set(message_ids) - {None}) <= 1
    return known is not None and is_one_mail and len(message_ids) <= 1 + known.unknown
