"""
What is compared: ours, and what others would pick instead, each as a careful user would set it up.

Each works in processes of its own, with a client, workers and an empty place. A contender is a module of this package
with ``prepare``, ``Client`` and ``workers``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One of them; *needs* is the package without which it cannot run."""

    name: str
    words: str
    module: str
    needs: str
    #: it tries again by itself what an SMTP server refuses for now
    retries: bool = True
    #: False: another way to hand mail in to workers that are compared already
    drains: bool = True

    @property
    def is_there(self) -> bool:
        """Whether its package is installed."""
        return find_spec(self.needs) is not None


CONTENDERS = (
    Contender(name="ours", words="mail_service", module="ours", needs="mail_service"),
    Contender(
        name="ours_django",
        words="mail_service by Django's send()",
        module="ours_django",
        needs="mail_service",
        retries=False,
        drains=False,
    ),
    Contender(name="stock", words="nameko, nameko-amqp-retry, kept connections", module="stock", needs="nameko"),
    Contender(
        name="post_office", words="post_office, tuned, SQLite", module="post_office", needs="post_office", retries=False
    ),
    Contender(name="dramatiq", words="dramatiq, 8 threads", module="dramatiq_actors", needs="dramatiq"),
    Contender(name="celery", words="Celery, prefork", module="celery_tasks", needs="celery"),
    Contender(
        name="django_mailer",
        words="django-mailer, SQLite, 1 process",
        module="django_mailer",
        needs="mailer",
        retries=False,
    ),
)
