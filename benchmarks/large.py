"""What a large mail takes of a worker's memory, and gives back."""

from __future__ import annotations

import json
import os
import time
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import until
from benchmarks.messages import a_message
from benchmarks.servers import memory_mib, running, smtp_mailer
from benchmarks.sink import Sink
from mail_service.client import MailClient

ATTACHMENT_BYTES = 10_000_000
MAILS = 3
#: after the last mail, until what is left counts as kept
SETTLED_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """MiB."""

    #: the message as JSON
    message: float
    #: of the worker: before, at most, and afterwards
    idle: float
    peak: float
    after: float


def weigh(amqp_uri: str, folder: Path, sink: Sink) -> Weight:
    """Send a few mails with 10 MB of attachments, one after the other, through one worker."""
    content = b64encode(os.urandom(ATTACHMENT_BYTES)).decode()
    message = a_message("large") | {"attachments": [{"filename": "noise.bin", "content": content}]}
    default = smtp_mailer(sink.port)
    sink.ask("reset")
    with running(amqp_uri, folder, {"default": default}, processes=1) as service, MailClient(amqp_uri) as client:
        until(client.is_running, bool, "the service")
        client.submit(a_message("small"))
        sink.until("count", 1)
        idle = memory_mib(service)
        for number in range(MAILS):
            client.submit(message)
            sink.until("count", number + 2)
        until(lambda: memory_mib(service), lambda mib: mib < idle + 1.5 * len(content) / 2**20, "memory given back")
        time.sleep(SETTLED_S)
        return Weight(
            message=len(json.dumps(message)) / 2**20,
            idle=idle,
            peak=memory_mib(service, "VmHWM"),
            after=memory_mib(service),
        )
