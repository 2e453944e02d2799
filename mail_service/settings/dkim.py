"""Reads ``mail.dkim``: with which key mail of which sender's domain is signed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mail_service.settings.model import DkimKey
from mail_service.settings.reading import Section, shown
from mail_service.settings.routing import pattern

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
#: RFC 6376, 3.1
_SELECTOR: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def read_dkim(mail: Section) -> Mapping[str, DkimKey]:
    """The keys by domain. The files are not looked at."""
    section = mail.section("dkim")
    keys: dict[str, DkimKey] = {}
    for name in section.values:
        domain = pattern(name)
        if domain is None or domain.startswith("*"):
            section.mistakes.add(section.path, f"expected a domain like example.org, got {shown(name)}")
            continue
        entry = section.section(name, ["selector", "keyfile"])
        selector = entry.text("selector", "", what="the name of the key in DNS, such as s2026")
        if selector and not _SELECTOR.fullmatch(selector):
            entry.wrong("selector", "the name of the key in DNS, such as s2026", selector)
        keyfile = entry.text("keyfile", "", what="the path of a private key")
        for key in ("selector", "keyfile"):
            if key not in entry:
                entry.mistakes.add(entry.at(key), "missing")
        keys[domain] = DkimKey(selector=selector, keyfile=keyfile)
    return MappingProxyType(keys)
