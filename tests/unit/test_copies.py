"""What a copy of a message carries on when it is put off, and what it takes to read one."""

from __future__ import annotations

import json
import os
import tracemalloc
from base64 import b64encode
from dataclasses import replace

from kombu.message import Message

from mail_service.amqp.retrying import kept_headers
from mail_service.delivery.copies import Delivery, read
from mail_service.envelope import Envelope, ReplyTo, seal
from mail_service.settings import Settings

MESSAGE = {"subject": "Order", "body": "Text", "from_email": "shop@example.org", "to": ["ann@example.org"]}


def a_copy(envelope: Envelope, body: bytes | None = None) -> Delivery:
    return read(body or envelope.body(), {}, redelivered=False, settings=Settings())


def test_a_copy_keeps_namekos_context_and_leaves_out_what_is_the_brokers() -> None:
    context = {"nameko.call_id_stack": ["shop.place.1"], "nameko.language": "en", "traceparent": "00-1-2-01"}
    of_the_broker = {"x-death": [{"count": 3}], "x-delivery-count": 2}
    no_longer_true = {"compression": "application/x-gzip", "expiration": "5", "CC": ["a"], "BCC": ["b"]}

    kept = kept_headers(Message(headers=context | of_the_broker | no_longer_true))

    assert kept == context


def test_to_read_a_large_mail_takes_little_more_than_the_mail() -> None:
    content = b64encode(os.urandom(3_000_000)).decode()
    message = {**MESSAGE, "attachments": [{"filename": "noise.bin", "content": content}]}
    body = seal(message, {}, door="submit").body()

    tracemalloc.start()
    try:
        a_copy(seal(MESSAGE, {}, door="submit"))
        delivery = a_copy(seal(MESSAGE, {}, door="submit"), body)
        assert delivery.content == body
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # the text that is parsed, and what is found in it
    assert peak < 2.2 * len(body)


def test_the_ledger_keeps_a_mail_in_our_words_whoever_wrote_it() -> None:
    envelope = seal(MESSAGE, {"id": "mail-1"}, door="submit")
    others = json.dumps(json.loads(envelope.body()), indent=2).encode("utf-16")

    assert a_copy(envelope, others).content == envelope.body()


def test_the_ledger_keeps_neither_who_waits_nor_what_it_has_not_taken_yet() -> None:
    envelope = seal(MESSAGE, {"id": "mail-1"}, door="send", reply_to=ReplyTo(routing_key="key", correlation_id="id"))
    waiting = replace(envelope, unrecorded=[{"id": "mail-1"}])

    assert a_copy(waiting).content == envelope.without_reply().body()
