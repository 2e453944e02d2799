"""What a copy of a message carries on when it is put off."""

from __future__ import annotations

from kombu.message import Message

from mail_service.amqp.retrying import kept_headers


def test_a_copy_keeps_namekos_context_and_leaves_out_what_is_the_brokers() -> None:
    context = {"nameko.call_id_stack": ["shop.place.1"], "nameko.language": "en", "traceparent": "00-1-2-01"}
    of_the_broker = {"x-death": [{"count": 3}], "x-delivery-count": 2}
    no_longer_true = {"compression": "application/x-gzip", "expiration": "5", "CC": ["a"], "BCC": ["b"]}

    kept = kept_headers(Message(headers=context | of_the_broker | no_longer_true))

    assert kept == context
