"""
The tables of single providers. A new one is a new module here with a ``PROVIDER``, named as Anymail's backend.

Facts come from the providers' documentation and from what Anymail's authors saw; each row says from where. Where a
provider has one answer for several causes, the row takes the one that does least harm if it is wrong, and says so.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mail_service.diagnosis.provider import Provider

#: by the name of their module, which is that of Anymail's backend: ``amazon_ses``
PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType(
    {
        module.name: importlib.import_module(f"{__name__}.{module.name}").PROVIDER
        for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name)
    }
)
