"""
A process that publishes from many greenlets at once, and prints how many messages were confirmed.

    python -m tests.broker.publishing AMQP_URI GREENLETS MESSAGES_OF_EACH
"""

from __future__ import annotations

import sys

import eventlet

eventlet.monkey_patch()

from mail_service.amqp import connecting  # noqa: E402
from mail_service.amqp.publisher import Publisher  # noqa: E402


def main(amqp_uri: str, greenlets: int, each: int) -> None:
    publisher = Publisher(lambda: connecting.connection({"AMQP_URI": amqp_uri}), confirm_timeout_s=10)

    def publish() -> int:
        for _ in range(each):
            # nobody listens: it is confirmed at once, and confirms come in bursts
            publisher.publish(b"a message", exchange="amq.fanout", routing_key="", mandatory=False)
            # so that confirms come while others publish
            eventlet.sleep(0.002)
        return each

    print(sum(greenlet.wait() for greenlet in [eventlet.spawn(publish) for _ in range(greenlets)]))
    publisher.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
