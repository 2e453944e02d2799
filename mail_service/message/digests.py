"""One number for a message, to tell whether two with the same id are the same."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def digest(canonical: dict[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of a canonical message: equal for equal JSON values, whatever their order."""
    return sha256(_encode(canonical).encode("ascii")).hexdigest()
