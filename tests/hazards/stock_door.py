"""The doors of a mail service as nameko has them: an RPC method that queues, and an event handler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nameko.events import event_handler
from nameko.messaging import Publisher
from nameko.rpc import rpc

from .retrying_service import DECORATED


class MailService:
    """Queues what it is given."""

    name = "mail_service"

    publish = Publisher(declare=[DECORATED])

    @rpc
    def submit(self, message: dict[str, Any]) -> dict[str, str]:
        self.publish({"message": message, "facts": " " * 1000}, routing_key=DECORATED.name)
        return {"status": "queued"}

    @rpc
    def errors(self, limit: int = 100) -> list[object]:
        return []

    @event_handler("shop", "send_email")
    def send_email(self, payload: dict[str, Any]) -> None:
        Path("mailed").mkdir(exist_ok=True)
        with Path("mailed/outbox.jsonl").open("a") as outbox:
            outbox.write(json.dumps({"to": payload["to"]}) + "\n")
