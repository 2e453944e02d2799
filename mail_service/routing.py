"""
Which mailer takes a mail: the one that its options name, else that of the first rule in ``mail.routing`` that fits,
else ``default``. Pure: the same mail, the same rules, the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

from mail_service.message import Options, recipients
from mail_service.message.addresses import BadAddress, addr_spec
from mail_service.settings import RoutingRule, Settings
from mail_service.settings.routing import SUBDOMAINS, domain

DEFAULT: Final = "default"
#: of the hash, so that a float holds them exactly
_BITS: Final = 52


def choose(settings: Settings, message: Mapping[str, Any], options: Options, mail_id: str) -> str:
    """
    Return the name of the mailer for a mail; whether its tenant has one of its own by that name is not asked here.

    Of several mailers with weights, *mail_id* decides, so that a retry goes the way of the first attempt, in whatever
    process and after whatever restart; over many mails each gets its share. With another mailer added to a rule, only
    those mails change their way that are now its own.

    Args:
        message: In its canonical form.
    """
    if options.mailer:
        return options.mailer
    rule = next((rule for rule in settings.routing if _fits(rule, message, options.tenant)), None)
    return DEFAULT if rule is None else _drawn(rule.mailers, mail_id)


def _fits(rule: RoutingRule, message: Mapping[str, Any], tenant: str | None) -> bool:
    """
    Whether all of the rule's conditions hold. One on the recipients' domain has to hold for each of them: a mail is not
    divided, and whoever takes the mail for one domain need not take it for another.
    """
    return (
        (not rule.tenants or tenant in rule.tenants)
        and (not rule.tags or not set(rule.tags).isdisjoint(_tags(message)))
        and (not rule.sender_domains or _is_in(rule.sender_domains, [_sender(message)]))
        and (not rule.recipient_domains or _is_in(rule.recipient_domains, recipients(dict(message))))
    )


def _tags(message: Mapping[str, Any]) -> Iterable[str]:
    tags = message.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _sender(message: Mapping[str, Any]) -> str:
    try:
        return addr_spec(str(message.get("from_email") or ""))
    except BadAddress:
        return ""


def _is_in(domains: Iterable[str], addresses: Iterable[str]) -> bool:
    """Whether every address is in one of the *domains*, which may begin with ``*.``."""
    return all(any(_matches(pattern, address) for pattern in domains) for address in addresses)


def _matches(pattern: str, address: str) -> bool:
    found = domain(address.rpartition("@")[2])
    return found.endswith(pattern[1:]) if pattern.startswith(SUBDOMAINS) else found == pattern


def _drawn(mailers: Mapping[str, int], mail_id: str) -> str:
    """
    Draw one of *mailers* by their weights: the largest ``weight / -ln(u)``, with u from a hash of the id and the name.

    That is weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005): the
    chance of each is its weight's part of their sum, and a new name takes its part evenly from all others.
    """
    return max(sorted(mailers), key=lambda name: mailers[name] / -math.log(_uniform(f"{name}\0{mail_id}")))


def _uniform(text: str) -> float:
    """A number above 0 and below 1 that only *text* decides."""
    number = int.from_bytes(sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]) >> (64 - _BITS)
    return math.ldexp(number + 0.5, -_BITS)
