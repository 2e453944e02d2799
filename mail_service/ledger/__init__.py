"""What we remember: one row per mail, one per attempt, and the whole content of every mail that was not sent."""

from mail_service.ledger.database import StoreDown
from mail_service.ledger.ledger import Ledger

__all__ = ["Ledger", "StoreDown"]
