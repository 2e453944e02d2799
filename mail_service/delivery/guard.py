"""
Keep a staging system from mailing people: ``mail.redirect_to`` and ``mail.allow_recipients``.

Applied at the last moment before a mailer is asked, whatever door the mail came through. Pure: messages and records go
in and come out. What it cannot see are recipients inside ``esp_extra``, which mean something to one provider alone.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.header import Header
from typing import Any, Final

from mail_service.ledger.records import Mail, recipient
from mail_service.message.addresses import BadAddress, addr_spec
from mail_service.outcome import Kind, Receipt, Status
from mail_service.settings import Settings

#: who was to get the mail; those of bcc only where nobody else sees it
ORIGINAL_TO: Final = "X-Original-To"
ORIGINAL_BCC: Final = "X-Original-Bcc"
NOT_ALLOWED: Final = "not mailed: no pattern of mail.allow_recipients is true of this address"

_LISTS: Final = ("to", "cc", "bcc")
#: Anymail's fields with something of their own for each recipient
_BY_RECIPIENT: Final = ("merge_data", "merge_metadata", "merge_headers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirected:
    """A message as it may be sent."""

    canonical: Mapping[str, Any]
    #: by address of the mail, who gets it
    instead: Mapping[str, str]

    def waiting(self, addresses: Iterable[str]) -> list[str]:
        """Who is to be mailed for *addresses*, once each."""
        return list(dict.fromkeys(self.instead.get(address, address) for address in addresses))

    def receipts(self, receipts: Iterable[Receipt], waiting: Iterable[str]) -> list[Receipt]:
        """What *receipts* say about those who *waited*."""
        found = {receipt.address: receipt for receipt in receipts}
        return [
            self._of(address, found[actual])
            for address in waiting
            if (actual := self.instead.get(address, address)) in found
        ]

    def _of(self, address: str, receipt: Receipt) -> Receipt:
        diagnosis = receipt.diagnosis
        if address in self.instead and diagnosis.kind == Kind.ACCEPTED:
            diagnosis = replace(diagnosis, text=f"sent to {receipt.address} instead (mail.redirect_to)")
        elif address in self.instead and diagnosis.is_hard_bounce:
            # it is the other address that does not exist
            diagnosis = replace(diagnosis, scope=None)
        return replace(receipt, address=address, diagnosis=diagnosis)


class Guard:
    """
    Decides who may be mailed.

    Args:
        redirect_to: Who gets the mail of all who may not be mailed; None: they are suppressed.
        allow: Patterns such as ``*@example.org``; None: everybody where there is no *redirect_to* either, else nobody.
    """

    def __init__(self, redirect_to: str | None = None, allow: Sequence[str] | None = None) -> None:
        self._redirect_to = redirect_to
        self._is_on = redirect_to is not None or allow is not None
        self._allowed = [_pattern(text) for text in allow or ()]

    def allows(self, address: str) -> bool:
        """Whether *address* may be mailed."""
        if not self._is_on or address == self._redirect_to:
            return True
        local, domain = _parts(address)
        return any(
            of_local.fullmatch(local) and of_domain.fullmatch(domain) is not None
            for of_local, of_domain in self._allowed
        )

    def suppressed(self, mail: Mail) -> Mail:
        """*mail*, in which nobody waits any longer who may not be mailed, unless somebody gets it instead."""
        if not self._is_on or self._redirect_to is not None:
            return mail
        blocked = {
            address: recipient(Status.SUPPRESSED, detail=NOT_ALLOWED)
            for address in mail.open_recipients
            if not self.allows(address)
        }
        return replace(mail, recipients={**mail.recipients, **blocked}) if blocked else mail

    def redirected(self, canonical: Mapping[str, Any]) -> Redirected | None:
        """The message for those who may be mailed; None when it is for nobody else."""
        if self._redirect_to is None:
            return None
        people = {name: [(_bare(item), item) for item in canonical.get(name, ())] for name in _LISTS}
        blocked = {name: [bare for bare, _ in people[name] if not self.allows(bare)] for name in _LISTS}
        everybody = list(dict.fromkeys(bare for name in _LISTS for bare in blocked[name]))
        if not everybody:
            return None
        kept = {name: [item for bare, item in people[name] if self.allows(bare)] for name in _LISTS}
        is_alone = not any(kept.values())
        if self._redirect_to not in map(_bare, (item for items in kept.values() for item in items)):
            kept["to"] = [*kept["to"], self._redirect_to]
        headers = {ORIGINAL_TO: blocked["to"] + blocked["cc"], ORIGINAL_BCC: blocked["bcc"] if is_alone else []}
        changed = {name: items for name, items in kept.items() if items or name in canonical}
        message = {**canonical, **changed, **self._for_recipients(canonical, everybody)}
        message = _with_headers(message, {name: who for name, who in headers.items() if who})
        return Redirected(canonical=message, instead=dict.fromkeys(everybody, self._redirect_to))

    def _for_recipients(self, canonical: Mapping[str, Any], blocked: Sequence[str]) -> dict[str, Any]:
        """Of what each recipient has of his own, who gets the mail sees that of the first."""
        changed = {}
        for name in _BY_RECIPIENT:
            values = canonical.get(name)
            if isinstance(values, Mapping):
                first = next((values[who] for who in blocked if who in values), None)
                changed[name] = {**values, self._redirect_to: first} if first is not None else values
        return changed


def in_words(settings: Settings) -> str | None:
    """What has to be known about a service that does not mail everybody, without an address; None when it does."""
    if settings.redirect_to is not None:
        return "mail.redirect_to is set: mail to all others than mail.allow_recipients names goes to that address"
    if settings.allow_recipients is not None:
        return "mail.allow_recipients is set: nobody else is mailed"
    return None


#: everybody is mailed
NO_GUARD: Final = Guard()


def _with_headers(message: dict[str, Any], headers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    lower = {name.lower() for name in (ORIGINAL_TO, ORIGINAL_BCC)}
    own = {name: value for name, value in message.get("headers", {}).items() if name.lower() not in lower}
    message["headers"] = own | {name: ", ".join(who) for name, who in headers.items()}
    if "mime" in message:
        # bytes that somebody may have signed: a header field in front does no harm to a signature
        lines = (f"{name}: {_folded(who)}\r\n" for name, who in headers.items())
        message["mime"] = b64encode("".join(lines).encode() + b64decode(message["mime"])).decode()
    return message


def _folded(addresses: Iterable[str]) -> str:
    return ",\r\n ".join(who if who.isascii() else Header(who, "utf-8").encode() for who in addresses)


def _bare(address: str) -> str:
    try:
        return addr_spec(address)
    except BadAddress:
        return address


def _parts(address: str) -> tuple[str, str]:
    """The local part and the domain, as they are compared: in any case of letters, the domain in ASCII."""
    local, _, domain = address.casefold().rpartition("@")
    with suppress(UnicodeError):
        domain = domain if domain.isascii() else domain.encode("idna").decode()
    return local, domain


def _pattern(text: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    local, domain = (".*".join(map(re.escape, part.split("*"))) for part in _parts(text))
    return re.compile(local, re.DOTALL), re.compile(domain)
